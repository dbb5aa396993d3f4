"""Quantities of tiles: means with their units and ranges, in the estimate, map and legend."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import helper
from toys import picture

import hrviewer
from hrviewer.app.maps.result_maps import ResultMaps
from hrviewer.formatting import format_estimate

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
import tiny_models

IMAGE = picture(128, 192)


def write(folder: Path, task: str, names: list[str], **output: object) -> Path:
    """A network whose outputs are the mean of red and of green of each tile."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["m"]),
        helper.make_node("Slice", ["m", "low", "high", "axis"], ["s"]),
        helper.make_node("Flatten", ["s"], ["output"]),
    ]
    weights = {"low": [0], "high": [len(names)], "axis": [1]}
    path = tiny_models.write_graph(
        folder / "net.onnx", nodes, weights, {"output": ("n", len(names))}, shape=("n", 3, 64, 64)
    )
    card = {
        "name": "net",
        "task": task,
        "input": {"channels": "rgb", "scale": 1 / 255, "tile": 64, "fixed": True},
        "output": {"stride": 64, "classes": names, **output},
    }
    path.with_suffix(".json").write_text(json.dumps(card))
    return path


def test_means_of_quantities(tmp_path):
    model = write(tmp_path, "regression", ["age", "height"], units=["a", "m"], range=[0, 120])
    run = hrviewer.run(
        IMAGE, model, device="cpu", progress=False, cache="off", out=tmp_path / "r.run.zarr"
    )
    red, green = IMAGE[..., 0].mean() / 255, IMAGE[..., 1].mean() / 255
    estimate = run.estimate
    assert (estimate["kind"], estimate["range"]) == ("mean", [0, 120])
    assert estimate["units"] == {"age": "a", "height": "m"}
    assert estimate["per_class"] == pytest.approx({"age": red, "height": green}, rel=1e-5)
    assert estimate["value"] == pytest.approx(red, rel=1e-5)
    assert format_estimate(estimate) == f"mean age {red:.4g} a, height {green:.4g} m (exhaustive)"
    tile = run.maps["output"].values[:, 0, 0]
    np.testing.assert_allclose(tile, IMAGE[:64, :64, :2].mean(axis=(0, 1)) / 255, rtol=1e-4)
    assert run.maps["output"].attrs["units"] == ("a", "m")
    raster = ResultMaps.from_run(run).rasters["output"]
    assert (raster.unit, raster.limits, raster.scale.held) == ("height (m)", (0, 120), True)
    ((_, settings, _),) = [layer for layer in run.layers() if layer[1]["name"] == "output"]
    assert settings["contrast_limits"] == (0, 120)
    assert settings["metadata"]["hrviewer"]["unit"] == "height (m)"


def test_labels_that_do_not_exclude_one_another(tmp_path):
    model = write(tmp_path, "multi-label", ["wet", "green"])
    run = hrviewer.run(
        IMAGE, model, device="cpu", progress=False, cache="off", out=tmp_path / "r.run.zarr"
    )
    estimate = run.estimate
    assert "vote" not in estimate
    wet, green = (estimate["per_class"][name] for name in ("wet", "green"))
    assert format_estimate(estimate) == f"wet {wet:.1%}, green {green:.1%} (exhaustive)"
