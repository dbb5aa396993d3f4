"""Errors of estimates against ground truth."""

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
    "DiceAccumulator",
    "average_precision",
    "bias",
    "ci95",
    "grid_counts",
    "grid_errors",
    "mae",
    "match_points",
    "peaks",
    "point_counts",
    "rmse",
]

GAME_LEVELS = (0, 2, 4)
"""1, 16 and 256 cells."""

Floats = NDArray[np.float64]

BAND = 512
"""Rows of a map that are read at once."""

MAX_CANDIDATES = 8
"""Nearest objects of a point that it is matched with."""


# Counts on one image.


def point_counts(points: Floats, region: Rect, n: int) -> Floats:
    """Return the number of points ``(y, x)`` in n × n equal parts of a region."""
    counts, _, _ = np.histogram2d(points[:, 0], points[:, 1], bins=grid_edges(region, n))
    return np.asarray(counts, np.float64)


def grid_errors(predicted: Floats, expected: Floats, levels: Sequence[int]) -> dict[int, float]:
    """Return grid average mean errors, from the counts of the finest grid.

    The sums of absolute differences over 4^L equal parts of a region for each level L
    (Guerrero-Gómez-Olmedo et al., Extremely Overlapping Vehicle Counting, IbPRIA 2015).
    """
    n = len(predicted)
    errors = predicted - expected

    def total(level: int) -> float:
        sums = errors.reshape(2**level, n >> level, 2**level, n >> level).sum(axis=(1, 3))
        return float(np.abs(sums).sum())

    return {level: total(level) for level in levels}


def grid_edges(region: Rect, n: int) -> tuple[Floats, Floats]:
    """Return the edges of n × n equal parts of a region."""
    steps = np.arange(n + 1, dtype=np.float64)
    return region.y + steps * (region.h / n), region.x + steps * (region.w / n)


