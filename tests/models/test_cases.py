"""Files that reviewers found to be read wrongly, or refused for the wrong cause.

``../shared/cases/models/cases.json`` describes them; each test names its case.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hrviewer
from hrviewer.errors import HrviewerError
from hrviewer.models import Network, open_bundle
from hrviewer.models.drafting import CardAnswers, draft_card, measure_file

Take = Callable[..., Path]


@pytest.fixture
def take(shared: Path, tmp_path: Path) -> Take:
    """Copy a case's network, with its card or another one."""

    def copy(name: str, card: dict[str, Any] | None = None) -> Path:
        folder = shared / "cases" / "models"
        if not folder.is_dir():
            pytest.skip("no cases beside the checkout")
        path = tmp_path / f"{name}.onnx"
        shutil.copy(folder / path.name, path)
        fields = card or json.loads((folder / f"{name}.json").read_text())
        path.with_suffix(".json").write_text(json.dumps(fields))
        return path

    return copy


def load(path: Path) -> Network:
    return open_bundle(path).load("main", "cpu")


def draft(path: Path, **answers: Any) -> dict[str, Any]:
    """Return the card that ``models init`` drafts."""
    found = draft_card(path, measure_file(path), CardAnswers(scale=1 / 255, **answers))
    assert found.missing == ()
    return found.fields


def run(image: Any, model: Path, out: Path, **settings: Any) -> hrviewer.Run:
    return hrviewer.run(
        image, model, device="cpu", cache="off", progress=False, out=out / "r.run.zarr", **settings
    )


@pytest.fixture
def boats(shared: Path) -> Path:
    return next(shared.glob("data/**/boats.jpg"))


@pytest.mark.slow
@pytest.mark.parametrize("multiple", [416, 32])
def test_fixed_multiple_of_tile(shared: Path, tmp_path: Path, boats: Path, multiple: int) -> None:
    """16 boats for any multiple_of; every cell of the map is finite."""
    source = shared / "models" / "yolox_nano.onnx"
    shutil.copy(source, tmp_path / "yolox.onnx")
    card = json.loads(source.with_suffix(".json").read_text())
    card["input"]["multiple_of"] = multiple
    (tmp_path / "yolox.json").write_text(json.dumps(card))
    done = run(boats, tmp_path / "yolox.onnx", tmp_path, halo=64)
    assert done.estimate["per_class"]["boat"] == 16
    assert np.isfinite(done.maps["output"].values).all()


def test_fixed_grid(shared: Path, tmp_path: Path, boats: Path) -> None:
    model = shared / "models" / "yolox_nano.onnx"
    with pytest.raises(HrviewerError, match="416 pixels a side only, but grid=2x2 makes parts of"):
        run(boats, model, tmp_path, grid="2x2")
    with pytest.raises(HrviewerError, match="for cores of 256, choose halo=80"):
        run(boats, model, tmp_path, tile=256)


def test_fixed_classifier_halo(take: Take, tmp_path: Path) -> None:
    """The context is inside the tile: each core gets the mean of the square around it."""
    image = np.random.default_rng(0).integers(0, 256, (480, 480, 3), np.uint8)
    path = take("mean")
    card = json.loads(path.with_suffix(".json").read_text())
    card["output"]["halo"] = 32
    path.with_suffix(".json").write_text(json.dumps(card))
    done = run(image, path, tmp_path)
    assert done.header["patches"]["failed"] == 0
    assert set(done.patches["h"]) == {160}
    second = done.patches.query("y == 160 and x == 160")
    wanted = image[128 : 128 + 224, 128 : 128 + 224, :2].mean(axis=(0, 1)).max() / 255
    assert second["value"].item() == pytest.approx(wanted, abs=1e-4)
    card["output"]["halo"] = 112
    path.with_suffix(".json").write_text(json.dumps(card))
    with pytest.raises(HrviewerError, match=r"output\.halo is 112 pixels, which leave nothing"):
        load(path)


def test_onebox(shared: Path, take: Take, tmp_path: Path) -> None:
    done = run(shared / "cases/models/onebox.png", take("onebox"), tmp_path)
    assert done.estimate["per_class"] == {"thing": 1}


@pytest.mark.slow
def test_letterbox_unused(shared: Path, tmp_path: Path, boats: Path) -> None:
    """Filled with 114 as the card gives it: 2 cars; reflected there were 3."""
    done = run(boats, shared / "models" / "yolox_nano.onnx", tmp_path, halo=0)
    assert done.estimate["per_class"]["car"] == 2


def test_ms4_uint8(shared: Path, tmp_path: Path) -> None:
    """Refused before the first patch."""
    from onnx import helper
    from tiny_models import write_graph

    nodes = [helper.make_node("ReduceMean", ["images"], ["y"], axes=[1], keepdims=1)]
    path = write_graph(
        tmp_path / "ms4.onnx", nodes, {}, {"y": (1, 1, 64, 64)}, shape=(1, 4, 64, 64)
    )
    card = {
        "name": "ms4",
        "task": "regression",
        "input": {"channels": 4, "tile": 64, "fixed": True},
        "output": {"stride": 1, "classes": ["mean"]},
    }
    path.with_suffix(".json").write_text(json.dumps(card))
    image = shared / "cases/models/ms4band_uint8.tif"
    with pytest.raises(HrviewerError, match="takes 4 channels, but the image has 3"):
        run(image, path, tmp_path)


def test_nhwc(take: Take) -> None:
    net = load(take("nhwc"))
    assert net(np.zeros((1, 3, 64, 80), np.float32)).shape == (1, 2, 64, 80)


def test_softmax_of_one(take: Take) -> None:
    with pytest.raises(HrviewerError, match=r"softmax of one class is always 1: .* sigmoid"):
        load(take("binary"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("e2e", r"gives \(300, 6\): correct the card's output.decode \(hrviewer models init"),
        ("detr", r"gives \(300, 5\), \(300, 4\): correct the card's output.decode"),
        ("cellpose", r"sizes \(\(3, 224, 224\), \(256,\)\) .* in the card's output\.names"),
        ("reg1d", r"the task to regression if they are quantities"),
    ],
)
def test_heads_with_a_wrong_card(take: Take, name: str, message: str) -> None:
    with pytest.raises(HrviewerError, match=message) as raised:
        load(take(name))
    assert str(raised.value).count(f"{name}: ") == 1


@pytest.mark.parametrize(
    ("name", "answers", "task"),
    [
        ("e2e", {"classes": ["a"]}, "detection"),
        ("detr", {"classes": list("abcd")}, "detection"),
        ("reg1d", {"task": "regression", "classes": ["age"], "units": ["a"]}, "regression"),
        ("u8", {"classes": ["bg", "fg"]}, "segmentation"),
        ("nhwc", {"classes": ["bg", "fg"]}, "segmentation"),
    ],
)
def test_heads_with_a_drafted_card(
    take: Take, name: str, answers: dict[str, Any], task: str
) -> None:
    path = take(name)
    fields = draft(path, **answers)
    path.with_suffix(".json").write_text(json.dumps(fields))
    net = load(path)
    assert net.card.task == task
    if task == "detection":
        (found,) = net.detect(np.zeros((1, 3, 320, 320), np.float32))
        assert (found.scores >= 0.3).all()
