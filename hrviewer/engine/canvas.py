"""Stitching the maps of patches into one map of the image, aligned to the pixel.

Maps of *mass* (densities: their sum is a count) are resampled so that the sum is kept; maps of
*intensity* (probabilities, saliencies) so that the mean is. Where source and target cells
coincide the values are copied bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hrviewer.geometry import Rect

__all__ = [
    "Box",
    "Canvas",
    "MapKind",
    "PatchMap",
    "cell_edges",
    "core_coverage",
    "overlap",
    "resample",
    "target_cells",
]

Box = tuple[float, float, float, float]
"""``(y, x, h, w)`` in level-0 pixels; maps of fractional cells need fractions."""

PatchMap = tuple[NDArray[np.floating[Any]], Box, Rect, float]
"""A patch's map, its box, its core, and the scale of inference."""

MAX_WINDOW = 1 << 22
"""Values held in memory at once to paint neighbouring patches, unless one has more."""

MapKind = Literal["mass", "intensity"]


def cell_edges(start: float, length: float, n: int, limit: float) -> NDArray[np.float64]:
    """Return the edges of `n` equal cells, clipped to the image.

    Inference ends at the image's border, so the last cell predicts the image's part alone.
    """
    edges = start + np.arange(n + 1, dtype=np.float64) * (length / n)
    return np.clip(edges, 0, limit)


def overlap(
    source: NDArray[np.float64], target: NDArray[np.float64], low: float, high: float
) -> NDArray[np.float64]:
    """Return which fraction of each source cell falls into each target cell, along one axis.

    Parameters
    ----------
    source, target : ndarray, shape (n + 1,) and (m + 1,)
        Edges of the cells, ascending.
    low, high : float
        Only the part between them counts.

    Returns
    -------
    ndarray, shape (m, n)
    """
    upper = np.minimum(np.minimum(target[1:, None], source[None, 1:]), high)
    lower = np.maximum(np.maximum(target[:-1, None], source[None, :-1]), low)
    lengths = np.diff(source)
    fractions: NDArray[np.float64] = np.clip(upper - lower, 0, None) / np.where(
        lengths > 0, lengths, 1
    )
    return fractions


