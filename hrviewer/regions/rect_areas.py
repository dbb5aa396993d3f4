"""Area of a region in rectangles, as in the tiles of an image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hrviewer.geometry import Rect
from hrviewer.regions.cell_areas import Floats, cell_areas
from hrviewer.regions.region import Region

__all__ = ["rect_areas"]

SPARSE = 64
"""Cells of the grid of all edges, per rectangle, above which rectangles are measured one by one."""


def rect_areas(region: Region, rects: Sequence[Rect]) -> Floats:
    """Return the area of a region in each rectangle.

    Parameters
    ----------
    region : Region
        The region.
    rects : sequence of Rect
        They may overlap. Those of a grid are measured at once.

    Returns
    -------
    ndarray, shape (n,)
        Square level-0 pixels.

    Examples
    --------
    >>> triangle = Region.from_polygons([[[[0, 0], [0, 4], [4, 0]]]], "triangle")
    >>> rect_areas(triangle, [Rect(0, 0, 2, 2), Rect(0, 0, 4, 4), Rect(2, 2, 2, 2)])
    array([4., 8., 0.])
    """
    if not rects:
        return np.zeros(0)
    corners = np.array([(rect.y, rect.y1, rect.x, rect.x1) for rect in rects], np.float64)
    ys, rows = np.unique(corners[:, :2], return_inverse=True)
    xs, columns = np.unique(corners[:, 2:], return_inverse=True)
    if len(ys) * len(xs) > SPARSE * (len(rects) + SPARSE):
        return np.array([cell_areas(region, c[:2], c[2:]).sum() for c in corners])
    sums = np.zeros((len(ys), len(xs)))
    sums[1:, 1:] = cell_areas(region, ys, xs).cumsum(axis=0).cumsum(axis=1)
    (top, bottom), (left, right) = rows.reshape(-1, 2).T, columns.reshape(-1, 2).T
    areas = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    # Differences of large sums: their rounding is no area.
    noise = 1e-12 * sums[-1, -1]
    return np.where(areas > noise, areas, 0.0)