def grid_counts(cells: Any, cell: float, region: Rect, n: int) -> Floats:
    """Return the counts of a density in n × n equal parts of a region.

    Parameters
    ----------
    cells : array-like, shape (k, rows, columns)
        The density; NaN counts as zero. Read in bands of rows.
    cell : float
        Side of its cells, level-0 pixels. Where a part's edge runs through one, it is cut by area;
        the value of one on the region's border lies inside.
    region : Rect
        The region.
    n : int
        Parts per side.
    """
    ys, xs = grid_edges(region, n)
    _, rows, columns = cells.shape
    first, last = int(region.y / cell), min(rows, int(np.ceil(region.y1 / cell)))
    left, right = int(region.x / cell), min(columns, int(np.ceil(region.x1 / cell)))
    # The value of a cell across the region's border lies inside.
    wx = overlap(np.clip(np.arange(left, right + 1) * cell, region.x, region.x1), xs, -1, np.inf)
    counts = np.zeros((n, n))
    # ~64 MB at a time, in whole chunks.
    band = max(512, (1 << 23) // max(1, right - left) // 512 * 512)
    for start in range(first, last, band):
        stop = min(start + band, last)
        density = np.nansum(cells[:, start:stop, left:right], axis=0, dtype=np.float64)
        edges = np.clip(np.arange(start, stop + 1) * cell, region.y, region.y1)
        counts += overlap(edges, ys, -1, np.inf) @ density @ wx.T
    return counts


# Counts on many images.


def mae(errors: Floats, axis: int = -1) -> Any:
    """Return the mean absolute error."""
    return np.abs(errors).mean(axis=axis)


def rmse(errors: Floats, axis: int = -1) -> Any:
    """Return the root of the mean squared error."""
    return np.sqrt(np.square(errors).mean(axis=axis))


def bias(errors: Floats, axis: int = -1) -> Any:
    """Return the mean error; positive where counts are too high."""
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
        Number of bootstrap samples; always the same ones.

    Returns
    -------
    tuple of float or None
        None for a single image.
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
class DiceAccumulator:
    """Dice coefficients of two class maps, accumulated over parts.

    Parameters
    ----------
    class_count : int
        Number of classes.
    """

    class_count: int
    intersections: NDArray[np.int64] = field(init=False)
    sizes: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.intersections = np.zeros(self.class_count, np.int64)
        self.sizes = np.zeros(self.class_count, np.int64)

    def add(self, predicted: NDArray[np.int64], expected: NDArray[np.int64]) -> None:
        """Count the pixels of a part; values other than 0 to k − 1 are of no class."""
        for values in (predicted, expected):
            self.sizes += self._count(values)
        self.intersections += self._count(predicted[predicted == expected])

    def _count(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        known = values[(values >= 0) & (values < self.class_count)]
        return np.bincount(known, minlength=self.class_count)

    def dice(self) -> Floats:
        """Return twice the intersection over the sum of both, ``(k,)``; 1 where both are empty."""
        return np.where(self.sizes > 0, 2 * self.intersections / np.maximum(self.sizes, 1), 1.0)


# Localisation.


def peaks(cells: Any, cell: float, region: Rect, max_peaks: int) -> tuple[Floats, Floats]:
    """Return the local maxima of a density above zero.

    Parameters
    ----------
    cells : array-like, shape (k, rows, columns)
        The density; NaN counts as zero. Read in bands of rows.
    cell : float
        Side of its cells, level-0 pixels.
    region : Rect
        Peaks outside it are left out.
    max_peaks : int
        Largest number of peaks; the highest are returned.

    Returns
    -------
    points : ndarray, shape (m, 2)
        The cells' centres, ``(y, x)``, the highest first.
    heights : ndarray, shape (m,)
        Their values.
    """
    from scipy.ndimage import maximum_filter

    first, last = int(region.y / cell), min(cells.shape[1], int(np.ceil(region.y1 / cell)))
    points, heights = np.empty((0, 2)), np.empty(0)
    for start in range(first, last, BAND):
        stop = min(start + BAND, last)
        top = max(0, start - 1)
        density: Floats = np.asarray(np.nansum(cells[:, top : stop + 1], axis=0, dtype=np.float64))
        highest = (density > 0) & (density == maximum_filter(density, 3, mode="constant"))
        positions = np.argwhere(highest[start - top : stop - top]) + np.array([start, 0])
        at = (positions + 0.5) * cell
        inside = ((at >= (region.y, region.x)) & (at < (region.y1, region.x1))).all(axis=1)
        points = np.concatenate([points, at[inside]])
        values = density[positions[inside, 0] - top, positions[inside, 1]]
        heights = np.concatenate([heights, values])
        best = np.argsort(-heights, kind="stable")[:max_peaks]
        points, heights = points[best], heights[best]
    return points, heights


def match_points(points: Floats, boxes: Floats) -> NDArray[np.bool_]:
    """Return which points lie in the box of an object that no earlier point was matched with.

    Parameters
    ----------
    points : ndarray, shape (m, 2)
        ``(y, x)``, the most confident first.
    boxes : ndarray, shape (n, 4)
        The objects, ``(y, x, h, w)``. A point in several is matched with the nearest centre.
    """
    from scipy.spatial import cKDTree

    hit, free = np.zeros(len(points), np.bool_), np.ones(len(boxes), np.bool_)
    if not len(points) or not len(boxes):
        return hit
    tree = cKDTree(boxes[:, :2] + boxes[:, 2:] / 2)
    _, near = tree.query(points, k=range(1, min(MAX_CANDIDATES, len(boxes)) + 1))
    low, high = boxes[near, :2], boxes[near, :2] + boxes[near, 2:]
    inside: NDArray[np.bool_] = np.all((points[:, None] >= low) & (points[:, None] < high), axis=2)
    for i in np.flatnonzero(inside.any(axis=1)):
        for object_ in near[i][inside[i]]:
            if free[object_]:
                hit[i], free[object_] = True, False
                break
    return hit


def average_precision(hit: NDArray[np.bool_], scores: Floats, objects: int) -> float:
    """Return COCO's average precision: the mean over 101 recalls of the best precision there.

    Parameters
    ----------
    hit : ndarray of bool, shape (m,)
        Whether each prediction is right, of one image or of many together; see `match_points`.
    scores : ndarray, shape (m,)
        Confidence of each.
    objects : int
        Number of objects.

    Returns
    -------
    float
        NaN without objects.
    """
    if not objects:
        return float("nan")
    right = np.cumsum(hit[np.argsort(-scores, kind="stable")])
    recall = right / objects
    precision = right / np.arange(1, len(right) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(recall, np.linspace(0, 1, 101), side="left")
    return float(np.append(best, 0.0)[at].mean())
