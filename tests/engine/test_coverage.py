"""The union of rectangles, against a raster."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hrviewer.engine.coverage import union_area
from hrviewer.geometry import Rect

rects = st.lists(st.builds(Rect, *[st.integers(0, 30)] * 2, *[st.integers(0, 20)] * 2), max_size=12)


@given(rects)
def test_union_equals_a_raster(rects):
    raster = np.zeros((60, 60), bool)
    for rect in rects:
        raster[rect.y : rect.y1, rect.x : rect.x1] = True
    assert union_area(rects) == raster.sum()