def weighted_sums(
    rows: NDArray[np.float64], values: NDArray[Any], columns: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return ``rows @ values @ columns.T`` of the fractions that `overlap` returns.

    Nearly all fractions are zero. A dense product would be shared by the threads of the linear
    algebra library, which wait for one another while inference has the cores.

    Parameters
    ----------
    rows, columns : ndarray, shape (m, n) and (c, w)
        Fractions of source cells.
    values : ndarray, shape (k, n, w)
        The map.

    Returns
    -------
    ndarray, shape (k, m, c)
    """
    from scipy.sparse import csr_array

    k, n, w = values.shape
    m, c = len(rows), len(columns)
    by_row = values.transpose(1, 0, 2).reshape(n, k * w).astype(np.float64)
    down = np.asarray(csr_array(rows) @ by_row).reshape(m, k, w)
    across = np.asarray(csr_array(columns) @ down.transpose(2, 1, 0).reshape(w, k * m))
    return across.reshape(c, k, m).transpose(1, 2, 0)


def core_coverage(
    box: Box, n: tuple[int, int], core: Rect, image: Rect
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return which fraction of each row and column of a map over `box` lies in `core`.

    Returns
    -------
    rows, columns : ndarray, shape (n[0],) and (n[1],)
    """
    y, x, h, w = box
    rows = cell_edges(y, h, n[0], image.h)
    columns = cell_edges(x, w, n[1], image.w)
    return (
        overlap(rows, np.array([core.y, core.y1], float), core.y, core.y1)[0],
        overlap(columns, np.array([core.x, core.x1], float), core.x, core.x1)[0],
    )


def target_cells(low: float, high: float, cell: float, n: int) -> tuple[int, NDArray[np.float64]]:
    """Return the first of the canvas's `n` cells that ``[low, high)`` meets, and their edges."""
    first = max(0, math.floor(low / cell + 1e-9))
    last = max(first, min(n, math.ceil(high / cell - 1e-9)))
    return first, np.arange(first, last + 1, dtype=np.float64) * cell


def resample(
    values: NDArray[np.floating[Any]],
    box: Box,
    core: Rect,
    image: Rect,
    cell: float,
    kind: MapKind,
) -> tuple[NDArray[np.float32], int, int]:
    """Resample a patch's map onto the canvas's cells.

    Parameters
    ----------
    values : ndarray, shape (k, rows, columns)
        The map.
    box : tuple of float
        Extent of the map: ``(y, x, h, w)`` in level-0 pixels.
    core, image : Rect
        Only the core is painted; it lies in the image.
    cell : float
        Side of the canvas's cells, level-0 pixels.
    kind : {"mass", "intensity"}
        Whether the sum or the mean is preserved.

    Returns
    -------
    block : ndarray of float32, shape (k, rows, columns)
        Values to paint.
    row, column : int
        Its first cell on the canvas.
    """
    _, rows, columns = values.shape
    shape = Canvas.shape(image, cell)
    y, x, h, w = box
    row, ys = target_cells(core.y, core.y1, cell, shape[0])
    column, xs = target_cells(core.x, core.x1, cell, shape[1])
    aligned = h / rows == cell == w / columns and y % cell == x % cell == 0
    begins = core.y == ys[0] and core.x == xs[0]
    ends = (core.y1 in (ys[-1], image.h)) and (core.x1 in (xs[-1], image.w))
    if aligned and begins and ends:
        r, c = row - round(y / cell), column - round(x / cell)
        block = values[:, r : r + len(ys) - 1, c : c + len(xs) - 1]
        return block.astype(np.float32), row, column
    wy = overlap(cell_edges(y, h, rows, image.h), ys, core.y, core.y1)
    wx = overlap(cell_edges(x, w, columns, image.w), xs, core.x, core.x1)
    whole = np.outer(wy.sum(1), wx.sum(1))
    # NaN of some cells must not spread over all rows and columns that they lie in.
    known = np.isfinite(values)
    covered = whole if known.all() else weighted_sums(wy, known, wx)
    block = weighted_sums(wy, np.where(known, values, 0), wx)
    if kind == "intensity":
        with np.errstate(invalid="ignore"):
            block = block / covered
    block = np.where((whole > 0) & (covered <= 0), np.nan, block)
    return block.astype(np.float32), row, column


class Canvas:
    """A map of the image that inference at finer scales refines.

    Parameters
    ----------
    image : Rect
        Extent of the canvas.
    cell : float
        Side of its cells, level-0 pixels.
    values : array-like, shape (k, rows, columns), float32
        The map, a NumPy or zarr array; NaN where nothing was predicted.
    scales : array-like, shape (rows, columns), float32
        Scale of the inference that each cell comes from; NaN where there is none.
    kind : {"mass", "intensity"}
        Whether painting preserves the sum or the mean.
    """

    def __init__(
        self,
        image: Rect,
        cell: float,
        values: Any,
        scales: Any,
        kind: MapKind,
    ) -> None:
        self.image, self.cell, self.kind = image, cell, kind
        self.values, self.scales = values, scales

    @staticmethod
    def shape(image: Rect, cell: float) -> tuple[int, int]:
        """Rows and columns of a canvas that covers `image`."""
        return math.ceil(image.h / cell - 1e-9), math.ceil(image.w / cell - 1e-9)

    @classmethod
    def in_memory(cls, image: Rect, cell: float, k: int, kind: MapKind) -> Canvas:
        """Return an empty canvas in memory."""
        shape = cls.shape(image, cell)
        return cls(
            image,
            cell,
            np.full((k, *shape), np.nan, np.float32),
            np.full(shape, np.nan, np.float32),
            kind,
        )

    def paint(
        self,
        values: NDArray[np.floating[Any]],
        box: Box,
        core: Rect,
        scale: float,
    ) -> Rect | None:
        """Paint a patch's map where nothing finer has been painted.

        Parameters
        ----------
        values, box, core
            See `resample`.
        scale : float
            Scale of the inference.

        Returns
        -------
        Rect or None
            The cells that changed; None if none did.
        """
        where = self._cells_in(core)
        if where is not None:
            self._paint_window(where, [(values, box, core, scale)])
        return where

    def paint_all(self, patch_maps: Iterable[PatchMap]) -> None:
        """Paint many patches' maps, one after another, as `paint` does each.

        The arrays are read and written once for neighbours: a file's cost is by the access.
        """
        window: Rect | None = None
        batch: list[PatchMap] = []
        for patch_map in patch_maps:
            where = self._cells_in(patch_map[2])
            if where is None:
                continue
            joined = where if window is None else window | where
            if window is not None and joined.area * self.values.shape[0] > MAX_WINDOW:
                self._paint_window(window, batch)
                joined, batch = where, []
            window = joined
            batch.append(patch_map)
        if window is not None:
            self._paint_window(window, batch)

    def _cells_in(self, core: Rect) -> Rect | None:
        """Return the cells that overlap a core; None if there are none."""
        core = core & self.image
        if core.empty:
            return None
        n = self.shape(self.image, self.cell)
        (row, ys), (column, xs) = (
            target_cells(low, high, self.cell, m)
            for low, high, m in zip((core.y, core.x), (core.y1, core.x1), n, strict=True)
        )
        found = Rect(row, column, len(ys) - 1, len(xs) - 1)
        return None if found.empty else found

    def _paint_window(self, window: Rect, patch_maps: Iterable[PatchMap]) -> None:
        """Paint maps whose cells lie in a window of cells."""
        at = np.s_[window.y : window.y1, window.x : window.x1]
        everything = np.array(self.values[(slice(None), *at)])
        detail = np.array(self.scales[at])
        for values, box, core, scale in patch_maps:
            block, row, column = resample(
                values, box, core & self.image, self.image, self.cell, self.kind
            )
            rows = slice(row - window.y, row - window.y + block.shape[1])
            columns = slice(column - window.x, column - window.x + block.shape[2])
            # NaN compares false: empty cells are painted.
            new = ~(detail[rows, columns] < scale)
            np.copyto(everything[:, rows, columns], block, where=new, casting="same_kind")
            detail[rows, columns][new] = scale
        self.scales[at] = detail
        self.values[(slice(None), *at)] = everything
