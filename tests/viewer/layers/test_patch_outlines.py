from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Image

from hrviewer.app.image_session import Viewport
from hrviewer.engine import PatchRow
from hrviewer.geometry import Grid, Rect
from hrviewer.viewer.layers.patch_outlines import MAX_OUTLINES, PatchOutlines, outline_segments


def patches(side, cell):
    return [
        PatchRow(i, *core.astuple(), 1.0, "main", i, *[0.0] * 9, "done", "")
        for i, core in enumerate(Grid(Rect(0, 0, side, side), cell))
    ]


def ends(lines):
    return sorted((*map(tuple, line[:1].tolist()), tuple(line.sum(axis=0))) for line in lines)


def test_borders_run_along_the_edges_of_pixels():
    lines = outline_segments(np.array([[10.0, 20.0, 30.0, 40.0]]))
    assert ends(lines) == [
        ((9.5, 19.5), (9.5, 59.5)),
        ((9.5, 19.5), (39.5, 19.5)),
        ((9.5, 59.5), (39.5, 59.5)),
        ((39.5, 19.5), (39.5, 59.5)),
    ]
    assert outline_segments(np.zeros((0, 4))).shape == (0, 2, 2)


def test_what_touches_on_one_line_is_one_line():
    # Two side by side, a smaller one below the first, and one apart in the same rows.
    rects = [(0, 0, 8, 8), (0, 8, 8, 8), (8, 0, 4, 4), (0, 20, 8, 8)]
    lines = outline_segments(np.add(rects, (0.5, 0.5, 0, 0)))
    assert ends(lines) == sorted(
        [
            *(((0, 0), (0, 16)), ((0, 20), (0, 28)), ((8, 0), (8, 16)), ((8, 20), (8, 28))),
            *(((12, 0), (12, 4)), ((0, 0), (12, 0)), ((8, 4), (12, 4)), ((0, 8), (8, 8))),
            *(((0, 16), (8, 16)), ((0, 20), (8, 20)), ((0, 28), (8, 28))),
        ]
    )


def test_the_same_pixels_are_drawn_as_one_by_one():
    rng = np.random.default_rng(0)
    rects = np.add(rng.integers(0, 20, (40, 4)), (0, 0, 1, 1))
    want, have = set(), set()
    for y, x, h, w in rects.tolist():
        want |= {("-", row, i) for row in (y, y + h) for i in range(x, x + w)}
        want |= {("|", i, column) for column in (x, x + w) for i in range(y, y + h)}
    units = 0
    lines = outline_segments(rects.astype(float))
    lines[:, 0] += 0.5
    for (y, x), (h, w) in lines.astype(int):
        units += h + w
        have |= {("-", y, i) for i in range(x, x + w)} | {("|", i, x) for i in range(y, y + h)}
    assert have == want
    assert units == len(want)  # each once


@pytest.fixture
def outlines():
    return PatchOutlines(Image(np.zeros((4096, 4096)), scale=(0.5, 0.5)))


def test_only_what_is_near_the_view_is_outlined(outlines):
    rows = patches(4096, 64)
    assert outlines.draw(rows, Viewport(Rect(0, 0, 256, 256), (1.0, 1.0)))
    # The view and half of it around: 6 × 6 patches.
    assert outlines.count == 36
    assert len(outlines.layer.data) == 7 + 7
    data = outlines.layer.data
    assert outlines.draw(rows, Viewport(Rect(10, 10, 256, 256), (1.1, 1.1)))
    assert outlines.layer.data is data
    assert outlines.draw(rows, Viewport(Rect(2000, 2000, 256, 256), (4.0, 4.0)))
    assert outlines.layer.data is not data
    assert outlines.layer.edge_width == pytest.approx(8)


def test_new_patches_are_outlined(outlines):
    rows = patches(256, 64)
    view = Rect(0, 0, 256, 256)
    outlines.draw(rows[:3], Viewport(view, (1.0, 1.0)))
    assert len(outlines.layer.data) == 2 + 4
    outlines.draw(rows, Viewport(view, (1.0, 1.0)))
    assert len(outlines.layer.data) == 5 + 5


def test_a_hundred_thousand_patches(outlines):
    rows = patches(4096, 13)
    assert len(rows) > 99_000
    assert not outlines.draw(rows, Viewport(Rect(0, 0, 4096, 4096), (4.0, 4.0)))
    assert not len(outlines.layer.data)
    assert outlines.draw(rows, Viewport(Rect(100, 100, 200, 200), (0.3, 0.3)))
    assert 0 < outlines.count <= MAX_OUTLINES
    assert 0 < len(outlines.layer.data) <= 4 * MAX_OUTLINES
