"""Which points lie inside a region: of regions that share an edge, each point is in one only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hrviewer.regions.region import Region

__all__ = ["points_inside"]


def points_inside(region: Region, points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which points lie inside a region.

    Regions are half-open, as rectangles are: a point on an edge belongs to the region on its right
    or, on an edge along x, to that below it.

    Parameters
    ----------
    region : Region
        The region.
    points : ndarray, shape (n, 2)
        Level-0 pixels ``(y, x)``.

    Examples
    --------
    >>> from hrviewer.geometry import Rect
    >>> left = Region.from_rect(Rect(0, 0, 4, 4))
    >>> points_inside(left, np.array([[0.0, 0.0], [2.0, 4.0], [2.0, 3.9]]))
    array([ True, False,  True])
    """
    import shapely

    shapely.prepare(region.shape)
    y, x = np.asarray(points, np.float64).reshape(-1, 2).T
    inside: NDArray[np.bool_] = np.asarray(shapely.contains_xy(region.shape, x, y), bool)
    on_edge = np.flatnonzero(~inside & shapely.intersects_xy(region.shape, x, y))
    if len(on_edge):
        inside[on_edge] = _odd_crossings(region, y[on_edge], x[on_edge])
    return inside


def _odd_crossings(
    region: Region, y: NDArray[np.float64], x: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Return which points have an odd number of edges to their right."""
    odd = np.zeros(len(y), bool)
    for ring in region.rings():
        for one, other in zip(ring[:-1].tolist(), ring[1:].tolist(), strict=True):
            # In one direction, so that both neighbours of an edge compute the same.
            (y0, x0), (y1, x1) = sorted((one, other))
            level = (y0 <= y) & (y < y1)
            if level.any():
                crossing = x0 + (y[level] - y0) / (y1 - y0) * (x1 - x0)
                odd[level] ^= crossing > x[level]
    return odd
