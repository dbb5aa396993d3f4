"""Exact integral over a region of what is constant in every cell of a grid.

The boundary is cut where it crosses lines of the grid, as for `cell_areas`. A piece in one cell
covers, to its right, a part of that cell and all further cells of the row, whose sums are looked
up: only cells on the boundary are visited, however large the region is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.regions.cell_areas import ROUNDING, cut_edges
from hrviewer.regions.region import Region

__all__ = ["CellValues", "RegionEdges"]

Floats = NDArray[np.float64]


class CellValues:
    """Values that are constant in every cell of a grid.

    Parameters
    ----------
    rows, columns : ndarray, shape (n + 1,) and (m + 1,)
        Edges of the cells in level-0 pixels, ascending.
    values : ndarray, shape (k, n, m)
        Amounts per square level-0 pixel, but for the factor.
    factor : float
        Of all values.
    """

    def __init__(
        self, rows: Floats, columns: Floats, values: NDArray[np.floating[Any]], factor: float = 1.0
    ) -> None:
        self.rows, self.columns, self.values, self.factor = rows, columns, values, factor
        self._to_right: Floats | None = None
        widths = np.diff(columns)
        self._widths = widths if np.ptp(widths) > 0 else widths[:1]

    @property
    def to_right(self) -> Floats:
        """Sums over each cell and those to its right, times their widths, ``(k, n, m + 1)``."""
        if self._to_right is None:
            k, n, m = self.values.shape
            sums = np.zeros((k, n, m + 1))
            values = self.values if len(self._widths) == 1 else self.values * self._widths
            np.cumsum(values[..., ::-1], axis=2, dtype=np.float64, out=sums[..., 1:])
            self._to_right = sums[..., ::-1]
        return self._to_right

    def sums_to_right(self, row: NDArray[np.int64], column: NDArray[np.int64]) -> Floats:
        """Return integrals per row height over cells and those to their right, ``(k, p)``."""
        scale = self.factor * (self._widths[0] if len(self._widths) == 1 else 1.0)
        return np.asarray(self.to_right[:, row, column] * scale)

    @property
    def total(self) -> Floats:
        """Integral over the whole grid, ``(k,)``."""
        rows, columns = np.diff(self.rows), np.diff(self.columns)
        return np.asarray(np.einsum("kij,i,j->k", self.values, rows, columns) * self.factor)


@dataclass(frozen=True, slots=True, eq=False)
class RegionEdges:
    """Edges of a region, which are not level.

    Parameters
    ----------
    starts, ends : ndarray, shape (n, 2)
        Ends of each edge, ``(y, x)``, with the inside on the right of the way.

    Examples
    --------
    >>> triangle = Region.from_polygons([[[[0, 0], [0, 2], [2, 0]]]], "triangle")
    >>> lines = np.arange(3.0)
    >>> values = CellValues(lines, lines, np.array([[[1.0, 10.0], [100.0, 1000.0]]]))
    >>> RegionEdges.of(triangle).integrate(values)
    (array([56.]), 2.0)
    """

    starts: Floats
    ends: Floats

    @classmethod
    def of(cls, region: Region) -> RegionEdges:
        """Return the edges of a region."""
        rings = region.rings()
        starts = np.concatenate([ring[:-1] for ring in rings])
        ends = np.concatenate([ring[1:] for ring in rings])
        slanted = starts[:, 0] != ends[:, 0]
        return cls(starts[slanted], ends[slanted])

    def integrate(self, cells: CellValues) -> tuple[Floats, float]:
        """Return the integral of values over the region's part in their grid, and its area.

        Returns
        -------
        ndarray, shape (k,)
            The integrals.
        float
            Square level-0 pixels.
        """
        rows, columns = cells.rows, cells.columns
        n, m = len(rows) - 1, len(columns) - 1
        (y0, x0), (y1, x1) = self.starts.T, self.ends.T
        near = np.minimum(y0, y1) < rows[-1]
        near &= np.maximum(y0, y1) > rows[0]
        near &= np.minimum(x0, x1) < columns[-1]
        begin, end = cut_edges(self.starts[near], self.ends[near], rows, columns)
        middle = (begin + end) / 2
        row = np.searchsorted(rows, middle[:, 0], "right") - 1
        # Column 0 stands for all that is left of the grid: it has no width.
        column = np.searchsorted(columns, middle[:, 1], "right")
        kept = (row >= 0) & (row < n) & (column <= m)
        row, column, middle = row[kept], column[kept], middle[kept]
        covered = begin[kept, 0] - end[kept, 0]
        right = np.concatenate([[-np.inf], columns[1:]])[column]
        part = covered * np.maximum(right - middle[:, 1], 0.0)
        own = cells.values[:, row, np.maximum(column - 1, 0)] * (part * cells.factor)
        further = cells.sums_to_right(row, column) * covered
        sums = own.sum(axis=1, dtype=np.float64) + further.sum(axis=1)
        noise = ROUNDING * (len(row) + 1) * np.abs(further).max(axis=1, initial=0.0)
        wide = covered * (columns[-1] - columns[column])
        area = float(part.sum() + wide.sum())
        return np.where(np.abs(sums) <= noise, 0.0, sums), max(area, 0.0)
