"""Instances over the borders of tiles: once each, with whole outlines, in table and exports."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
import shapely
import tifffile
import xarray
import zarr
from instance_maps import Maps, discs, maps, masks
from pycocotools import coco as pycoco
from toys import ToyBundle

import hrviewer
from hrviewer.formatting import format_evaluation
from hrviewer.geometry import Rect
from hrviewer.io.ground_truth import read_ground_truth
from hrviewer.runs import Run, run
from hrviewer.runs.evaluation import evaluate_count

SIZE = 210, 260
DISCS = discs(*SIZE, 300, seed=3)


def ran(decode: str, out: Path, *, fixed: bool = False, **settings: object) -> Run:
    made = maps(decode, *SIZE, DISCS)
    image = xarray.DataArray(made, dims=("c", "y", "x"))
    network = Maps(decode, len(made), fixed=fixed)
    if not fixed:
        settings = {"tile": 96} | settings
    return run(image, ToyBundle(main=network), out=out, cache="off", **settings)  # type: ignore[arg-type]


def best_overlaps(found: Run, real: np.ndarray) -> np.ndarray:
    """Return the best intersection over union of each disc."""
    own = shapely.from_wkb(found.objects()["outline"].to_numpy())
    circles = shapely.buffer(shapely.points(real[:, 1], real[:, 0]), real[:, 2], quad_segs=32)
    common = shapely.area(shapely.intersection(circles[:, None], own[None]))
    union = shapely.area(circles)[:, None] + shapely.area(own)[None] - common
    return np.asarray((common / union).max(axis=1))


@pytest.mark.parametrize(
    ("decode", "fixed"), [("stardist", True), ("cellpose", False), ("hovernet", False)]
)
def test_every_disc_is_one_instance(decode: str, fixed: bool, tmp_path: Path) -> None:
    found = ran(decode, tmp_path / "x.run.zarr", fixed=fixed)
    assert len(found.patches) > 4
    assert found.header["patches"]["failed"] == 0
    objects = found.objects()
    assert len(objects) == len(DISCS)
    assert found.estimate is not None
    assert found.estimate["value"] == len(DISCS) == np.nansum(found.output)
    assert best_overlaps(found, DISCS).min() > 0.8
    shapes = shapely.from_wkb(objects["outline"].to_numpy())
    np.testing.assert_allclose(objects["area"], shapely.area(shapes))
    np.testing.assert_allclose(
        objects[["center_x", "center_y"]], shapely.get_coordinates(shapely.centroid(shapes))
    )


def test_a_region_and_smaller_tiles(tmp_path: Path) -> None:
    region = Rect(31, 50, 120, 111)
    found = ran("stardist", tmp_path / "x.run.zarr", region=region, tile=64)
    y, x, _ = DISCS.T
    near = (y > 29) & (y < 153) & (x > 48) & (x < 163)
    sure = (y > 33) & (y < 149) & (x > 52) & (x < 159)
    assert sure.sum() <= len(found.objects()) <= near.sum()
    assert best_overlaps(found, DISCS[sure]).min() > 0.85


def test_exports_have_the_outlines(tmp_path: Path) -> None:
    found = ran("hovernet", tmp_path / "x.run.zarr")
    objects, shapes = found.objects(), shapely.from_wkb(found.objects()["outline"].to_numpy())
    only = {"patches": False, "annotations": False}
    path = hrviewer.export(found, tmp_path / "a.geojson", **only)
    features = json.loads(path.read_text("utf-8"))["features"]
    assert len(features) == len(shapes)
    for feature, shape in zip(features, shapes, strict=True):
        assert shapely.geometry.shape(feature["geometry"]).equals(shape)
    path = hrviewer.export(found, tmp_path / "a.coco.json", **only)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = pycoco.COCO(path)
    assert len(objects) == len(coco.anns)
    for one, shape in zip(coco.anns.values(), shapes, strict=True):
        outer = np.array(one["segmentation"][0]).reshape(-1, 2)
        assert shapely.Polygon(outer).equals(shape)
        assert one["area"] == pytest.approx(shape.area)


def test_outlines_are_evaluated(tmp_path: Path) -> None:
    """Against its own exports a run has an average precision of 1; against the discs nearly."""
    found = ran("hovernet", tmp_path / "x.run.zarr")
    only = {"patches": False, "annotations": False}
    files = [
        hrviewer.export(found, tmp_path / "a.geojson", **only),
        hrviewer.export(found, tmp_path / "a.coco.json", **only),
    ]
    tifffile.imwrite(tmp_path / "a.tif", masks(*SIZE, DISCS).astype(np.uint16))
    for path in [*files, tmp_path / "a.tif"]:
        truth = read_ground_truth(path, found.header["image"]["path"], SIZE)
        evaluation = evaluate_count(found, truth)
        assert evaluation["average_precision_of"] == "outlines"
        precision = evaluation["average_precision"]
        assert precision["ap50"] == pytest.approx(1)
        assert precision["ap"] == pytest.approx(1) if path in files else precision["ap"] > 0.7
    assert "mask AP" in format_evaluation(evaluation)


def test_the_label_map_has_every_pixel_of_every_instance(tmp_path: Path) -> None:
    found = ran("cellpose", tmp_path / "x.run.zarr")
    path = hrviewer.export(found, tmp_path / "a.ome.zarr")
    labels = np.asarray(zarr.open_group(path / "output/labels/objects", mode="r")["0"])[0]
    real = masks(*SIZE, DISCS)
    assert labels.shape == SIZE
    assert len(np.unique(labels)) - 1 == len(DISCS) == len(found.objects())
    assert set(np.unique(labels)) - {0} == set(found.objects()["id"] + 1)
    assert ((labels > 0) == (real > 0)).mean() > 0.999
    # Each instance is one disc's.
    pairs = {tuple(pair) for pair in np.stack([labels, real], -1)[(labels > 0) & (real > 0)]}
    assert len(pairs) == len(DISCS)
    about = zarr.open_group(path / "output/labels", mode="r").attrs["ome"]
    assert about["labels"] == ["objects"]
