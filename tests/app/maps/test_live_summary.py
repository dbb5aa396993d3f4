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


def cell(value, interval, side=100):
    return ViewportCell(Rect(0, 0, side, side), (), (), Estimate(value, interval))


def test_counts_add_up_and_errors_are_independent():
    cells = [cell([100.0], (90.0, 110.0)), cell([50.0], (26.0, 74.0)), cell(None, None)]
    total, interval = combine_cells(cells, additive=True)
    assert total == pytest.approx([150])
    # Half-widths 10 and 24 add up to 26.
    assert interval == pytest.approx((124, 176))


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
    total, interval = combine_cells([cell([1.0], (0.0, 2.0)), cell([2.0], None)], additive=True)
    assert total == pytest.approx([3])
    assert interval is None
    assert combine_cells([cell(None, None)], additive=True) == (None, None)


def test_probabilities_are_a_mean_by_area():
    cells = [cell([0.2, 0.8], None), cell([0.6, 0.4], None, side=300)]
    total, interval = combine_cells(cells, additive=False)
    assert total == pytest.approx([0.56, 0.44])
    assert interval is None
