"""Non-maximum suppression of boxes and outlines, for hundreds of thousands at once.

The greedy algorithm (the best object stays and removes those that overlap it, then the next best)
is run on the graph of overlapping pairs, which a spatial index finds: in each round all objects
stay that no better undecided one overlaps. The result is that of the greedy loop.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hrviewer.objects.detected_objects import DetectedObjects

__all__ = ["OverlapMeasure", "overlapping_pairs", "suppress"]

OverlapMeasure = Literal["union", "smaller"]
"""What the common area is divided by: the area of the union (IoU), or of the smaller object."""

Indices = NDArray[np.intp]


def overlapping_pairs(
    objects: DetectedObjects,
    keys: NDArray[np.int64],
    overlap: float,
    measure: OverlapMeasure = "union",
) -> tuple[Indices, Indices]:
    """Return the pairs of objects with equal keys that overlap by more than a fraction.

    Parameters
    ----------
    objects : DetectedObjects
        The objects.
    keys : ndarray of int, shape (n,)
        Class of each, or another group; pairs are of one group.
    overlap : float
        Common area over the area of both together, or of the smaller one.
    measure : {"union", "smaller"}
        Which of the two.

    Returns
    -------
    first, second : ndarray of int, shape (m,)
        Indices, each pair once, ``first < second``.
    """
    import shapely

    y, x, h, w = objects.boxes.T
    # A group far away from the others, so that the index finds no pairs across groups.
    _, group = np.unique(keys, return_inverse=True)
    span = float(x.max() + w.max() - x.min() + 1) if len(objects) else 1.0
    shifted = shapely.box(x + group * span, y, x + w + group * span, y + h)
    first, second = shapely.STRtree(shifted).query(shifted)
    once = first < second
    first, second = first[once], second[once]
    outlined = objects.lengths > 0
    low_y, low_x = np.maximum(y[first], y[second]), np.maximum(x[first], x[second])
    high_y = np.minimum((y + h)[first], (y + h)[second])
    high_x = np.minimum((x + w)[first], (x + w)[second])
    common = np.clip(high_y - low_y, 0, None) * np.clip(high_x - low_x, 0, None)
    exact = (outlined[first] | outlined[second]) & (common > 0)
    areas = objects.areas
    if exact.any():
        shapes = shapely.make_valid(objects.polygons())
        common[exact] = shapely.area(
            shapely.intersection(shapes[first[exact]], shapes[second[exact]])
        )
    total = areas[first] + areas[second] - common
    base = total if measure == "union" else np.minimum(areas[first], areas[second])
    same = common > overlap * base
    return first[same], second[same]


def suppress(
    objects: DetectedObjects,
    keys: NDArray[np.int64],
    overlap: float,
    measure: OverlapMeasure = "union",
) -> Indices:
    """Return which object each one is represented by: itself where it stays.

    Parameters
    ----------
    objects, keys, overlap, measure
        See `overlapping_pairs`.

    Returns
    -------
    ndarray of int, shape (n,)
        Index of the object that stays: the best of those that overlap it, ties in their order.
    """
    n = len(objects)
    owner = np.arange(n)
    if n < 2:
        return owner
    order = np.argsort(-objects.scores, kind="stable")
    rank = np.empty(n, np.intp)
    rank[order] = np.arange(n)
    first, second = overlapping_pairs(objects, keys, overlap, measure)
    # By rank, the better one first.
    better = np.minimum(rank[first], rank[second])
    worse = np.maximum(rank[first], rank[second])
    undecided, kept = np.ones(n, bool), np.zeros(n, bool)
    left, right = better, worse
    while undecided.any():
        blocked = np.zeros(n, bool)
        blocked[right] = True
        stays = undecided & ~blocked
        kept |= stays
        undecided &= blocked
        undecided[right[stays[left]]] = False
        open_pairs = undecided[left] & undecided[right]
        left, right = left[open_pairs], right[open_pairs]
    kept_by = np.where(kept, np.arange(n), n)
    removes = kept[better]
    np.minimum.at(kept_by, worse[removes], better[removes])
    owner[order] = order[kept_by]
    return owner
