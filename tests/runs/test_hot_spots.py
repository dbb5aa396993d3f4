"""Hot spots against a slow obvious search, and on counts that are known."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose
from toys import picture, toy_bundle
from typer.testing import CliRunner

from hrviewer.cli import app
from hrviewer.errors import HrviewerError
from hrviewer.pyramid import open_pyramid
from hrviewer.regions import Region
from hrviewer.runs import Run, run
from hrviewer.runs.hot_spots import STEPS, find_hot_spots, hot_spots, indistinct_ranks

SPOTS = ((40, 304, 1.0), (200, 64, 0.7), (208, 320, 0.4))
"""Corner and brightness of bright squares of 64 pixels: the toy counts brightness."""


@pytest.fixture(scope="module")
def spots(tmp_path_factory) -> Run:
    image = np.zeros((320, 480, 3), np.uint8)
    for y, x, bright in SPOTS:
        image[y : y + 64, x : x + 64] = round(255 * bright)
    folder = tmp_path_factory.mktemp("spots")
    with open_pyramid(image, pixel_size=0.5) as pyramid:
        return run(
            pyramid, toy_bundle(), "patches", out=folder / "x.run.zarr", cache="off",
            progress=False,
        )  # fmt: skip


def test_the_bright_squares_are_found_in_order(spots):
    regions, rows = hot_spots(spots, (64.0, 64.0), 5)
    assert [region.name for region in regions] == ["hot spot 1", "hot spot 2", "hot spot 3"]
    for region, row, (y, x, bright) in zip(regions, rows, SPOTS, strict=True):
        assert_allclose((region.bounds.y, region.bounds.x), (y, x), atol=64 / STEPS)
        assert row["estimate"]["value"] == pytest.approx(64 * 64 * bright, rel=0.01)
    assert indistinct_ranks(rows) == []
    table = spots.hot_spots("4096px", 2)
    assert table[["h", "w"]].to_numpy().tolist() == [[64, 64]] * 2
    assert table["count"].tolist() == pytest.approx([row["estimate"]["value"] for row in rows[:2]])


def test_the_search_is_that_of_a_slow_loop(tmp_path):
    with open_pyramid(picture(200, 260)) as pyramid:
        done = run(
            pyramid, toy_bundle(), "patches", out=tmp_path / "x.run.zarr", cache="off",
            progress=False,
        )  # fmt: skip
    side = 32.0  # eight cells of 4 pixels: a cell is a mesh
    found = find_hot_spots(done, (side, side), 6)
    density = done.output[0][:50, :65].astype(float)
    taken = np.zeros_like(density, bool)
    for region in found:
        best = max(
            (density[i : i + STEPS, j : j + STEPS].sum(), -i, -j)
            for i in range(density.shape[0] - STEPS + 1)
            for j in range(density.shape[1] - STEPS + 1)
            if not taken[i : i + STEPS, j : j + STEPS].any()
        )
        i, j = -best[1], -best[2]
        assert (region.bounds.y, region.bounds.x) == (4 * i, 4 * j)
        taken[i : i + STEPS, j : j + STEPS] = True


def test_only_what_was_drawn_is_searched(tmp_path):
    image = np.zeros((320, 480, 3), np.uint8)
    image[40:104, 304:368] = 255
    image[200:264, 64:128] = 128
    left = Region.from_polygons([[[[0, 0], [0, 200], [319, 260], [319, 0]]]], "left")
    with open_pyramid(image) as pyramid:
        done = run(
            pyramid, toy_bundle(), "patches", region=[left], out=tmp_path / "x.run.zarr",
            cache="off", progress=False,
        )  # fmt: skip
    (first, *_), rows = hot_spots(done, (64.0, 64.0), 1)
    assert abs(first.bounds.x - 64) <= 8
    assert rows[0]["estimate"]["value"] == pytest.approx(64 * 64 * 128 / 255, rel=0.02)


def test_ranks_with_overlapping_intervals_cannot_be_distinguished():
    def row(*ci95):
        return {"estimate": {"value": 1.0, "ci95": list(ci95) or None}}

    rows = [row(9, 9), row(8, 8), row(5, 7), row(6, 6.5), row()]
    assert indistinct_ranks(rows) == [(3, 4), (4, 5)]
    assert indistinct_ranks([]) == []


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ("1", "not the area of a field"),
        ("1mm", "not the area of a field"),
        ("0mm2", "not the area of a field"),
        ("..px", "not the area of a field"),
        ("9mm2", "larger than the region"),
        ("16px", "too small for the map"),
    ],
)
def test_sizes_that_cannot_be(spots, size, message):
    with pytest.raises(HrviewerError, match=message):
        spots.hot_spots(size)


def test_the_command(spots, tmp_path):
    shown = CliRunner().invoke(app, ["hot-spots", str(spots.path), "--size", "0.001mm2", "--json"])
    assert shown.exit_code == 0
    rows = json.loads(shown.stdout)["hot_spots"]
    assert [row["name"] for row in rows] == [f"hot spot {i}" for i in range(1, len(rows) + 1)]
    out = tmp_path / "spots.geojson"
    shown = CliRunner().invoke(
        app, ["hot-spots", str(spots.path), "--size", "4096px", "-n", "2", "-o", str(out)]
    )
    assert shown.exit_code == 0
    assert len(json.loads(out.read_text())["features"]) == 2
