"""Every case of ``../shared/cases/models`` on the command line, against what it wants."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from benchmarks.class_models import write_models

from .calling import call, error_of

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
import tiny_models

pytestmark = pytest.mark.slow
SCALE = ("--scale", "1/255")


class Case:
    """Files of a case, and commands on them."""

    def __init__(self, shared: Path, folder: Path) -> None:
        self.shared, self.folder = shared, folder

    def take(self, name: str, **card: Any) -> Path:
        """Copy a network; with its card, in which fields may be replaced."""
        source = self.shared / "cases" / "models" / f"{name}.onnx"
        if not source.is_file():
            source = self.shared / "models" / f"{name}.onnx"
        path = self.folder / source.name
        shutil.copy(source, path)
        fields = json.loads(source.with_suffix(".json").read_text())
        for section, values in card.items():
            fields[section] |= values
        path.with_suffix(".json").write_text(json.dumps(fields))
        return path

    def image(self, channels: int = 3, side: int = 330) -> Path:
        pixels = np.random.default_rng(0).integers(0, 256, (side, side, channels), np.uint8)
        path = self.folder / "image.png"
        Image.fromarray(pixels).save(path)
        return path

    @property
    def boats(self) -> Path:
        return next(self.shared.glob("data/**/boats.jpg"))

    def command(self, image: Path, model: Path, strategy: str, *more: str) -> list[object]:
        out = self.folder / "r.run.zarr"
        common = ("--cache", "off", "--device", "cpu", "--out", out)
        return ["run", image, "--model", model, "--strategy", strategy, *common, *more]

    def estimate(self, image: Path, model: Path, strategy: str, *more: str) -> dict[str, Any]:
        """Run, and return the estimate of the JSON that is printed."""
        result = call(*self.command(image, model, strategy, *more, "--json"))
        found = json.loads(result.stdout)
        assert found["patches"]["failed"] == 0
        estimate: dict[str, Any] = found["estimate"]
        return estimate

    def refusal(self, image: Path, model: Path, *more: str) -> str:
        return error_of(*self.command(image, model, "patches", *more))


def shares_under_zoom(case: Case) -> None:
    slide = next(case.shared.glob("data/wsi/CMU-1-Small-Region.svs"))
    model = write_models(case.folder / "models")["tiles"]
    found = case.estimate(slide, model, "zoom", "--region", "0,0,1344,1344")
    assert sum(found["per_class"].values()) == pytest.approx(1)
    assert found["per_class_ci95"].keys() == found["per_class"].keys()


def classes_in_tables(case: Case) -> None:
    model = tiny_models.ultralytics(case.folder / "cls.onnx", "classify")
    case.estimate(case.image(), model, "patches")
    table = case.folder / "t.csv"
    call("export", case.folder / "r.run.zarr", "-o", table, "--set", "rows=patches")
    columns = [f"prob_{name}" for name in tiny_models.CLASSES]
    found = pd.read_csv(table, comment="#")[columns]
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-3)


def multiple_of_the_tile(case: Case) -> None:
    model = case.take("yolox_nano", input={"multiple_of": 416})
    found = case.estimate(case.boats, model, "patches", "--set", "halo=64")
    assert found["per_class"]["boat"] == 16


def grid_of_a_fixed_network(case: Case) -> None:
    line = case.refusal(case.boats, case.take("yolox_nano"), "--set", "grid=2x2")
    assert "416 pixels a side only, but grid=2x2" in line


def halo_of_a_fixed_classifier(case: Case) -> None:
    model = case.take("mean", output={"halo": 112})
    assert "output.halo is 112 pixels, which leave nothing" in error_of("models", "check", model)


def one_box(case: Case) -> None:
    image = case.shared / "cases" / "models" / "onebox.png"
    assert case.estimate(image, case.take("onebox"), "patches")["per_class"] == {"thing": 1}


def letterbox(case: Case) -> None:
    found = case.estimate(case.boats, case.take("yolox_nano"), "patches", "--set", "halo=0")
    assert found["per_class"]["car"] == 2


def four_bands(case: Case) -> None:
    path = case.folder / "ms4.onnx"
    nodes = [tiny_models.node("ReduceMean", ["images"], ["y"], axes=[1], keepdims=1)]
    tiny_models.write_graph(path, nodes, {}, {"y": (1, 1, 64, 64)}, shape=(1, 4, 64, 64))
    options = ("--task", "regression", "--classes", "mean", "--channels", "4")
    call("models", "init", path, *SCALE, *options)
    image = case.shared / "cases" / "models" / "ms4band_uint8.tif"
    assert "takes 4 channels, but the image has 3" in case.refusal(image, path)


def channels_last(case: Case) -> None:
    found = case.estimate(case.image(), case.take("nhwc"), "patches")
    assert sum(found["per_class"].values()) == pytest.approx(330**2)


def softmax_of_one(case: Case) -> None:
    line = case.refusal(case.image(), case.take("binary"))
    assert "the softmax of one class is always 1: output.activation must be sigmoid" in line


def yolov8(case: Case) -> None:
    model = tiny_models.ultralytics(case.folder / "yolov8.onnx", "detect")
    assert case.estimate(case.image(), model, "patches")["value"] > 0


def heads(case: Case) -> None:
    image = case.image()
    for name, cause, options in (
        ("e2e", "gives (300, 6)", ("--classes", "a")),
        ("detr", "gives (300, 5), (300, 4)", ("--classes", "a,b,c,d")),
        ("stardist", "", ("--classes", "nucleus", "--decode", "stardist")),
        (
            "cellpose",
            "sizes ((3, 224, 224), (256,))",
            ("--classes", "cell", "--decode", "cellpose"),
        ),
        ("u8", "", ("--classes", "bg,fg")),
        ("reg1d", "the task to regression", ("--task", "regression", "--classes", "age")),
    ):
        model = case.take(name)
        if cause:
            assert cause in case.refusal(image, model)
        call("models", "init", model, "--force", *SCALE, *options)
        if name == "cellpose":  # of two channels
            assert "takes 2 channels, but the image has 3" in case.refusal(image, model)
            continue
        assert case.estimate(image, model, "patches") is not None
        shutil.rmtree(case.folder / "r.run.zarr")


CASES: dict[str, Callable[[Case], None]] = {
    "zoom-not-a-share": shares_under_zoom,
    "classes-not-exported": classes_in_tables,
    "fixed-multiple-of-tile": multiple_of_the_tile,
    "fixed-grid": grid_of_a_fixed_network,
    "fixed-classifier-halo": halo_of_a_fixed_classifier,
    "onebox": one_box,
    "letterbox-unused": letterbox,
    "ms4-uint8": four_bands,
    "nhwc": channels_last,
    "softmax-of-one": softmax_of_one,
    "yolov8": yolov8,
    "heads": heads,
}


@pytest.mark.parametrize("name", CASES)
def test_case(name: str, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = shared / "cases" / "models" / "cases.json"
    if not index.is_file():
        pytest.skip("no cases beside the checkout")
    assert {entry["id"] for entry in json.loads(index.read_text())} == CASES.keys()
    monkeypatch.setenv("HRVIEWER_CACHE", str(tmp_path / "cache"))
    CASES[name](Case(shared, tmp_path))
