"""Measured regions: against the pixels of the image, and as parts of one another."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import shapely
import tifffile
import zarr
from numpy.testing import assert_allclose
from toy_detectors import Finder, rectangles
from toys import Bright, picture, toy_bundle

from hrviewer.errors import HrviewerError
from hrviewer.geometry import Rect
from hrviewer.pyramid import open_pyramid
from hrviewer.regions import Region, cell_areas, points_inside
from hrviewer.runs import Run, run
from hrviewer.runs.region_measurement import measure_regions
from hrviewer.runs.region_sums import sum_regions
from hrviewer.runs.region_table import write_region_table
from hrviewer.runs.writer import write_header

IMAGE = picture(301, 398)  # the last cells reach beyond the border
CORNERS = np.array([[0, 0], [0, 398], [301, 398], [301, 0]], float)


@pytest.fixture(scope="module")
def counted(tmp_path_factory) -> Run:
    """Return a run of the toy that counts red: its map holds the sum of every 4 × 4 pixels."""
    out = tmp_path_factory.mktemp("regions") / "x.run.zarr"
    with open_pyramid(IMAGE, pixel_size=0.5) as pyramid:
        return run(pyramid, toy_bundle(), "patches", tile=64, out=out, cache="off", progress=False)


def random_region(seed: int) -> Region:
    """Return a polygon with a hole and a second part, some of it beyond the image."""
    rng = np.random.default_rng(seed)
    angle = np.sort(rng.uniform(0, 2 * np.pi, 12))
    ring = np.stack([np.sin(angle), np.cos(angle)], axis=1)
    center, radius = rng.uniform((20, 20), (280, 380)), rng.uniform(30, 120)
    outer, hole = center + ring * radius, center + ring * radius / 3
    return Region.from_polygons([[outer, hole], [hole * 0.5 + 100]], f"region {seed}")


def shares(region: Region, side: int) -> np.ndarray:
    """Return the part of every cell of the image that lies in a region, cut by shapely."""
    y, x = np.arange(0, 301, side), np.arange(0, 398, side)
    cells = shapely.box(x[None], y[:, None], np.minimum(x + side, 398)[None],
                        np.minimum(y + side, 301)[:, None])  # fmt: skip
    return shapely.area(shapely.intersection(cells, region.shape)) / shapely.area(cells)


def test_random_polygons_against_the_map_cut_by_shapely(counted):
    regions = [random_region(seed) for seed in range(8)]
    rows = measure_regions(counted, regions)
    output, flops = np.nan_to_num(counted.output[0]).astype(float), counted.cost_map()
    image = shapely.box(0, 0, 398, 301)
    for region, row in zip(regions, rows, strict=True):
        assert row["area"] == pytest.approx(shapely.intersection(region.shape, image).area)
        assert row["data_area"] == row["area"]
        assert row["coverage"] == 1
        count = float((output * shares(region, 4)).sum())
        assert row["estimate"]["value"] == pytest.approx(count, rel=1e-9)
        assert row["estimate"]["ci95"] == [row["estimate"]["value"]] * 2
        assert row["estimate"]["per_mm2"] == pytest.approx(count / (row["area"] / 4e6))
        assert row["cost"]["flops"] == pytest.approx((flops * shares(region, 16)).sum(), rel=1e-9)


def test_triangles_that_make_the_image_sum_to_the_run(counted):
    for at in ((100.3, 77.7), (128, 64)):
        fan = [
            Region.from_polygons([[[one, other, at]]], "part")
            for one, other in zip(CORNERS, np.roll(CORNERS, -1, axis=0), strict=True)
        ]
        table = counted.measure(fan)
        assert table["name"].tolist() == ["part 1", "part 2", "part 3", "part 4"]
        assert table["count"].sum() == pytest.approx(counted.estimate["value"], rel=1e-6)
        assert table["area_px2"].sum() == pytest.approx(301 * 398)
        assert table["flops"].sum() == pytest.approx(counted.cost["flops"], rel=1e-9)


def test_cells_of_the_map_are_the_pixels_of_the_image(counted):
    """Regions on borders of cells count what their pixels hold, down to a single cell."""
    for rect in (Rect(40, 80, 4, 4), Rect(100, 200, 64, 32), Rect(0, 0, 300, 396)):
        red = IMAGE[rect.y : rect.y1, rect.x : rect.x1, 0].sum() / 255
        assert counted.measure(rect)["count"][0] == pytest.approx(red, rel=1e-5)


def lattice_region(rng: np.random.Generator, i: int) -> Region:
    """Return a union of rectangles on borders of cells, with holes and a part beyond the image."""

    def boxes(n: int, largest: int) -> shapely.Geometry:
        y, x = rng.integers(-2, 78, n) * 4, rng.integers(-2, 102, n) * 4
        h, w = rng.integers(1, largest, (2, n)) * 4
        return shapely.union_all(shapely.box(x, y, x + w, y + h))

    shape = shapely.difference(boxes(5, 20), boxes(4, 6))
    return Region(f"region {i}", shape if shape.area else shapely.box(0, 0, 4, 4))


def test_fifty_polygons_with_holes_hold_the_objects_of_the_ground_truth(tmp_path):
    """A toy that counts pixels, in polygons on borders of cells; a detector, in any polygons."""
    rng = np.random.default_rng(5)
    dots = np.zeros((301, 398, 3), np.uint8)
    points = np.unique(rng.integers((0, 0), (300, 396), (900, 2)), axis=0)
    dots[points[:, 0], points[:, 1], 0] = 255
    common = {"cache": "off", "progress": False}
    counted = run(dots, toy_bundle(), "patches", tile=64, out=tmp_path / "a.run.zarr", **common)
    regions = [lattice_region(rng, i) for i in range(50)]
    expected = [int(points_inside(region, points + 0.5).sum()) for region in regions]
    assert_allclose(counted.measure(regions)["count"], expected, rtol=1e-12)
    image, boxes = rectangles(301, 398, 150, seed=2)
    found = run(image, toy_bundle(Finder()), "patches", out=tmp_path / "b.run.zarr", **common)
    seen = boxes[boxes[:, 4] >= 0.3 * 255]
    centers = seen[:, :2] + seen[:, 2:4] / 2
    regions = [random_region(seed) for seed in range(50)]
    expected = [int(points_inside(region, centers).sum()) for region in regions]
    assert found.measure(regions)["count"].tolist() == expected


def test_places_without_data_have_no_density(tmp_path):
    alpha = np.full((301, 398, 1), 255, np.uint8)
    alpha[64:192, 32:160] = 0
    path = tmp_path / "hole.tif"
    tifffile.imwrite(path, np.concatenate([IMAGE, alpha], 2), photometric="rgb",
                     extrasamples=["unassalpha"])  # fmt: skip
    holed = run(path, toy_bundle(), "patches", tile=32, out=tmp_path / "x.run.zarr", cache="off",
                progress=False, pixel_size=0.5)  # fmt: skip
    over, empty = measure_regions(
        holed, [Region.from_rect(Rect(32, 0, 64, 96)), Region.from_rect(Rect(80, 48, 20, 20))]
    )
    red = IMAGE[32:96, :96, 0].astype(float)
    count = (red.sum() - red[32:, 32:].sum()) / 255
    assert over["estimate"]["value"] == pytest.approx(count, rel=1e-6)
    assert (over["area"], over["data_area"]) == (64 * 96, pytest.approx(64 * 96 - 32 * 64))
    area = (64 * 96 - 32 * 64) * 0.25e-6
    assert over["estimate"]["per_mm2"] == pytest.approx(count / area, rel=1e-6)
    assert (empty["data_area"], empty["estimate"]["value"]) == (0, 0)


def test_large_maps_are_summed_chunk_by_chunk():
    """Chunks inside, on the border and outside of a region, of an array and without chunks."""
    rng = np.random.default_rng(1)
    values = rng.gamma(0.3, 1, (2, 700, 900)).astype(np.float32)
    values[:, 100:200, 50:60] = np.nan
    cells = zarr.array(values, chunks=(1, 128, 128))
    extent = Rect(0, 0, 2798, 3597)
    regions = [random_region(seed) for seed in range(3)]
    regions += [Region("all", shapely.box(0, 0, 3597, 2798)),
                Region("disc", shapely.Point(1500, 1400).buffer(1300))]  # fmt: skip
    amounts, known = sum_regions(cells, 4.0, regions, extent)
    again, _ = sum_regions(values, 4.0, regions, extent)
    assert_allclose(amounts, again, rtol=1e-12)
    ys, xs = np.minimum(np.arange(701) * 4.0, 2798), np.minimum(np.arange(901) * 4.0, 3597)
    for region, found, area in zip(regions, amounts, known, strict=True):
        shares = cell_areas(region, ys, xs) / np.outer(np.diff(ys), np.diff(xs))
        assert_allclose(found, np.nansum(values * shares, axis=(1, 2)), rtol=1e-9)
        seen = np.isfinite(values[0]) * cell_areas(region, ys, xs)
        assert area == pytest.approx(seen.sum(), rel=1e-9)


def test_intervals_of_regions_in_a_sampled_run(counted, tmp_path):
    out = tmp_path / "x.run.zarr"
    sampled = run(IMAGE, toy_bundle(), "patches", tile=32, budget="60%", out=out,
                  cache="off", progress=False)  # fmt: skip
    low, high = sampled.estimate["ci95"]
    whole = sampled.measure(Rect(0, 0, 301, 398))
    assert_allclose(whole[["ci95_low", "ci95_high"]].to_numpy()[0], (low, high), rtol=0.01)
    patch = sampled.patches.iloc[0]
    known = sampled.measure(Rect(*map(int, patch[["y", "x", "h", "w"]])))
    assert known["ci95_low"][0] == known["ci95_high"][0] == known["count"][0]
    regions = [random_region(seed) for seed in range(40)]
    rows = sampled.measure(regions)
    expected = counted.measure(regions)["count"]
    has = rows["ci95_low"].notna()
    assert has.sum() > 10
    holds = (rows["ci95_low"] <= expected) & (expected <= rows["ci95_high"])
    assert holds[has].mean() >= 0.9
    assert (rows["ci95_high"] - rows["ci95_low"])[has].max() <= (high - low) * (1 + 1e-9)


def test_a_run_of_a_part_of_the_image_covers_a_part_of_regions(tmp_path):
    part = run(IMAGE, toy_bundle(), "patches", tile=32, region=Rect(70, 101, 90, 130),
               out=tmp_path / "x.run.zarr", cache="off", progress=False)  # fmt: skip
    same, half, small, outside = measure_regions(
        part,
        [Region.from_rect(Rect(70, 101, 90, 130)), Region.from_rect(Rect(70, 101, 90, 200)),
         Region.from_rect(Rect(70, 101, 90, 290)), Region.from_rect(Rect(0, 0, 20, 20))],
    )  # fmt: skip
    assert same["estimate"]["value"] == pytest.approx(part.estimate["value"], rel=1e-6)
    assert same["estimate"]["exhaustive"]
    assert half["coverage"] == pytest.approx(0.65)
    assert half["estimate"]["value"] == pytest.approx(part.estimate["value"] / 0.65, rel=1e-6)
    assert half["estimate"]["coverage"] == pytest.approx(0.65)
    assert not half["estimate"]["exhaustive"]
    assert half["estimate"]["ci95"] is None
    assert small["estimate"] is None  # most of it has no predictions
    assert (outside["coverage"], outside["estimate"], outside["cost"]["flops"]) == (0, None, 0)


def test_a_corrected_estimate_corrects_its_parts(counted, tmp_path):
    estimate = counted.estimate | {"exhaustive": False, "ci95": None}
    folder = tmp_path / "x.run.zarr"
    folder.mkdir()
    for name in ("output", "cost"):
        shutil.copytree(counted.path / name, folder / name)
    corrected = estimate | {"value": 2 * estimate["map_sum"]}
    write_header(folder, counted.header | {"estimate": corrected})
    whole = Run(folder).measure(Rect(0, 0, 301, 398))
    assert whole["count"][0] == pytest.approx(2 * counted.estimate["value"], rel=1e-6)
    assert whole["ci95_low"].isna().all()


@pytest.mark.parametrize("suffix", ["csv", "parquet", "geojson"])
def test_tables(counted, tmp_path, suffix):
    regions = [random_region(seed) for seed in range(3)]
    rows = measure_regions(counted, regions)
    path = write_region_table(tmp_path / f"t.{suffix}", regions, rows, counted.pixel_size)
    expected = [row["estimate"]["value"] for row in rows]
    if suffix == "geojson":
        features = json.loads(path.read_text())["features"]
        found = [feature["properties"]["measurements"]["count"] for feature in features]
        assert features[0]["properties"]["name"] == "region 0"
    else:
        table = getattr(pd, f"read_{suffix}")(path)
        found = table["count"].tolist()
        assert {"area_mm2", "data_area_px2", "per_mm2", "ci95_low", "flops"} <= set(table)
    assert_allclose(found, expected)


def test_what_cannot_be_measured_is_refused(counted, tmp_path):
    with pytest.raises(HrviewerError, match="no region to measure"):
        counted.measure([])
    with pytest.raises(HrviewerError, match="no area"):
        counted.measure(Rect(3, 3, 0, 4))
    with pytest.raises(HrviewerError, match=r"t\.xls is no table"):
        write_region_table(tmp_path / "t.xls", [], [], None)


@pytest.mark.parametrize(
    ("task", "kind", "weights"),
    [("segmentation", "area", (1, 1)), ("regression", "mean", (130 / 396, 266 / 396))],
)
def test_areas_and_means_of_parts(tmp_path, task, kind, weights):
    network, image = Bright(task=task, classes=["thing"]), IMAGE.copy()
    image[:, 90:] //= 64
    whole = run(image, toy_bundle(network), "patches", tile=64, region=Rect(0, 0, 300, 396),
                out=tmp_path / "x.run.zarr", cache="off", progress=False)  # fmt: skip
    parts = [Region.from_rect(Rect(0, 0, 300, 130)), Region.from_rect(Rect(0, 130, 300, 266))]
    estimates = [row["estimate"] for row in measure_regions(whole, parts)]
    assert estimates[0]["kind"] == kind
    assert kind == "mean" or 0.1 < estimates[0]["fraction"]["thing"] < 0.9  # 92 of 130 columns
    total = np.dot([estimate["value"] for estimate in estimates], weights)
    assert total == pytest.approx(whole.estimate["value"], rel=1e-6)
