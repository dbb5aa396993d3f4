"""How far answers are from the truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.engine.canvas import overlap
from hrviewer.geometry import Rect

__all__ = [
    "GAME_LEVELS",
    "Overlap",
    "average_precision",
    "bias",
    "ci95",
    "game",
    "grid_errors",
    "mae",
    "matches",
    "parts",
    "rmse",
]

GAME_LEVELS = (0, 2, 4)
"""1, 16 and 256 cells."""

Floats = NDArray[np.float64]


# Counts on one image.


def game(
    cells: Any,
    cell: float,
    points: Floats,
    region: Rect,
    levels: Sequence[int] = GAME_LEVELS,
) -> dict[int, float]:
    """Return the grid average mean error of a density: sums over 4^L parts of a region.

    Guerrero-Gómez-Olmedo et al., Extremely Overlapping Vehicle Counting, IbPRIA 2015. The region
    is cut into 2^L × 2^L equal parts, by area where a part's edge runs through a cell.

    Parameters
    ----------
    cells : array-like, shape (k, rows, columns)
        The density; NaN, never looked at, counts nothing. Read a band of rows at a time.
    cell : float
        Side of its cells, level-0 pixels.
    points : ndarray, shape (n, 2)
        The truth, ``(y, x)``.
    region : Rect
        What is compared; what a cell on its border holds lies inside.
    levels : sequence of int
        Which L.
    """
    n = 2 ** max(levels)
    ys, xs = cuts(region, n)
    told, _, _ = np.histogram2d(points[:, 0], points[:, 1], bins=(ys, xs))
    return grid_errors(parts(cells, cell, region, n), told, levels)


def grid_errors(said: Floats, told: Floats, levels: Sequence[int]) -> dict[int, float]:
    """Return the sums of absolute differences over ever finer grids, from the finest's counts."""
    n = len(said)
    off = said - told

    def total(level: int) -> float:
        sums = off.reshape(2**level, n >> level, 2**level, n >> level).sum(axis=(1, 3))
        return float(np.abs(sums).sum())

    return {level: total(level) for level in levels}


def cuts(region: Rect, n: int) -> tuple[Floats, Floats]:
    """Return where a region is cut into n × n equal parts."""
    steps = np.arange(n + 1, dtype=np.float64)
    return region.y + steps * (region.h / n), region.x + steps * (region.w / n)


def parts(cells: Any, cell: float, region: Rect, n: int) -> Floats:
    """Return what a density says of each of n × n equal parts of a region; see `game`."""
    ys, xs = cuts(region, n)
    _, rows, columns = cells.shape
    first, last = int(region.y / cell), min(rows, int(np.ceil(region.y1 / cell)))
    left, right = int(region.x / cell), min(columns, int(np.ceil(region.x1 / cell)))
    # A cell across the region's border says what it says of the inside alone.
    wx = overlap(np.clip(np.arange(left, right + 1) * cell, region.x, region.x1), xs, -1, np.inf)
    said = np.zeros((n, n))
    # ~64 MB at a time, in whole chunks.
    band = max(512, (1 << 23) // max(1, right - left) // 512 * 512)
    for start in range(first, last, band):
        stop = min(start + band, last)
        density = np.nansum(cells[:, start:stop, left:right], axis=0, dtype=np.float64)
        edges = np.clip(np.arange(start, stop + 1) * cell, region.y, region.y1)
        said += overlap(edges, ys, -1, np.inf) @ density @ wx.T
    return said


# Counts on many images.


def mae(errors: Floats, axis: int = -1) -> Any:
    """Return the mean absolute error."""
    return np.abs(errors).mean(axis=axis)


def rmse(errors: Floats, axis: int = -1) -> Any:
    """Return the root of the mean squared error."""
    return np.sqrt(np.square(errors).mean(axis=axis))


def bias(errors: Floats, axis: int = -1) -> Any:
    """Return the mean error: positive where too much was counted."""
    return np.mean(errors, axis=axis)


def ci95(
    errors: Sequence[float] | Floats, metric: Callable[..., Any], *, resamples: int = 9999
) -> tuple[float, float] | None:
    """Return a metric's 95 % interval over images, by the percentile bootstrap.

    Parameters
    ----------
    errors : sequence of float
        One per image.
    metric : callable
        `mae`, `rmse` or `bias`.
    resamples : int
        How often images are drawn anew; always the same draws.

    Returns
    -------
    tuple of float or None
        None of a single image.
    """
    from scipy.stats import bootstrap

    values = np.asarray(errors, np.float64)
    if len(values) < 2:
        return None
    interval = bootstrap(
        (values,), metric, n_resamples=resamples, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    return float(interval.low), float(interval.high)


# Segmentations.


@dataclass
class Overlap:
    """How far two class maps agree, gathered from parts.

    Parameters
    ----------
    k : int
        How many classes.
    """

    k: int
    both: NDArray[np.int64] = field(init=False)
    sizes: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.both = np.zeros(self.k, np.int64)
        self.sizes = np.zeros(self.k, np.int64)

    def add(self, said: NDArray[np.int64], told: NDArray[np.int64]) -> None:
        """Count a part's pixels; what is not 0 to k - 1 is of no class."""
        for values in (said, told):
            self.sizes += self._count(values)
        self.both += self._count(said[said == told])

    def _count(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        known = values[(values >= 0) & (values < self.k)]
        return np.bincount(known, minlength=self.k)

    def dice(self) -> Floats:
        """Return twice the common part over the sum of both, ``(k,)``; 1 where both are empty."""
        return np.where(self.sizes > 0, 2 * self.both / np.maximum(self.sizes, 1), 1.0)


# Detections.


def matches(boxes: Floats, scores: Floats, truth: Floats, iou: float) -> NDArray[np.bool_]:
    """Return which boxes find an object that no better one found.

    Parameters
    ----------
    boxes, truth : ndarray, shape (m, 4) and (n, 4)
        ``(y, x, h, w)``.
    scores : ndarray, shape (m,)
        How sure each box is.
    iou : float
        Intersection over union from which a box is an object's.

    Returns
    -------
    ndarray of bool, shape (m,)
        In the order of `boxes`.
    """
    low = np.maximum(boxes[:, None, :2], truth[None, :, :2])
    high = np.minimum((boxes[:, :2] + boxes[:, 2:])[:, None], (truth[:, :2] + truth[:, 2:])[None])
    common = np.clip(high - low, 0, None).prod(axis=2)
    areas = boxes[:, 2:].prod(axis=1)[:, None] + truth[:, 2:].prod(axis=1)[None] - common
    shares = common / np.where(areas > 0, areas, 1)
    hit = np.zeros(len(boxes), np.bool_)
    for i in np.argsort(-scores, kind="stable"):
        if not len(truth):
            break
        best = int(shares[i].argmax())
        if shares[i, best] >= iou:
            hit[i] = True
            shares[:, best] = -1
    return hit


def average_precision(hit: NDArray[np.bool_], scores: Floats, objects: int) -> float:
    """Return COCO's average precision: the mean over 101 recalls of the best precision there.

    Parameters
    ----------
    hit : ndarray of bool, shape (m,)
        Which boxes are right, of one image or of many together; see `matches`.
    scores : ndarray, shape (m,)
        How sure each is.
    objects : int
        How many there are to find.

    Returns
    -------
    float
        NaN where there is nothing to find.
    """
    if not objects:
        return float("nan")
    right = np.cumsum(hit[np.argsort(-scores, kind="stable")])
    recall = right / objects
    precision = right / np.arange(1, len(right) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(recall, np.linspace(0, 1, 101), side="left")
    return float(np.append(best, 0.0)[at].mean())
