from __future__ import annotations

import time

import numpy as np
import pytest
from napari.layers import Image

from hrviewer.engine import PatchRow
from hrviewer.geometry import Grid, Rect
from hrviewer.viewer.outlines import MOST, Outlines, borders


def patches(side, cell):
    return [
        PatchRow(i, *core.astuple(), 1.0, "main", i, *[0.0] * 9, "done", "")
        for i, core in enumerate(Grid(Rect(0, 0, side, side), cell))
    ]


def test_borders_run_along_the_edges_of_pixels():
    lines = borders(np.array([[10.0, 20.0, 30.0, 40.0]]))
    ends = lines[:, 0] + lines[:, 1]
    corners = {(9.5, 19.5), (9.5, 59.5), (39.5, 59.5), (39.5, 19.5)}
    assert {tuple(start) for start in lines[:, 0]} == corners
    assert {tuple(end) for end in ends} == corners


@pytest.fixture
def outlines():
    return Outlines(Image(np.zeros((4096, 4096)), scale=(0.5, 0.5)))


def test_only_what_is_near_the_view_is_outlined(outlines):
    rows = patches(4096, 64)
    assert outlines.draw(rows, Rect(0, 0, 256, 256), 1.0)
    # The view and half of it around: 6 × 6 patches.
    assert len(outlines.layer.data) == 4 * 36
    data = outlines.layer.data
    assert outlines.draw(rows, Rect(10, 10, 256, 256), 1.1)
    assert outlines.layer.data is data
    assert outlines.draw(rows, Rect(2000, 2000, 256, 256), 4.0)
    assert outlines.layer.data is not data
    assert outlines.layer.edge_width == pytest.approx(8)


def test_new_patches_are_outlined(outlines):
    rows = patches(256, 64)
    view = Rect(0, 0, 256, 256)
    outlines.draw(rows[:3], view, 1.0)
    assert len(outlines.layer.data) == 12
    outlines.draw(rows, view, 1.0)
    assert len(outlines.layer.data) == 64


def test_a_hundred_thousand_patches(outlines):
    rows = patches(4096, 13)
    assert len(rows) > 99_000
    start = time.perf_counter()
    assert not outlines.draw(rows, Rect(0, 0, 4096, 4096), 4.0)
    assert time.perf_counter() - start < 1
    assert not len(outlines.layer.data)
    start = time.perf_counter()
    assert outlines.draw(rows, Rect(100, 100, 200, 200), 0.3)
    assert time.perf_counter() - start < 1
    assert 0 < len(outlines.layer.data) <= 4 * MOST
