"""The grid of cells that ``main`` may measure, and coarser predictions resampled onto it.

The edges of cells are on the model's lattice (`tiling.alignment_step`); the first cell begins at
the region's corner, and the region's border cuts the outer ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hrviewer.geometry import Patch, Rect
from hrviewer.strategies.protocol import ModelInfo, PatchResult, PlanContext
from hrviewer.strategies.tiling import cell_side, input_shape, tiles

__all__ = [
    "SIDES",
    "SamplingGrid",
    "affordable_cells",
    "build_grid",
    "cell_value",
    "resample_onto",
    "upper_bounds",
]

Floats = NDArray[np.float64]

SIDES = 512, 256, 128, 64
"""Automatic sides of cells, in model pixels."""

MIN_MEASUREMENTS = 4
"""Measurements that the budget should pay for."""

MAX_CELLS = 250_000
"""Maximum number of cells, beyond which larger cells are used."""


@dataclass(frozen=True)
class SamplingGrid:
    """A region cut into rows and columns of cells.

    Attributes
    ----------
    patches : tuple of Patch
        The cells in reading order, at native scale.
    ys, xs : ndarray of int, shape (rows + 1,) and (columns + 1,)
        Edges of rows and columns, level-0 pixels.
    cell : int
        Side of a full cell, level-0 pixels.
    max_cost : float
        FLOPs of the most expensive measurement.
    """

    patches: tuple[Patch, ...]
    ys: NDArray[np.int64]
    xs: NDArray[np.int64]
    cell: int
    max_cost: float

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self.ys) - 1, len(self.xs) - 1

    @property
    def areas(self) -> Floats:
        """Level-0 pixels of each cell, ``(n,)``."""
        return np.outer(np.diff(self.ys), np.diff(self.xs)).ravel().astype(float)

    def cells_within(self, rect: Rect) -> NDArray[np.intp]:
        """Return the indices of the cells within a rectangle of level-0 pixels, in order."""
        rows = np.flatnonzero((self.ys[:-1] >= rect.y) & (self.ys[1:] <= rect.y1))
        columns = np.flatnonzero((self.xs[:-1] >= rect.x) & (self.xs[1:] <= rect.x1))
        return np.asarray((rows[:, None] * self.shape[1] + columns).ravel())

    def cells_meeting(self, rect: Rect) -> NDArray[np.intp]:
        """Return the indices of the cells that meet a rectangle of level-0 pixels, in order."""
        rows = np.flatnonzero((self.ys[:-1] < rect.y1) & (self.ys[1:] > rect.y))
        columns = np.flatnonzero((self.xs[:-1] < rect.x1) & (self.xs[1:] > rect.x))
        return np.asarray((rows[:, None] * self.shape[1] + columns).ravel())

    def as_map(self, values: Floats) -> tuple[Floats, Rect]:
        """Return values of cells ``(n,)`` as a map of full cells, and its extent."""
        rows, columns = self.shape
        # The region may cut the first cell; the next one starts where a full one would have ended.
        y, x = (
            int(edges[1] - self.cell if len(edges) > 2 else edges[0])
            for edges in (self.ys, self.xs)
        )
        rect = Rect(y, x, rows * self.cell, columns * self.cell)
        return values.reshape(rows, columns), rect


def build_grid(context: PlanContext, side: int, budget: float, halo: int = -1) -> SamplingGrid:
    """Cut the region into cells.

    Parameters
    ----------
    context : PlanContext
        Properties of the image and the models.
    side : int
        Side of a cell, in ``main``'s pixels; 0 for the best one for the budget.
    budget : float
        FLOPs for measurements.
    halo : int
        Context around a cell, in ``main``'s pixels; -1 for the card's sufficient context.
    """
    main, scale = context.main, context.scale_of("main")
    halo = main.context if halo < 0 else halo
    tile = side or _best_side(context, halo, budget)
    patches = tiles(main, context.region, scale, tile=tile, halo=halo)
    max_cost = max(main.flops(*shape) for shape in input_shapes(main, patches, context.rect))
    ys = [patch.core.y for patch in patches if patch.core.x == context.region.x]
    xs = [patch.core.x for patch in patches if patch.core.y == context.region.y]
    return SamplingGrid(
        tuple(patches),
        np.array([*ys, context.region.y1]),
        np.array([*xs, context.region.x1]),
        cell_side(main, scale, tile=tile, halo=halo),
        max_cost,
    )


def _best_side(context: PlanContext, halo: int, budget: float) -> int:
    """Return the side of cells with the smallest variance of the estimate for the budget.

    With counts that cluster, the variance of a cell's count grows with its area to the power of
    about 3/2, between chance (1) and full correlation (2); the variance of the estimated total is
    then proportional to the cost of a measurement over the cell's side. Halos make small cells
    expensive.
    """
    main, scale = context.main, context.scale_of("main")
    tile, pixels = main.card.input.tile, context.region.area / scale**2
    sides = [n for n in SIDES if n <= tile and n % main.card.step == 0]
    sides = [n for n in sides if pixels / n**2 <= MAX_CELLS] or [tile]
    if main.card.input.fixed:
        return tile
    costs = {n: main.flops(n + 2 * halo, n + 2 * halo) for n in sides}
    cells = {n: max(1.0, pixels / n**2) for n in sides}
    affordable = [n for n in sides if budget >= min(MIN_MEASUREMENTS, cells[n]) * costs[n]]
    return min(affordable or sides[-1:], key=lambda n: (costs[n] / n, -n))


def input_shapes(model: ModelInfo, patches: Sequence[Patch], image: Rect) -> set[tuple[int, int]]:
    """Return the distinct input sizes of patches."""
    return {input_shape(model, patch, image) for patch in patches}


def resample_onto(
    results: Iterable[PatchResult], ys: NDArray[np.int64], xs: NDArray[np.int64], image: Rect
) -> Floats:
    """Sum the maps of results over the cells of a grid, by area.

    Parameters
    ----------
    results : iterable of PatchResult
        Results whose cores do not overlap; failed ones are left out.
    ys, xs : ndarray of int
        Edges of the grid's rows and columns, level-0 pixels.
    image : Rect
        The whole image; cells are cut at its border.

    Returns
    -------
    ndarray, shape (k, rows, columns)
        The sums of the predictions; zero where there is none.
    """
    total: Floats = np.zeros((1, len(ys) - 1, len(xs) - 1))
    for result in results:
        if np.isnan(result.value).any():
            continue
        values = np.nan_to_num(np.asarray(result.map, float), nan=0.0)  # no data, nothing there
        if len(total) < len(values):
            total = np.zeros((len(values), *total.shape[1:]))
        core, (y, x, h, w) = result.patch.core, result.box
        sources = (
            np.minimum(start + np.arange(n + 1) * (length / n), end)
            for start, length, n, end in (
                (y, h, values.shape[1], image.h),
                (x, w, values.shape[2], image.w),
            )
        )
        down = _Overlap.of(next(sources), core.y, core.y1, ys)
        across = _Overlap.of(next(sources), core.x, core.x1, xs)
        if len(down.targets) and len(across.targets):
            total[:, down.targets[:, None], across.targets] += across.add(
                down.add(values, axis=1), axis=2
            )
    return total


@dataclass(frozen=True)
class _Overlap:
    """Pieces into which the edges of targets cut sources along an axis.

    Attributes
    ----------
    sources : ndarray of int, shape (n,)
        The source of each piece, in order.
    fractions : ndarray, shape (n,)
        Its fraction of the source.
    targets, starts : ndarray of int, shape (m,)
        The targets that overlap sources, and the first piece of each.
    """

    sources: NDArray[np.intp]
    fractions: Floats
    targets: NDArray[np.intp]
    starts: NDArray[np.intp]

    @classmethod
    def of(cls, source: Floats, low: int, high: int, target: NDArray[np.int64]) -> _Overlap:
        """Cut sources with these edges, as far as they lie within ``[low, high)``."""
        first, last = (
            max(float(low), source[0], target[0]),
            min(float(high), source[-1], target[-1]),
        )
        inside = np.concatenate([source, target.astype(float)])
        edges = np.unique(np.append(inside[(inside > first) & (inside < last)], [first, last]))
        left = edges[:-1] if last > first else edges[:0]
        sources = np.searchsorted(source, left, "right") - 1
        lengths = source[sources + 1] - source[sources]
        target_of = np.searchsorted(target, left, "right") - 1
        starts = np.flatnonzero(np.diff(target_of, prepend=-1))
        return cls(sources, np.diff(edges)[: len(left)] / lengths, target_of[starts], starts)

    def add(self, values: Floats, axis: int) -> Floats:
        """Sum values along an axis over the targets; a cut value by its fractions."""
        shape = [1] * values.ndim
        shape[axis] = -1
        pieces = np.take(values, self.sources, axis) * self.fractions.reshape(shape)
        return np.asarray(np.add.reduceat(pieces, self.starts, axis))


def cell_value(context: PlanContext, patch: Patch, value: Floats) -> Floats:
    """Return a patch's share of the region's total, ``(k,)``: probabilities by area."""
    if context.main.card.averaged:
        return np.asarray(value * (patch.core.area / context.region.area))
    return np.asarray(value, float)


def upper_bounds(context: PlanContext, grid: SamplingGrid) -> Floats | None:
    """Return the largest possible sum over classes of each cell; None if unknown."""
    card = context.main.card
    if card.task == "segmentation":
        return grid.areas
    if card.averaged or card.output.bound is None:
        return None
    tile = card.input.tile * context.scale_of("main")
    down, across = (np.ceil(np.diff(edges) / tile) for edges in (grid.ys, grid.xs))
    return np.outer(down, across).ravel() * card.output.bound


def affordable_cells(grid: SamplingGrid, remaining: float) -> int:
    """Return how many measurements `remaining` FLOPs pay for, for any choice of cells."""
    if math.isinf(remaining):
        return len(grid.patches)
    return min(len(grid.patches), max(0, math.floor(remaining / grid.max_cost * (1 + 1e-9))))
