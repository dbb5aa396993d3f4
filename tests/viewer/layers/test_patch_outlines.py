from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Image

from hrviewer.app.image_session import Viewport
from hrviewer.engine import PatchRow
from hrviewer.geometry import Grid, Rect
from hrviewer.viewer.layers.patch_outlines import (
    MAX_OUTLINES,
    PatchOutlines,
    area_segments,
    outline_segments,
)


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
    outlines.draw(rows, Viewport(Rect(0, 0, 256, 256), (1.0, 1.0)))
    # The view and half of it around: 6 × 6 patches.
    assert outlines.count == 36
    assert len(outlines.layer.data) == 7 + 7
    data = outlines.layer.data
    outlines.draw(rows, Viewport(Rect(10, 10, 256, 256), (1.1, 1.1)))
    assert outlines.layer.data is data
    outlines.draw(rows, Viewport(Rect(2000, 2000, 256, 256), (4.0, 4.0)))
    assert outlines.layer.data is not data
    assert outlines.layer.edge_width == pytest.approx(8)


def test_new_patches_are_outlined(outlines):
    rows = patches(256, 64)
    view = Rect(0, 0, 256, 256)
    outlines.draw(rows[:3], Viewport(view, (1.0, 1.0)))
    assert len(outlines.layer.data) == 2 + 4
    outlines.draw(rows, Viewport(view, (1.0, 1.0)))
    assert len(outlines.layer.data) == 5 + 5


@pytest.mark.slow
def test_a_hundred_thousand_patches(outlines):
    rows = patches(4096, 13)
    assert len(rows) > 99_000
    outlines.draw(rows, Viewport(Rect(0, 0, 4096, 4096), (4.0, 4.0)))
    # One frame around all of them, in cells of 32 pixels.
    low, high = -0.5, 4096 - 0.5
    assert ends(outlines.layer.data / outlines._units) == [
        ((low, low), (low, high)),
        ((low, low), (high, low)),
        ((low, high), (high, high)),
        ((high, low), (high, high)),
    ]
    outlines.draw(rows, Viewport(Rect(100, 100, 200, 200), (0.3, 0.3)))
    assert 0 < outlines.count <= MAX_OUTLINES
    assert 0 < len(outlines.layer.data) <= 4 * MAX_OUTLINES


@pytest.mark.parametrize("cell", [1.0, 3.0, 7.0])
def test_the_area_of_many_patches_is_outlined(cell):
    rng = np.random.default_rng(1)
    rects = np.add(rng.integers(0, 40, (30, 4)), (0, 0, 1, 1)).astype(float)
    y0, x0 = rects[:, :2].min(axis=0)
    covered = np.zeros((60, 90), bool) if cell > 2 else np.zeros((100, 100), bool)
    for y, x, h, w in rects:
        rows = slice(int((y - y0) // cell), int(np.ceil((y + h - y0) / cell)))
        columns = slice(int((x - x0) // cell), int(np.ceil((x + w - x0) / cell)))
        covered[rows, columns] = True
    padded = np.pad(covered, 1)
    want = int((padded[1:] != padded[:-1]).sum() + (padded[:, 1:] != padded[:, :-1]).sum())
    lines = area_segments(rects, cell)
    cells = (lines[:, 0] + 0.5 - (y0, x0)) / cell
    np.testing.assert_allclose(cells, np.rint(cells), atol=1e-9)
    lengths = lines[:, 1] / cell
    assert round(lengths.sum()) == want
    for (row, column), (down, right) in zip(
        cells.round().astype(int), lengths.round().astype(int), strict=True
    ):
        if right:
            sides = (
                padded[row, column + 1 : column + right + 1],
                padded[row + 1, column + 1 : column + right + 1],
            )
        else:
            sides = (
                padded[row + 1 : row + down + 1, column],
                padded[row + 1 : row + down + 1, column + 1],
            )
        assert (sides[0] != sides[1]).all()


def test_the_lines_around_an_area_are_never_too_many():
    checks = [(y, x, 1, 1) for y in range(0, 400, 2) for x in range(0, 400, 2)]
    lines = area_segments(np.array(checks, float), 1.0)
    assert 4 <= len(lines) <= 4 * MAX_OUTLINES


def test_a_coarse_pass_does_not_hide_the_patches_after_it(outlines):
    """Of very many patches each size has its own outline."""
    coarse, fine = patches(4096, 1024), patches(512, 8)
    assert len(fine) > MAX_OUTLINES
    outlines.draw(coarse + fine, Viewport(Rect(0, 0, 4096, 4096), (4.0, 4.0)))
    lines = ends(outlines.layer.data / outlines._units)
    assert ((-0.5, 511.5), (511.5, 511.5)) in lines
    assert ((-0.5, 4095.5), (4095.5, 4095.5)) in lines
