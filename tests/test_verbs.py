"""The notebook's verbs: thin, lazy and documented."""

from __future__ import annotations

import inspect
import sys
from types import ModuleType

import numpy as np
import pytest
from toys import picture, toy_bundle

import hrviewer
from hrviewer.errors import HrviewerError

VERBS = ("open", "run", "compare", "cost", "view", "export")


def test_all_that_is_promised_is_there():
    assert set(hrviewer.__all__) == {*VERBS, "__version__"}
    assert hrviewer.__version__[0].isdigit()


@pytest.mark.parametrize("name", VERBS)
def test_verbs_are_typed_and_documented(name):
    verb = getattr(hrviewer, name)
    text = inspect.getdoc(verb)
    for section in ("Parameters", "Returns", "Raises"):
        assert f"{section}\n{'-' * len(section)}" in text
    signature = inspect.signature(verb)
    assert signature.return_annotation is not inspect.Signature.empty
    for parameter in signature.parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty
        assert parameter.name in text


def test_run_takes_what_runs_takes():
    from hrviewer import runs

    theirs = inspect.signature(runs.run).parameters
    ours = inspect.signature(hrviewer.run).parameters
    assert theirs.keys() - ours.keys() == {"watch", "control"}
    assert all(ours[name].default == theirs[name].default for name in ours)


def test_cost_takes_what_runs_takes():
    from hrviewer import runs

    theirs = inspect.signature(runs.cost).parameters
    ours = inspect.signature(hrviewer.cost).parameters
    assert theirs.keys() - ours.keys() == {"watch", "control"}
    assert all(ours[name].default == theirs[name].default for name in ours)


def test_from_image_to_file(tmp_path):
    image = picture(200, 260)
    with hrviewer.open(image) as pyramid:
        assert pyramid.shape == (200, 260)
        out = tmp_path / "a.run.zarr"
        done = hrviewer.run(
            pyramid, toy_bundle(), "patches", region=(0, 0, 128, 128), tile=64, out=out
        )
    assert done.estimate["value"] == pytest.approx(image[:128, :128, 0].sum() / 255, rel=1e-5)
    assert np.nansum(done.output) == pytest.approx(done.estimate["value"], rel=1e-5)
    assert len(done.patches) == 4
    written = hrviewer.export(done, tmp_path / "a.geojson")
    again = hrviewer.export(str(done.path), tmp_path / "b.json", to="geojson")
    assert written.read_bytes() == again.read_bytes()
    with pytest.raises(HrviewerError, match="not a run folder"):
        hrviewer.export(tmp_path, tmp_path / "c.geojson")


def test_view_hands_over(monkeypatch):
    module = ModuleType("hrviewer.viewer.view")
    module.view = lambda image, **chosen: (image, chosen)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert hrviewer.view("a.svs", "nuclei", "zoom") == (
        "a.svs",
        {"model": "nuclei", "strategy": "zoom", "live": False},
    )
