"""Points of a density that are as many as its count: integrate and suppress.

The densest place of the smoothed density becomes a point, one unit of density around it is taken
away, and so on (as ground truth is turned into densities, in reverse: Lempitsky and Zisserman,
*Learning to Count Objects in Images*, NIPS 2010). Tiles are processed one after another; the
fraction of an object that is left in one goes on to the next, so that the points of the image are
its rounded count.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from hrviewer.io.run_maps import RunMap

__all__ = ["ObjectPoint", "iter_density_points", "place_points"]

ObjectPoint = tuple[str, tuple[float, float], float]
"""Class, place ``(y, x)`` in level-0 pixels, and the density that it stands for, at most 1."""

TILE = 256
"""Side of a tile, in cells."""

Floats = NDArray[np.float64]


def iter_density_points(run_map: RunMap, spacing: float) -> Iterator[ObjectPoint]:
    """Yield points of a density, of each class as many as its rounded sum.

    Parameters
    ----------
    run_map : RunMap
        The density: counts per cell.
    spacing : float
        Diameter of an object in level-0 pixels, about: so far around a point density is taken
        first.
    """
    radius = max(1, round(spacing / run_map.cell / 2))
    sums = np.zeros(len(run_map.labels))
    for top, band in run_map.bands(TILE):
        values = np.maximum(np.nan_to_num(np.asarray(band, np.float64)), 0)
        for left in range(0, values.shape[2], TILE):
            for k, plane in enumerate(values[:, :, left : left + TILE]):
                before = sums[k]
                sums[k] += plane.sum()
                number = math.floor(sums[k] + 0.5) - math.floor(before + 0.5)
                for (y, x), mass in place_points(plane, number, radius):
                    at = ((top + y) * run_map.cell, (left + x) * run_map.cell)
                    yield run_map.labels[k], at, mass


def place_points(
    plane: Floats, number: int, radius: int
) -> Iterator[tuple[tuple[float, float], float]]:
    """Yield points of a plane, in cells counted from its corner, and their density.

    Parameters
    ----------
    plane : ndarray, shape (rows, columns)
        The density, not negative.
    number : int
        How many.
    radius : int
        Of an object, in cells.

    Examples
    --------
    >>> plane = np.zeros((9, 9))
    >>> plane[2, 2:4], plane[7, 7] = 0.5, 1.0
    >>> [point for point, mass in place_points(plane, 2, 1)]
    [(7.5, 7.5), (2.5, 3.0)]
    """
    from scipy.ndimage import gaussian_filter

    left, sigma = plane.copy(), radius / 2
    reach = math.ceil(4 * sigma) + 1
    smooth = gaussian_filter(left, sigma, mode="constant", truncate=4) if number else left
    for _ in range(number):
        y, x = divmod(int(smooth.argmax()), smooth.shape[1])
        side = radius
        while True:
            rows = slice(max(0, y - side), y + side + 1)
            columns = slice(max(0, x - side), x + side + 1)
            part = left[rows, columns]
            mass = float(part.sum())
            if side == radius:
                place = center_of(part, mass, rows.start, columns.start, (float(y), float(x)))
            if mass >= 1 or part.size == left.size:
                break
            side += max(1, side // 2)
        part *= 1 - min(1.0, 1 / mass) if mass > 0 else 0
        # Only what was taken away, and what the filter mixes with it, has changed.
        near_y, near_x = padded(rows, reach), padded(columns, reach)
        wide_y, wide_x = padded(near_y, reach), padded(near_x, reach)
        fresh = gaussian_filter(left[wide_y, wide_x], sigma, mode="constant", truncate=4)
        target = smooth[near_y, near_x]
        y, x = near_y.start - wide_y.start, near_x.start - wide_x.start
        target[:] = fresh[y : y + target.shape[0], x : x + target.shape[1]]
        yield place, min(1.0, mass)


def center_of(
    part: Floats, mass: float, top: int, left: int, peak: tuple[float, float]
) -> tuple[float, float]:
    """Return the centre of mass of a part of a plane, or the centre of its densest cell."""
    if mass <= 0:
        return peak[0] + 0.5, peak[1] + 0.5
    y, x = np.arange(part.shape[0])[:, None], np.arange(part.shape[1])
    return (
        float((part * y).sum()) / mass + top + 0.5,
        float((part * x).sum()) / mass + left + 0.5,
    )


def padded(edge: slice, margin: int) -> slice:
    """Return a slice that is longer at both ends."""
    return slice(max(0, edge.start - margin), edge.stop + margin)
