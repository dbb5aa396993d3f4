"""Runs of what was drawn: only tiles that touch a region are processed, what is inside counts."""

from __future__ import annotations

import json

import numpy as np
import pytest
import shapely
from numpy.testing import assert_allclose
from toys import picture, toy_bundle

from hrviewer.errors import HrviewerError
from hrviewer.geometry import Rect
from hrviewer.ground_truth import GroundTruth
from hrviewer.pyramid import open_pyramid
from hrviewer.regions import Region, cell_areas, points_inside
from hrviewer.runs import Run, run
from hrviewer.runs.region_measurement import measure_regions
from hrviewer.runs.region_table import describe_region
from hrviewer.runs.run_index import entries_of_one_place, list_runs
from hrviewer.runs.tissue import find_tissue
from hrviewer.strategies import strategy_ids

IMAGE = picture(301, 398)
TRIANGLE = Region.from_polygons([[[[20.5, 30], [90, 33.3], [40, 120]]]], "triangle")
RING = Region.from_polygons(
    [[[[200, 250], [200, 420], [320, 420], [320, 250]], [[220, 300], [220, 360], [280, 330]]]],
    "ring",
)


def run_toy(regions, out, strategy="patches", **more) -> Run:
    with open_pyramid(IMAGE, pixel_size=0.5) as pyramid:
        return run(
            pyramid, toy_bundle(), strategy, region=regions, out=out, cache="off", progress=False,
            **more,
        )  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Run:
    return run_toy(None, tmp_path_factory.mktemp("whole") / "x.run.zarr", tile=32)


def test_a_run_of_polygons_counts_what_the_whole_run_has_inside(whole, tmp_path):
    regions = [TRIANGLE, RING]
    done = run_toy(regions, tmp_path / "x.run.zarr", tile=32)
    expected = measure_regions(whole, regions)
    rows = done.header["regions"]
    assert [row["name"] for row in rows] == ["triangle", "ring"]
    for row, known in zip(rows, expected, strict=True):
        assert row["estimate"]["value"] == pytest.approx(known["estimate"]["value"], rel=1e-6)
        assert row["estimate"]["ci95"] == [row["estimate"]["value"]] * 2
        assert (row["area"], row["coverage"]) == (pytest.approx(known["area"]), 1)
    total = sum(row["estimate"]["value"] for row in expected)
    assert done.estimate["value"] == pytest.approx(total, rel=1e-6)
    assert done.estimate["exhaustive"]
    assert done.coverage == 100
    area = sum(row["area"] for row in rows)
    assert done.estimate["per_mm2"] == pytest.approx(total / (area * 0.25e-6))
    assert sum(row["cost"]["flops"] for row in rows) < done.cost["flops"]


def test_only_tiles_that_touch_a_region_are_processed(tmp_path):
    done = run_toy([TRIANGLE, RING], tmp_path / "x.run.zarr", tile=32)
    union = Region.union([TRIANGLE, RING]).clip(Rect(0, 0, 301, 398))
    boxes = shapely.box(*(done.patches[["x", "y"]].to_numpy().T),
                        *((done.patches[["x", "y"]].to_numpy()
                           + done.patches[["w", "h"]].to_numpy()).T))  # fmt: skip
    assert (shapely.area(shapely.intersection(boxes, union.shape)) > 0).all()
    assert done.header["patches"]["skipped"] > len(boxes)
    inside = np.isfinite(done.output[0])
    covered = shapely.union_all(boxes)
    assert inside.sum() * 16 < shapely.area(covered)
    assert done.cost["flops"] == done.patches["flops"].sum()


def test_budgets_are_spent_inside_and_the_interval_holds_the_count(whole, tmp_path):
    expected = sum(row["estimate"]["value"] for row in measure_regions(whole, [TRIANGLE, RING]))
    done = run_toy([TRIANGLE, RING], tmp_path / "x.run.zarr", tile=16, budget="60%", seed=3)
    low, high = done.estimate["ci95"]
    assert low < expected < high
    assert done.header["patches"]["skipped"] == 0
    assert done.coverage < 100


def test_other_strategies_count_inside_only(tmp_path):
    budget = "20patches"
    done = run_toy([TRIANGLE], tmp_path / "x.run.zarr", "uniform", budget=budget)
    box = run_toy(TRIANGLE.bounds, tmp_path / "box.run.zarr", "uniform", budget=budget)
    (row,), (own,) = measure_regions(box, [TRIANGLE]), done.header["regions"]
    assert done.region == TRIANGLE.bounds
    assert done.estimate["value"] == pytest.approx(row["estimate"]["value"], rel=1e-6)
    assert own["estimate"]["value"] == pytest.approx(done.estimate["value"], rel=1e-6)
    warped = run_toy([TRIANGLE], tmp_path / "warped.run.zarr", "nonuniform")
    (own,) = warped.header["regions"]
    assert own["estimate"]["value"] == pytest.approx(warped.estimate["value"], rel=0.05)


def test_runs_of_a_polygon_and_of_the_box_around_it_are_not_compared(tmp_path):
    box = run_toy(TRIANGLE.bounds, tmp_path / "box.run.zarr")
    run_toy([TRIANGLE], tmp_path / "drawn.run.zarr", tile=32)
    run_toy([TRIANGLE], tmp_path / "exhaustive.run.zarr")
    found = {each.path.name.split(".")[0]: each for each in list_runs(box.image_key, [tmp_path])}
    assert found["drawn"].row["error"] == pytest.approx(0, abs=0.01)
    assert found["exhaustive"].row["error"] == 0
    assert found["box"].row["error"] == 0
    chosen, others = entries_of_one_place(list(found.values()), [], box.path)
    assert ([entry.path for entry in chosen], others) == ([box.path], 2)
    assert len(entries_of_one_place(list(found.values()), [], None)[0]) == 2


