"""Part of a region in which models were run."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from hrviewer.geometry import Rect
from hrviewer.regions import Region

__all__ = ["covered_area", "union_area"]


def union_area(rects: Iterable[Rect]) -> int:
    """Return the area of the union of rectangles, in level-0 pixels.

    Strips between neighbouring edges are counted one after another, so that memory depends on the
    number of distinct columns only.

    Examples
    --------
    >>> union_area([Rect(0, 0, 10, 10), Rect(5, 5, 10, 10), Rect(2, 2, 3, 3)])
    175
    """
    edges = np.array(
        [(rect.y, rect.y1, rect.x, rect.x1) for rect in set(rects) if not rect.empty], np.int64
    ).reshape(-1, 4)
    if not len(edges):
        return 0
    ys, xs = np.unique(edges[:, :2]), np.unique(edges[:, 2:])
    left, right = np.searchsorted(xs, edges[:, 2]), np.searchsorted(xs, edges[:, 3])
    begins, ends = np.searchsorted(ys, edges[:, 0]), np.searchsorted(ys, edges[:, 1])
    by_begin, by_end = np.argsort(begins, kind="stable"), np.argsort(ends, kind="stable")
    first = np.searchsorted(begins[by_begin], np.arange(len(ys) + 1))
    last = np.searchsorted(ends[by_end], np.arange(len(ys) + 1))
    # Differences along x of the number of rectangles over each column.
    steps = np.zeros(len(xs), np.int64)
    widths, area = np.diff(xs), 0
    for i, height in enumerate(np.diff(ys)):
        opened, closed = by_begin[first[i] : first[i + 1]], by_end[last[i] : last[i + 1]]
        for indices, sign in ((opened, 1), (closed, -1)):
            np.add.at(steps, left[indices], sign)
            np.add.at(steps, right[indices], -sign)
        area += int(height) * int(widths[np.cumsum(steps)[:-1] > 0].sum())
    return area


def covered_area(region: Region, rects: Iterable[Rect]) -> float:
    """Return the area of a region in the union of rectangles, in level-0 pixels.

    Examples
    --------
    >>> covered_area(Region.from_rect(Rect(0, 0, 4, 4)), [Rect(0, 0, 2, 9), Rect(0, 0, 9, 2)])
    12.0
    """
    import shapely

    edges = np.array([(r.x, r.y, r.x1, r.y1) for r in set(rects)], np.float64).reshape(-1, 4)
    boxes = shapely.box(*edges.T)
    touching = boxes[shapely.STRtree(boxes).query(region.shape, predicate="intersects")]
    return float(shapely.area(shapely.intersection(shapely.union_all(touching), region.shape)))
