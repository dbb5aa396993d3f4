"""Summary of the cells in view."""

from __future__ import annotations

import numpy as np
import pytest

from hrviewer.app.maps.live_summary import combine_cells, describe_scales, wrap_text
from hrviewer.engine import InferenceResult, ViewportCell
from hrviewer.engine.cost import Cost
from hrviewer.geometry import Patch, Rect
from hrviewer.strategies import Estimate, PatchRequest

NO_RESULT = np.zeros(1), np.zeros((1, 1, 1), np.float32), (0.0, 0.0, 8.0, 8.0), Cost()


def test_the_head_up_line_is_broken_where_the_canvas_ends():
    words = "12 tiles/s · 3 MP/s · 5 cells to go"
    assert wrap_text(words, 100) == words
    assert wrap_text(words, 22) == "12 tiles/s · 3 MP/s\n5 cells to go"
    assert wrap_text(words, 1) == "12 tiles/s\n3 MP/s\n5 cells to go"
    assert wrap_text("up to date", 4) == "up to date"


def cell(value, interval=None, side=100, **more):
    return ViewportCell(Rect(0, 0, side, side), (), (), Estimate(value, interval, **more))


def test_counts_add_up_and_errors_are_independent():
    cells = [cell([100.0], (90.0, 110.0)), cell([50.0], (26.0, 74.0)), cell(None)]
    found = combine_cells(cells, additive=True)
    assert found.values == pytest.approx([150])
    # Half-widths 10 and 24 add up to 26.
    assert found.interval == pytest.approx((124, 176))
    assert found.area == 20_000


def test_the_scales_of_the_main_model():
    def at(*scales, role="main"):
        patches = tuple(Patch(Rect(0, 0, 8, 8), scale) for scale in scales)
        results = tuple(InferenceResult(patch, role, *NO_RESULT) for patch in patches)
        request = PatchRequest(role, patches)
        return ViewportCell(Rect(0, 0, 8, 8), ((request, results),), (), Estimate(None))

    assert describe_scales([at(6.5), at(6.5)], 2.0) == "at 1/3.25"
    assert describe_scales([at(1.0), at(8.0, role="scout")], 1.0) == "at full resolution"
    assert describe_scales([at(1.0, 4.0), at(2.0)], 1.0) == "at full resolution to 1/4"
    assert describe_scales([at(8.0, role="scout")], 1.0) == ""


def test_an_interval_needs_all_cells():
    found = combine_cells([cell([1.0], (0.0, 2.0)), cell([2.0])], additive=True)
    assert found.values == pytest.approx([3])
    assert found.interval is None
    assert combine_cells([cell(None)], additive=True).values is None
    shares = [cell([0.5, 0.5], class_intervals=np.array([[0.4, 0.6]] * 2)), cell([0.0, 1.0])]
    assert combine_cells(shares, additive=False).class_intervals is None


def test_shares_are_a_mean_by_area_with_an_interval_per_class():
    one = cell([0.2, 0.8], class_intervals=np.array([[0.1, 0.5], [0.5, 0.9]]))
    two = cell([0.6, 0.4], side=300, class_intervals=np.array([[0.5, 0.7], [0.3, 0.5]]))
    found = combine_cells([one, two], additive=False)
    assert found.values == pytest.approx([0.56, 0.44])
    # Distances to the lower end of 0.1 and 0.1, by shares of the area of 0.1 and 0.9.
    expected = [0.56 - np.hypot(0.01, 0.09), 0.56 + np.hypot(0.03, 0.09)]
    np.testing.assert_allclose(found.class_intervals[0], expected)
    assert found.class_intervals[1] == pytest.approx(1 - np.array(expected)[::-1])
    exact = cell([0.6, 0.4], side=300, exhaustive=True)
    limits = cell([0.2, 0.8], certain=True, class_intervals=np.array([[0.1, 0.5], [0.5, 0.9]]))
    found = combine_cells([limits, limits, exact], additive=False)
    # Limits that hold with certainty may all be reached at once.
    assert found.class_intervals[0] == pytest.approx([(0.1 * 2 + 0.6 * 9) / 11, 6.4 / 11])


def test_cells_weigh_by_their_foreground():
    cells = [cell([0.2, 0.8], area=2_500), cell([0.6, 0.4]), cell(None, coverage=1.0)]
    found = combine_cells(cells, additive=False)
    assert found.values == pytest.approx([0.52, 0.48])
    assert found.area == 12_500
