"""The notebook's verbs: thin, lazy and documented."""

from __future__ import annotations

import inspect
from types import ModuleType

import numpy as np
import pytest
from toys import picture, toy_bundle

import hrviewer
from hrviewer import errors
from hrviewer.errors import HrviewerError

FUNCTIONS = (
    "open", "load", "run", "compare", "batch", "cost", "distill", "view", "export", "find_tissue",
    "models", "strategies",
)  # fmt: skip
TYPES = ("Budget", "Model", "Patch", "Pyramid", "Rect", "Region", "Run", "Strategy")
ERRORS = (
    "BudgetError", "ClaimedError", "DeviceMemoryError", "DisplayError", "GroundTruthError",
    "HrviewerError", "ImageReadError",
    "ModelError", "ParameterError", "RunError", "UntrustedModelError", "WriteError",
)  # fmt: skip


def test_all_that_is_promised_is_there():
    assert set(hrviewer.__all__) == {*FUNCTIONS, *TYPES, *ERRORS, "__version__"}
    assert dir(hrviewer) == sorted(hrviewer.__all__)
    assert {name for name in errors.__all__ if name.endswith("Error")} == set(ERRORS)
    assert hrviewer.__version__[0].isdigit()
    assert all(isinstance(getattr(hrviewer, name), type) for name in TYPES)
    assert all(issubclass(getattr(hrviewer, name), HrviewerError) for name in ERRORS)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        hrviewer.nonsense  # noqa: B018


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_typed_and_documented(name):
    function = getattr(hrviewer, name)
    if isinstance(function, ModuleType):
        function = function.__call__
    text = inspect.getdoc(function)
    signature = inspect.signature(function)
    sections = ("Parameters", "Returns", "Raises") if signature.parameters else ("Returns",)
    for section in sections:
        assert f"{section}\n{'-' * len(section)}" in text
    assert signature.return_annotation is not inspect.Signature.empty
    for parameter in signature.parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty
        assert parameter.name in text


def test_packages_are_functions_too():
    assert "toy" not in hrviewer.models().index
    assert {"patches", "zoom"} <= set(hrviewer.strategies().index)
    assert hrviewer.models.card.ModelCard is hrviewer.models.ModelCard


def test_from_image_to_file(tmp_path):
    image = picture(200, 260)
    with hrviewer.open(image) as pyramid:
        assert pyramid.plane_shape == (200, 260)
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
