"""Rectangles, patches and grids."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hrviewer.geometry import Grid, Patch, Rect, context_rings, snap_scale

ints = st.integers(-500, 500)
sizes = st.integers(0, 300)
rects = st.builds(Rect, ints, ints, sizes, sizes)


@given(rects, rects)
def test_intersection_is_what_both_contain(a, b):
    common = a & b
    assert common == b & a
    if not common.empty:
        assert common in a
        assert common in b
    rows = set(range(a.y, a.y1)) & set(range(b.y, b.y1))
    columns = set(range(a.x, a.x1)) & set(range(b.x, b.x1))
    assert common.area == len(rows) * len(columns)


@given(st.builds(Rect, ints, ints, st.integers(1, 300), st.integers(1, 300)), st.integers(1, 97))
def test_grid_covers_its_region_exactly_once(region, cell):
    grid = Grid(region, cell)
    cells = list(grid)
    assert len(cells) == len(grid)
    assert sum(c.area for c in cells) == region.area
    assert all(c in region for c in cells)
    assert len({(c.y, c.x) for c in cells}) == len(cells)


@given(st.floats(0.01, 500))
def test_snapped_scales_are_sixteenths_and_not_below(scale):
    snapped = snap_scale(scale)
    assert (snapped * 16).is_integer()
    assert snapped >= scale - 1e-9
    assert snapped - scale < 1 / 16 + 1e-9


def test_a_scale_that_is_a_sixteenth_but_for_rounding_stays():
    assert snap_scale(3 / 16 + 1e-12) == 3 / 16
    assert snap_scale(3 / 16 + 1e-6) == 4 / 16


def test_rect_properties():
    rect = Rect(2, 3, 4, 6)
    assert (rect.y1, rect.x1, rect.area, rect.center) == (6, 9, 24, (4.0, 6.0))
    assert rect.pad(1) == Rect(1, 2, 6, 8)
    assert rect.shift(-2, 1) == Rect(0, 4, 4, 6)
    assert rect.astuple() == (2, 3, 4, 6)
    assert not rect.empty
    assert Rect(0, 0, 0, 5).empty
    assert Rect(0, 0, 5, 0).empty


def test_what_sticks_out_is_not_inside():
    rect = Rect(2, 3, 4, 6)
    assert rect in rect
    assert not any(rect.shift(*by) in rect for by in ((-1, 0), (1, 0), (0, -1), (0, 1)))


def test_both_lie_in_their_union_and_no_smaller_one():
    assert Rect(2, 3, 4, 6) | Rect(-1, 5, 2, 9) == Rect(-1, 3, 7, 11)
    assert Rect(0, 0, 9, 9) | Rect(2, 3, 4, 5) == Rect(0, 0, 9, 9)
    # What only touch have nothing in common.
    assert Rect(2, 3, 4, 6) & Rect(4, 9, 4, 6) == Rect(4, 9, 0, 0)
    assert Rect(2, 3, 4, 6) & Rect(6, 3, 4, 6) == Rect(6, 3, 0, 0)


def test_cells_come_in_reading_order():
    assert list(Grid(Rect(10, 20, 5, 9), 4)) == [
        Rect(10, 20, 4, 4), Rect(10, 24, 4, 4), Rect(10, 28, 4, 1),
        Rect(14, 20, 1, 4), Rect(14, 24, 1, 4), Rect(14, 28, 1, 1),
    ]  # fmt: skip


def test_surroundings_are_rings_that_leave_no_gap():
    square = Rect(50, 70, 4, 4)
    found = context_rings(square, 2)
    assert [found.count(rect) for rect in (Rect(46, 66, 4, 4), Rect(54, 74, 4, 4))] == [1, 1]
    assert sorted({rect.h for rect in found}) == [4, 12]
    rings = [*found, square]
    assert sum(rect.area for rect in rings) == 36 * 36
    assert all((a & b).empty for a in rings for b in rings if a != b)
    assert all(rect in Rect(34, 54, 36, 36) for rect in rings)


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match="-1"):
        Rect(0, 0, -1, 2)
    with pytest.raises(ValueError, match="-3"):
        Rect(0, 0, 1, -3)
    with pytest.raises(ValueError, match="at least 1"):
        Grid(Rect(0, 0, 4, 4), 0)


def test_a_patchs_halo_is_in_network_pixels():
    assert Patch(Rect(64, 64, 32, 32), 4.0, 8).rect == Rect(32, 32, 96, 96)
    assert Patch(Rect(64, 64, 32, 32), 1.0625, 3).margin == 4  # rounded up: enough is read
