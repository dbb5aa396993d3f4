"""Regions: areas in cells, points inside, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from hrviewer.errors import ParameterError
from hrviewer.geometry import Rect
from hrviewer.regions import Region, cell_areas, points_inside

SQUARE = [[0, 0], [0, 12], [12, 12], [12, 0]]


def star(seed: int, corners: int = 9, center=(10.0, 13.0), radius: float = 14.0) -> Region:
    """Return a random star with a square hole, which reaches beyond small grids."""
    rng = np.random.default_rng(seed)
    angle = np.sort(rng.uniform(0, 2 * np.pi, corners))
    reach = rng.uniform(0.5, 1.0, corners) * radius
    outer = np.stack([np.sin(angle) * reach, np.cos(angle) * reach], axis=1) + center
    hole = np.array([[-1, -1], [-1, 1], [1, 1], [1, -1]]) * rng.uniform(0.1, 1.5) + center
    return Region.from_polygons([[outer, hole]], f"star {seed}")


@pytest.mark.parametrize("seed", range(6))
def test_areas_are_those_that_shapely_cuts_out(seed):
    region = star(seed)
    rng = np.random.default_rng(seed)
    rows = np.concatenate([[0.0], np.cumsum(rng.uniform(0.2, 4, 9))])
    columns = np.concatenate([[3.0], 3 + np.cumsum(rng.uniform(0.2, 4, 11))])
    x, y = np.meshgrid(columns, rows)
    cells = shapely.box(x[:-1, :-1], y[:-1, :-1], x[1:, 1:], y[1:, 1:])
    expected = shapely.area(shapely.intersection(cells, region.shape))
    assert_allclose(cell_areas(region, rows, columns), expected, atol=1e-11)


def test_whole_cells_are_whole_and_others_empty():
    region = Region.from_rect(Rect(4, 8, 8, 4))
    areas = cell_areas(region, np.arange(0, 21, 4.0), np.arange(0, 21, 4.0))
    expected = np.zeros((5, 5))
    expected[1:3, 2] = 16
    assert_array_equal(areas, expected)


@given(st.lists(st.floats(0.01, 11.99), min_size=1, max_size=5), st.floats(0.01, 11.99))
def test_parts_of_a_square_sum_to_it(heights, x):
    """Fans of triangles around a point on a vertical line, and what is right of them."""
    at = np.array([heights[0], x])
    corners = [np.array(corner, float) for corner in SQUARE]
    fan = [
        Region.from_polygons([[[one, other, at]]], "part")
        for one, other in zip(corners, corners[1:] + corners[:1], strict=True)
    ]
    lines = np.linspace(0, 12, 8)
    total = sum(cell_areas(region, lines, lines) for region in fan)
    assert_allclose(total, np.full((7, 7), (12 / 7) ** 2), rtol=1e-9)
    points = np.random.default_rng(0).integers(0, 12, (50, 2)).astype(float)
    points[:10] = at  # a corner of all
    assert_array_equal(sum(points_inside(region, points).astype(int) for region in fan), 1)


def test_points_on_shared_edges_and_in_holes():
    whole = Region.from_polygons([[SQUARE, [[4, 4], [4, 8], [8, 8], [8, 4]]]], "with a hole")
    hole = Region.from_rect(Rect(4, 4, 4, 4))
    points = np.argwhere(np.ones((14, 14))) - 1.0
    within = ((points >= 0) & (points < 12)).all(axis=1)
    in_hole = ((points >= 4) & (points < 8)).all(axis=1)
    assert_array_equal(points_inside(hole, points), in_hole)
    assert_array_equal(points_inside(whole, points), within & ~in_hole)


def test_crossed_outlines_and_overlapping_parts_count_once():
    bow = Region.from_polygons([[[[0, 0], [10, 10], [10, 0], [0, 10]]]], "bow")
    assert bow.area == 50
    beyond = Region.from_polygons([[SQUARE, [[10, 10], [10, 20], [20, 20], [20, 10]]]], "beyond")
    assert beyond.area == 140  # a hole adds nothing where it lies outside
    twice = Region.from_polygons([[SQUARE], [SQUARE]], "twice")
    assert twice.area == 144
    assert twice.clip(Rect(6, 6, 20, 20)).area == 36
    assert twice.clip(Rect(12, 0, 5, 5)) is None  # they share a line only


@pytest.mark.parametrize(
    ("polygons", "message"),
    [
        ([[[[0, 0], [1, 1]]]], "three corners"),
        ([[[[0, 0], [1, 1], [2, 2]]]], "no area"),
        ([[[[0, 0], [np.nan, 1], [2, 2]]]], "not a number"),
        ([], "no area"),
    ],
)
def test_regions_without_area_are_refused(polygons, message):
    with pytest.raises(ParameterError, match=f"'mine'.*{message}"):
        Region.from_polygons(polygons, "mine")


def test_an_outline_that_crosses_itself_too_often_is_refused() -> None:
    """Making it valid took minutes and gigabytes."""
    i = np.arange(100_000)
    zigzag = np.stack([i * 7919 % 300, i % 400], axis=1)
    with pytest.raises(ParameterError, match="crosses itself"):
        Region.from_polygons([[zigzag]], "a")
    angle = np.linspace(0, 2 * np.pi, 100_000, endpoint=False)
    circle = np.stack([np.sin(angle), np.cos(angle)], axis=1) * 1000
    circle[10], circle[11] = circle[11].copy(), circle[10].copy()
    assert Region.from_polygons([[circle]], "b").area == pytest.approx(np.pi * 1e6, rel=1e-6)