def test_a_rectangle_drawn_is_the_rectangle(tmp_path):
    rect = Rect(32, 64, 100, 120)
    drawn = run_toy([Region.from_rect(rect)], tmp_path / "a.run.zarr", tile=32)
    given = run_toy(rect, tmp_path / "b.run.zarr", tile=32)
    assert drawn.estimate == given.estimate
    assert_allclose(drawn.output, given.output)
    assert drawn.header["regions"][0]["estimate"]["value"] == pytest.approx(given.estimate["value"])


TISSUE_IMAGE = np.full((300, 400, 3), 244, np.uint8)
TISSUE_IMAGE[40:200, 60:260] = picture(160, 200) // 2
TISSUE_IMAGE[100:140, 120:160] = 244


def test_tissue_is_all_that_counts(tmp_path):
    with open_pyramid(TISSUE_IMAGE, pixel_size=2) as pyramid:
        found = find_tissue(pyramid)
        assert found.area == pytest.approx(160 * 200 - 40 * 40, rel=0.03)
        done = run(
            pyramid, toy_bundle(), "patches", tile=32, tissue=found, out=tmp_path / "x.run.zarr",
            region=[Region.from_rect(Rect(40, 60, 80, 340), "upper")], cache="off", progress=False,
        )  # fmt: skip
    (row,) = done.header["regions"]
    inside = found.clip(Rect(40, 60, 80, 340))
    assert row["tissue_area"] == pytest.approx(inside.area)
    assert row["area"] == 80 * 340
    assert done.header["patches"]["skipped"] > 5
    assert done.estimate["per_mm2"] == pytest.approx(
        done.estimate["value"] / (inside.area * 4e-6), rel=1e-6
    )
    assert done.estimate["density_of"] == "tissue"
    assert "per mm² of tissue" in describe_region(row, done.pixel_size)
    assert any("tissue is" in note for note in done.header["notes"])
    (again,) = measure_regions(done, [Region.from_rect(Rect(40, 60, 80, 340), "upper")])
    assert again["estimate"]["value"] == pytest.approx(done.estimate["value"], rel=1e-6)
    (glass,) = measure_regions(done, [Region.from_rect(Rect(50, 300, 20, 60), "glass")])
    assert (glass["tissue_area"], glass["area"]) == (0, 1200)


L_SHAPE = [[32, 32], [32, 96], [160, 96], [160, 224], [224, 224], [224, 32]]
SMALL_TILES = {"patches": 32, "zoom": 32, "scanner": 32, "compression": 32}


@pytest.mark.parametrize("strategy", strategy_ids())
def test_every_strategy_may_leave_out_what_is_not_tissue(strategy, tmp_path):
    image = picture(256, 320)
    params = {"tile": SMALL_TILES[strategy]} if strategy in SMALL_TILES else {}
    tissue = Region.from_polygons([[L_SHAPE]], "tissue")
    done = run(
        image, toy_bundle(), strategy, params=params, tissue=tissue, cache="off", progress=False,
        out=tmp_path / "x.run.zarr", budget="60%" if strategy == "zoom" else None,
    )  # fmt: skip
    inside = cell_areas(tissue, np.arange(257.0), np.arange(321.0)) > 0
    count = image[inside][:, 0].sum() / 255
    output = done.output[0]
    side = image.shape[0] // output.shape[0]
    assert np.isfinite(output[inside[::side, ::side]]).any()
    if strategy in ("patches", "compression", "scanner"):  # others predict coarser cells
        assert done.estimate["value"] == pytest.approx(count, rel=1e-5)
        assert not np.isfinite(output[~inside[::side, ::side]]).any()
    assert done.estimate["density_of"] == "tissue"
    assert done.header["counting_area"] == tissue.area
    (note,) = (note for note in done.header["notes"] if note.startswith("tissue is"))
    skipped = done.header["patches"]["skipped"]
    saved = f"{skipped:,} patches without any were skipped" if skipped else "no patch was skipped"
    assert saved in note
    assert skipped > 0 or strategy not in ("patches", "scanner")
    assert "nothing outside of it is counted" in note


def test_no_tissue_is_one_line():
    with (
        open_pyramid(np.full((90, 90, 3), 250, np.uint8)) as pyramid,
        pytest.raises(HrviewerError, match="no tissue was found"),
    ):
        find_tissue(pyramid)


def test_resuming_with_another_region_is_refused(tmp_path):
    run_toy([TRIANGLE], tmp_path / "x.run.zarr", tile=32)
    again = run_toy([TRIANGLE], tmp_path / "x.run.zarr", tile=32, resume=True)
    assert json.loads((again.path / "regions.geojson").read_text())["features"]
    moved = Region.from_polygons([[[[20.5, 30], [90, 33.3], [40, 120], [40, 60]]]], "triangle")
    with pytest.raises(HrviewerError, match="started with another regions"):
        run_toy([moved], tmp_path / "x.run.zarr", tile=32, resume=True)


def test_ground_truth_is_that_inside_of_what_was_drawn(tmp_path):
    points = np.random.default_rng(0).uniform(0, (301, 398), (400, 2))
    expected = sum(int(points_inside(region, points).sum()) for region in (TRIANGLE, RING))
    done = run_toy([TRIANGLE, RING], tmp_path / "x.run.zarr", truth=GroundTruth(points))
    assert 0 < expected < len(GroundTruth(points).clip(done.region))
    assert done.evaluation["value"] == expected
    assert done.evaluation["error"] == pytest.approx(done.estimate["value"] - expected)
    assert done.evaluation["game"] is None
