"""Exact area of a region in every cell of a grid.

Each edge is cut where it crosses lines of the grid. A piece in one cell covers, to its right, a
part of that cell and all further cells of the row; the signed sum over all pieces is the area
inside, holes included. Outline fonts are drawn by the same sums (Levien, *font-rs*, 2015).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hrviewer.regions.region import Region

__all__ = ["cell_areas", "cut_edges"]

ROUNDING = 1e-12
"""Area, over that of the grid's largest cell per edge crossed, that is due to rounding alone."""

Floats = NDArray[np.float64]


def cell_areas(region: Region, rows: Floats, columns: Floats) -> Floats:
    """Return the area of a region in every cell of a grid.

    Parameters
    ----------
    region : Region
        The region; it may reach beyond the grid.
    rows, columns : ndarray, shape (n + 1,) and (m + 1,)
        Edges of the cells in level-0 pixels, ascending.

    Returns
    -------
    ndarray, shape (n, m)
        Square level-0 pixels.

    Examples
    --------
    >>> triangle = Region.from_polygons([[[[0, 0], [0, 2], [2, 0]]]], "triangle")
    >>> cell_areas(triangle, np.arange(3.0), np.arange(3.0))
    array([[1. , 0.5],
           [0.5, 0. ]])
    """
    n, m = len(rows) - 1, len(columns) - 1
    heights, widths = np.diff(rows), np.diff(columns)
    starts, ends = _edges(region, rows[0], rows[-1])
    begin, end = cut_edges(starts, ends, rows, columns)
    middle = (begin + end) / 2
    row = np.searchsorted(rows, middle[:, 0], "right") - 1
    # Column 0 stands for all that is left of the grid: it has no width.
    column = np.searchsorted(columns, middle[:, 1], "right")
    kept = (row >= 0) & (row < n) & (column <= m)
    row, column, middle = row[kept], column[kept], middle[kept]
    covered = begin[kept, 0] - end[kept, 0]
    right = np.concatenate([[-np.inf], columns[1:]])[column]
    part = covered * np.maximum(right - middle[:, 1], 0.0)
    where, size, shape = row * (m + 1) + column, n * (m + 1), (n, m + 1)
    further = np.bincount(where, covered, size).reshape(shape)
    own = np.bincount(where, part, size).reshape(shape)
    areas = own[:, 1:] + np.cumsum(further, axis=1)[:, :-1] * widths
    whole = heights[:, None] * widths
    noise = ROUNDING * (len(starts) + m) * float(whole.max(initial=0.0))
    areas = np.where(areas < noise, 0.0, areas)
    return np.where(areas > whole - noise, whole, areas)


def _edges(region: Region, low: float, high: float) -> tuple[Floats, Floats]:
    """Return starts and ends, ``(n, 2)``, of the edges that cover a part of some rows."""
    rings = region.rings()
    starts = np.concatenate([ring[:-1] for ring in rings])
    ends = np.concatenate([ring[1:] for ring in rings])
    ys = np.minimum(starts[:, 0], ends[:, 0]), np.maximum(starts[:, 0], ends[:, 0])
    kept = (ys[0] < high) & (ys[1] > low) & (ys[0] < ys[1])
    return starts[kept], ends[kept]


def cut_edges(starts: Floats, ends: Floats, rows: Floats, columns: Floats) -> tuple[Floats, Floats]:
    """Cut edges where they cross lines of the grid; return starts and ends of the pieces."""
    edges = [np.arange(len(starts)), np.arange(len(starts))]
    places = [np.zeros(len(starts)), np.ones(len(starts))]
    for axis, lines in enumerate((rows, columns)):
        a, b = starts[:, axis], ends[:, axis]
        low = np.searchsorted(lines, np.minimum(a, b), "right")
        count = np.maximum(np.searchsorted(lines, np.maximum(a, b), "left") - low, 0)
        edge = np.repeat(np.arange(len(starts)), count)
        within = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count)
        edges.append(edge)
        places.append((lines[low[edge] + within] - a[edge]) / (b[edge] - a[edge]))
    edge, place = np.concatenate(edges), np.concatenate(places)
    order = np.argsort(2.0 * edge + place, kind="stable")
    edge, place = edge[order], place[order]
    points = starts[edge] + place[:, None] * (ends - starts)[edge]
    last = place == 1
    points[last] = ends[edge[last]]
    same = edge[1:] == edge[:-1]
    return points[:-1][same], points[1:][same]
