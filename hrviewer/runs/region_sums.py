"""Sums of a map over regions, exact at their borders, with every chunk of the map read once."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.geometry import Rect
from hrviewer.io.stored_map import read_cells
from hrviewer.regions import CellValues, Region, RegionEdges

__all__ = [
    "Densities",
    "densities_of_best",
    "densities_of_counts",
    "densities_of_values",
    "measure_map",
    "sum_map",
    "sum_regions",
]

BLOCK_CELLS = 1 << 21
"""Cells of a map without chunks that are summed at once."""

SIDE = 512
"""Side of the windows of a map without chunks."""

THREADS = max(1, min(4, os.cpu_count() or 1))
"""Windows that are read at once."""

Floats = NDArray[np.float64]

Cells = NDArray[np.floating[Any]]

Densities = Callable[[Cells, Floats, Floats], tuple[Cells, float]]
"""Returns amounts per square pixel, ``(k, rows, columns)``, and a factor of them, from the values
of cells, ``(k, rows, columns)``, and their heights and widths in the extent."""


def densities_of_counts(values: Cells, heights: Floats, widths: Floats) -> tuple[Cells, float]:
    """Return counts per area: each cell's is shared by area."""
    height, width = float(heights[0]), float(widths[0])
    if np.ptp(heights) <= 1e-9 * height and np.ptp(widths) <= 1e-9 * width and height * width > 0:
        return values, 1 / (height * width)
    sizes, exact = np.outer(heights, widths), values.astype(np.float64)
    return np.divide(exact, sizes, out=np.zeros_like(exact), where=sizes > 0), 1.0


def densities_of_values(values: Cells, heights: Floats, widths: Floats) -> tuple[Cells, float]:
    """Return values as they are: sums are weighted by area."""
    return values, 1.0


def densities_of_best(values: Cells, heights: Floats, widths: Floats) -> tuple[Cells, float]:
    """Return 1 where a class is the most likely one, or likely if there is only one."""
    if len(values) == 1:
        return (values > 0.5).astype(np.float32), 1.0
    best = values.argmax(axis=0) == np.arange(len(values))[:, None, None]
    return best.astype(np.float32), 1.0


def measure_map(
    cells: Any,
    cell: float,
    region: Region,
    extent: Rect,
    densities: Densities = densities_of_counts,
) -> tuple[Floats, float]:
    """Return the amounts of a region on a map, and the area of it that has predictions.

    Parameters
    ----------
    cells, cell, extent, densities
        See `sum_regions`.
    region : Region
        The region.
    """
    amounts, known = sum_regions(cells, cell, [region], extent, densities)
    return amounts[0], float(known[0])


def sum_regions(
    cells: Any,
    cell: float,
    regions: Sequence[Region],
    extent: Rect,
    densities: Densities = densities_of_counts,
) -> tuple[Floats, Floats]:
    """Return the amounts of regions on a map, and the areas of them that have predictions.

    Parameters
    ----------
    cells : array, shape (k, rows, columns)
        The map; NaN where there are no predictions.
    cell : float
        Side of its cells, level-0 pixels.
    regions : sequence of Region
        The regions, which may overlap.
    extent : Rect
        The run's rectangle: cells on its border have values for the part inside only, and nothing
        outside counts.
    densities : callable
        Amounts per area of the cells.

    Returns
    -------
    amounts : ndarray, shape (n, k)
        By region and channel.
    known : ndarray, shape (n,)
        Square level-0 pixels.
    """
    sums = np.zeros((len(regions), cells.shape[0] + 1))
    inside = [region.clip(extent) for region in regions]
    edges = [None if region is None else RegionEdges.of(region) for region in inside]
    boxes = np.array(
        [(0, 0, 0, 0) if r is None else _corners(r.bounds & extent) for r in inside], np.float64
    ).reshape(-1, 4)
    touched = list(_windows(cells, cell, boxes))

    def measure(window: tuple[slice, slice]) -> list[tuple[int, Floats]]:
        rows, columns = window
        ys = _edges_of(rows, cell, extent.y, extent.y1)
        xs = _edges_of(columns, cell, extent.x, extent.x1)
        near = np.flatnonzero(
            (boxes[:, 0] < ys[-1]) & (boxes[:, 1] > ys[0])
            & (boxes[:, 2] < xs[-1]) & (boxes[:, 3] > xs[0])
        )  # fmt: skip
        values = read_cells(cells, rows, columns)
        heights, widths = np.diff(ys), np.diff(xs)
        valid = np.isfinite(values)
        if valid.all():
            grids = [CellValues(ys, xs, *densities(values, heights, widths))]
        else:
            valid = valid.all(axis=0)
            amounts, factor = densities(np.where(valid, values, 0), heights, widths)
            grids = [CellValues(ys, xs, amounts * valid, factor)]
            grids.append(CellValues(ys, xs, valid[None].astype(np.float32)))
        found = []
        for i in map(int, near):
            part, own = inside[i], edges[i]
            if part is not None and own is not None:
                found.append((i, _integrals(grids, part, own)))
        return found

    if THREADS > 1 and len(touched) > THREADS:
        with ThreadPoolExecutor(THREADS) as pool:
            for parts in pool.map(measure, touched):
                _add(sums, parts)
    else:
        for window in touched:
            _add(sums, measure(window))
    return sums[:, :-1], sums[:, -1]


