"""Maps summed over the cells of a grid, against the obvious sum."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hrviewer.geometry import Rect
from hrviewer.strategies.estimation.sampling_grid import resample_onto

IMAGE = Rect(0, 0, 60, 50)


def result(core: Rect, box: tuple[int, int, int, int], values: Any) -> Any:
    return SimpleNamespace(value=np.ones(1), map=values, patch=SimpleNamespace(core=core), box=box)


def overlap(a: float, b: float, low: float, high: float) -> float:
    return max(0.0, min(b, high) - max(a, low))


def sum_slowly(found: Any, ys: list[int], xs: list[int]) -> Any:
    """Sum each source's value by the part of its area in the core and in each cell."""
    (y, x, h, w), core, values = found.box, found.patch.core, found.map
    k, rows, columns = values.shape
    total = np.zeros((k, len(ys) - 1, len(xs) - 1))
    for i, j in np.ndindex(rows, columns):
        top, bottom = (min(y + n * h / rows, IMAGE.h) for n in (i, i + 1))
        left, right = (min(x + n * w / columns, IMAGE.w) for n in (j, j + 1))
        for row, column in np.ndindex(total.shape[1:]):
            height = overlap(top, bottom, max(ys[row], core.y), min(ys[row + 1], core.y1))
            width = overlap(left, right, max(xs[column], core.x), min(xs[column + 1], core.x1))
            if height and width:
                area = (bottom - top) * (right - left)
                total[:, row, column] += values[:, i, j] * height * width / area
    return total


@pytest.mark.parametrize(
    ("core", "box", "shape", "ys", "xs"),
    [
        (Rect(0, 0, 60, 50), (0, 0, 60, 50), (15, 10), [0, 16, 32, 48, 60], [0, 25, 50]),
        (Rect(8, 8, 24, 24), (4, 4, 32, 32), (8, 8), [0, 7, 13, 31, 60], [0, 9, 10, 50]),
        (Rect(40, 30, 20, 20), (32, 24, 32, 32), (4, 4), [0, 30, 60], [0, 20, 40, 50]),  # beyond
        (Rect(8, 8, 8, 8), (8, 8, 8, 8), (1, 1), [0, 10, 11, 12, 60], [20, 30]),  # none inside
        (Rect(3, 5, 21, 17), (3, 5, 21, 17), (7, 3), [5, 11, 23], [1, 6, 19]),  # a part alone
    ],
)
def test_sums_are_by_area(core, box, shape, ys, xs) -> None:
    values = np.random.default_rng(0).random((2, *shape))
    found = result(core, box, values)
    summed = resample_onto([found], np.array(ys), np.array(xs), IMAGE)
    expected = sum_slowly(found, ys, xs)
    if not expected.any():
        assert not summed.any()
    else:
        assert summed == pytest.approx(expected, rel=1e-12)
