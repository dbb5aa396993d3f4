"""Non-maximum suppression of boxes and outlines, for hundreds of thousands at once.

The greedy algorithm (the best object stays and removes those that overlap it, then the next best)
is run on the graph of pairs that may overlap enough, which a spatial index finds: in each round all
objects stay that have no better undecided one as a neighbour. Common areas of outlines are computed
for those that stay and their neighbours only. The result is that of the greedy loop.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hrviewer.objects.detected_objects import DetectedObjects

__all__ = ["OverlapMeasure", "suppress"]

OverlapMeasure = Literal["union", "smaller"]
"""What the common area is divided by: the area of the union (IoU), or of the smaller object."""

QUERY = 4096
"""Objects whose neighbours are found at once: together they may have many millions."""

Indices = NDArray[np.intp]
Floats = NDArray[np.float64]


def suppress(
    objects: DetectedObjects,
    keys: NDArray[np.int64],
    overlap: float,
    measure: OverlapMeasure = "union",
) -> Indices:
    """Return which object each one is represented by: itself where it stays.

    Parameters
    ----------
    objects : DetectedObjects
        The objects.
    keys : ndarray of int, shape (n,)
        Class of each, or another group; objects of other groups are no neighbours.
    overlap : float
        Common area over the area of both together, or of the smaller one, above which the better
        one removes the other.
    measure : {"union", "smaller"}
        Which of the two.

    Returns
    -------
    ndarray of int, shape (n,)
        Index of the object that stays: the best of those that overlap it, ties in their order.
    """
    n = len(objects)
    if n < 2:
        return np.arange(n)
    order = np.argsort(-objects.scores, kind="stable")
    owner = np.empty(n, np.intp)
    owner[order] = order[_suppress_ranked(objects.take(order), keys[order], overlap, measure)]
    return owner


def _suppress_ranked(
    objects: DetectedObjects, keys: NDArray[np.int64], overlap: float, measure: OverlapMeasure
) -> Indices:
    """Return the owners of objects that are sorted, the best first; see `suppress`."""
    import shapely

    n, areas = len(objects), objects.areas
    pairs = list(_possible_pairs(objects, areas, keys, overlap, measure))
    better, worse = (np.concatenate(part) for part in zip(*pairs, strict=True))
    outlined = objects.lengths > 0
    shapes = shapely.make_valid(objects.polygons()) if outlined.any() else None

    def overlaps(one: Indices, other: Indices) -> NDArray[np.bool_]:
        common = _common_boxes(objects.boxes, one, other)
        exact = np.flatnonzero(outlined[one] | outlined[other])
        if shapes is not None and len(exact):
            crossed = shapely.intersection(shapes[one[exact]], shapes[other[exact]])
            common[exact] = shapely.area(crossed)
        return _share(common, areas[one], areas[other], measure) > overlap

    undecided, owner = np.ones(n, bool), np.full(n, n)
    while undecided.any():
        blocked = np.zeros(n, bool)
        blocked[worse[undecided[better]]] = True
        stays = undecided & ~blocked
        owner[stays] = np.flatnonzero(stays)
        undecided &= blocked
        # One that was removed already may overlap a better one, too, which then represents it.
        tested = stays[better] & (better < owner[worse])
        one, other = better[tested], worse[tested]
        same = overlaps(one, other)
        np.minimum.at(owner, other[same], one[same])
        undecided[other[same]] = False
        left = undecided[better] & (undecided[worse] | (better < owner[worse]))
        better, worse = better[left], worse[left]
    return owner


def _possible_pairs(
    objects: DetectedObjects,
    areas: Floats,
    keys: NDArray[np.int64],
    overlap: float,
    measure: OverlapMeasure,
) -> Iterator[tuple[Indices, Indices]]:
    """Yield pairs of objects with equal keys whose boxes and areas allow the overlap.

    The first of each has the lower index.
    """
    import shapely

    y, x, h, w = objects.boxes.T
    # A group far away from the others, so that the index finds no pairs across groups.
    _, group = np.unique(keys, return_inverse=True)
    shift = group * (float(x.max() + w.max() - x.min()) + 1)
    boxes = shapely.box(x + shift, y, x + w + shift, y + h)
    tree = shapely.STRtree(boxes)
    for start in range(0, len(objects), QUERY):
        first, second = tree.query(boxes[start : start + QUERY])
        first += start
        once = first < second
        first, second = first[once], second[once]
        one, other = areas[first], areas[second]
        most = np.minimum(_common_boxes(objects.boxes, first, second), np.minimum(one, other))
        # Rounding must not exclude a pair at its own threshold.
        possible = _share(most, one, other, measure) > overlap * (1 - 1e-9)
        yield first[possible], second[possible]


def _common_boxes(boxes: Floats, one: Indices, other: Indices) -> Floats:
    """Return the common areas of pairs of boxes ``(y, x, h, w)``."""
    low = np.maximum(boxes[one, :2], boxes[other, :2])
    high = np.minimum(boxes[one, :2] + boxes[one, 2:], boxes[other, :2] + boxes[other, 2:])
    return np.asarray(np.clip(high - low, 0, None).prod(axis=1))


def _share(common: Floats, one: Floats, other: Floats, measure: OverlapMeasure) -> Floats:
    """Return common areas over the areas of both together, or of the smaller one."""
    base = one + other - common if measure == "union" else np.minimum(one, other)
    return common / np.maximum(base, np.finfo(float).tiny)