def sum_map(cells: Any, cell: float, mask: Region | None, extent: Rect) -> float:
    """Return what a map adds up to where it counts, some rows at a time; see `measure_map`."""
    if mask is not None:
        return float(measure_map(cells, cell, mask, extent)[0].sum())
    step = max(1, BLOCK_CELLS // max(1, cells.shape[2]))
    rows = range(0, cells.shape[1], step)
    return float(sum(np.nansum(cells[:, row : row + step], dtype=np.float64) for row in rows))


def _integrals(grids: Sequence[CellValues], region: Region, edges: RegionEdges) -> Floats:
    """Return the amounts of a region and the area with predictions, of which the 2nd grid is."""
    first = grids[0]
    around = _rect_around(first.rows, first.columns)
    if region.contains(around):
        found = [grid.total for grid in grids]
        area = float((first.rows[-1] - first.rows[0]) * (first.columns[-1] - first.columns[0]))
    else:
        integrals = [edges.integrate(grid) for grid in grids]
        found, area = [amounts for amounts, _ in integrals], integrals[0][1]
    return np.concatenate(found) if len(grids) > 1 else np.append(found[0], area)


def _add(sums: Floats, parts: list[tuple[int, Floats]]) -> None:
    for i, part in parts:
        sums[i] += part


def _corners(rect: Rect) -> tuple[int, int, int, int]:
    return rect.y, rect.y1, rect.x, rect.x1


def _rect_around(ys: Floats, xs: Floats) -> Rect:
    """Return the smallest rectangle of whole pixels around a grid."""
    top, left = math.floor(ys[0]), math.floor(xs[0])
    return Rect(top, left, math.ceil(ys[-1]) - top, math.ceil(xs[-1]) - left)


def _edges_of(cells: slice, cell: float, start: int, end: int) -> Floats:
    """Return the edges of cells along an axis, within the extent."""
    return np.clip(np.arange(cells.start, cells.stop + 1) * cell, start, end)


def _windows(cells: Any, cell: float, boxes: Floats) -> Iterator[tuple[slice, slice]]:
    """Yield the windows of cells that boxes touch, each in one chunk, no larger than needed."""
    _, n, m = cells.shape
    _, high, wide = getattr(cells, "chunks", None) or (1, SIDE, SIDE)
    lows = np.floor(boxes[:, [0, 2]] / cell).astype(int)
    ends = np.minimum(np.ceil(boxes[:, [1, 3]] / cell).astype(int), (n, m))
    needed: dict[tuple[int, int], list[int]] = {}
    for (top, left), (bottom, right) in zip(lows.tolist(), ends.tolist(), strict=True):
        for i in range(top // high, math.ceil(bottom / high)):
            for j in range(left // wide, math.ceil(right / wide)):
                y, y1 = max(top, i * high), min(bottom, (i + 1) * high)
                x, x1 = max(left, j * wide), min(right, (j + 1) * wide)
                if y < y1 and x < x1:
                    box = needed.setdefault((i, j), [y, y1, x, x1])
                    box[:] = min(box[0], y), max(box[1], y1), min(box[2], x), max(box[3], x1)
    for _, (y, y1, x, x1) in sorted(needed.items()):
        yield slice(y, y1), slice(x, x1)
