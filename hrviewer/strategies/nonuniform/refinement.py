"""Refinement of a counting scout's prediction: where ``main`` runs, and at which scale.

The region is cut into squares. Each keeps the scout's prediction, or ``main`` runs on it at one of
several scales, none coarser than the scout's: what reduces the variance of the square's count most,
at a price per FLOP that the budget sets. Neighbouring squares become one leaf, and so one warp,
where its canvas costs less than theirs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from hrviewer.geometry import Rect
from hrviewer.models.accuracy import ScaleCurve, ScalePoint
from hrviewer.strategies.estimation.sampling_grid import MAX_CELLS, SamplingGrid, build_grid
from hrviewer.strategies.estimation.two_phase import CoarsePrediction
from hrviewer.strategies.nonuniform.allocation import MAX_DENSITY_RATIO, Leaf, PixelDensity
from hrviewer.strategies.protocol import PlanContext

__all__ = ["Squares", "fit_price", "scale_point", "square_grid"]

Floats = NDArray[np.float64]
T = TypeVar("T", bound=np.generic)

SIDE = 64
"""Side of a square, in model pixels at full resolution."""

REDUCTIONS = 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 6.0
"""Reductions at which ``main`` may run."""

ASSUMED_RELATIVE, ASSUMED_PER_OBJECT = 0.2, 1.5
"""Error of counts at half the size where no curve was measured; it grows with the octaves."""

LARGEST_CANVAS = 1024
"""Largest side of a leaf's canvas, in model pixels, which bounds the memory of inference."""


def square_grid(context: PlanContext, budget: float) -> SamplingGrid:
    """Cut the region into squares; of a very large one they are larger."""
    side, tile = SIDE, context.main.card.input.tile
    pixels = context.region.area / context.native_scale**2
    while side < tile and pixels / side**2 > MAX_CELLS:
        side *= 2
    return build_grid(context, min(side, tile), budget)


def scale_point(curve: ScaleCurve | None, reduction: float) -> ScalePoint:
    """Return the gain and the error of ``main`` at a reduction; assumed where not measured."""
    point = curve.at(reduction) if curve else None
    octaves = math.log2(reduction)
    return point or ScalePoint(
        scale=reduction,
        gain=1.0,
        per_object=ASSUMED_PER_OBJECT * octaves,
        relative=ASSUMED_RELATIVE * octaves,
    )


@dataclass(frozen=True, eq=False)
class Squares:
    """The squares of a region, with the scout's prediction for each.

    Parameters
    ----------
    context : PlanContext
        Properties of the image and the models; its region is cut.
    grid : SamplingGrid
        The squares.
    prediction : CoarsePrediction
        The scout's prediction for them.
    halo : int
        Context around a leaf, in model pixels.
    largest : int
        Largest side of a leaf, in model pixels at full resolution.
    coarsest : float
        Largest reduction.
    """

    context: PlanContext
    grid: SamplingGrid
    prediction: CoarsePrediction
    halo: int
    largest: int
    coarsest: float

    @property
    def counts(self) -> Floats:
        """Expected count of each square, ``(n,)``."""
        expected = self.prediction.values.sum(axis=1) * self.prediction.error.ratio
        return np.asarray(np.maximum(expected, 0))

    @property
    def variances(self) -> Floats:
        """Variance of each square's count, given the scout's prediction, ``(n,)``."""
        error, counts = self.prediction.error, self.counts
        shared = max(error.cell_deviation, error.ratio_deviation)
        return np.asarray(
            (error.spread * self.prediction.spread) ** 2
            + error.per_object * counts
            + (shared * counts) ** 2
        )

    def densities(self, price: float) -> Floats:
        """Return each square's pixel density ``(n,)`` at a price per model pixel; 0: the scout's.

        A square pays half of the context that it would need alone, since leaves share it.
        """
        counts, variances = self.counts, self.variances
        best, chosen = np.zeros(len(counts)), np.zeros(len(counts))
        side = self.grid.cell / self.context.native_scale
        for reduction in REDUCTIONS:
            if reduction > self.coarsest:
                break
            point = scale_point(self.context.scale_curve, reduction)
            left = point.per_object * counts + (point.relative * counts) ** 2
            gain = variances - left - price * (side / reduction + self.halo) ** 2
            better = gain > best
            best, chosen = np.where(better, gain, best), np.where(better, 1 / reduction**2, chosen)
        return chosen

    def seen(self, densities: Floats) -> PixelDensity:
        """Return the density of a warp's pixels: nowhere coarser than the scout's."""
        values = np.maximum(densities, 1 / self.coarsest**2).reshape(self.grid.shape)
        return PixelDensity(self.grid.as_map(densities)[1], self.grid.cell, values)

    def leaves(self, densities: Floats) -> list[Leaf]:
        """Return the leaves in which the squares of positive density are, as cheap as possible."""
        floor, native = 1 / self.coarsest**2, self.context.native_scale
        wanted = densities.reshape(self.grid.shape)
        heights, widths = (np.diff(edges) / native for edges in (self.grid.ys, self.grid.xs))
        density = np.maximum(wanted, floor)
        level = _Level(heights, widths, density, density, density, wanted > 0)
        levels, costs = [level], [np.where(level.used, level.pixels(self.halo), 0.0)]
        merged = [level.used]
        while max(level.used.shape) > 1:
            level = level.coarser()
            apart = _fours(costs[-1], np.add)
            together = level.pixels(self.halo)
            joined = level.used & level.mergeable(self.largest) & (together <= apart)
            levels.append(level)
            merged.append(joined)
            costs.append(np.where(joined, together, apart))
        return [*self._leaves(levels, merged, len(levels) - 1, 0, 0)]

    def _leaves(
        self, levels: Sequence[_Level], merged: Sequence[NDArray[np.bool_]], k: int, i: int, j: int
    ) -> Iterator[Leaf]:
        level = levels[k]
        if i >= level.used.shape[0] or j >= level.used.shape[1] or not level.used[i, j]:
            return
        if not merged[k][i, j]:
            for y in (2 * i, 2 * i + 1):
                for x in (2 * j, 2 * j + 1):
                    yield from self._leaves(levels, merged, k - 1, y, x)
            return
        ys, xs, n = self.grid.ys, self.grid.xs, 1 << k
        y, x = int(ys[i * n]), int(xs[j * n])
        y1, x1 = (int(e[min((at + 1) * n, len(e) - 1)]) for e, at in ((ys, i), (xs, j)))
        uniform = bool(level.highest[i, j] <= 1.25 * level.lowest[i, j])
        yield Leaf(Rect(y, x, y1 - y, x1 - x), float(level.density[i, j]), uniform)


@dataclass(frozen=True, eq=False)
class _Level:
    """Groups of squares, at one level of the quadtree.

    Attributes
    ----------
    heights, widths : ndarray, shape (rows,) and (columns,)
        Their sides, in model pixels at full resolution.
    density, lowest, highest : ndarray, shape (rows, columns)
        Mean, lowest and highest pixel density.
    used : ndarray of bool, shape (rows, columns)
        Whether ``main`` runs on any square of a group.
    """

    heights: Floats
    widths: Floats
    density: Floats
    lowest: Floats
    highest: Floats
    used: NDArray[np.bool_]

    def pixels(self, halo: int) -> Floats:
        """Return the model pixels of each group's canvas, with its context."""
        side = np.sqrt(self.density)
        h, w = self.heights[:, None] * side, self.widths[None] * side
        around = np.minimum(halo, np.maximum(h, w) / 4)
        return np.asarray((h + 2 * around) * (w + 2 * around))

    def mergeable(self, largest: int) -> NDArray[np.bool_]:
        """Return which groups one warp can serve."""
        side = np.sqrt(self.density)
        longer = np.maximum(self.heights[:, None], self.widths[None])
        fits = (longer <= largest) & (longer * side <= LARGEST_CANVAS)
        return np.asarray(fits & (self.highest <= MAX_DENSITY_RATIO * self.density))

    def coarser(self) -> _Level:
        """Return the groups of two by two of these."""
        areas = np.outer(self.heights, self.widths)
        heights, widths = (
            np.add.reduceat(lengths, np.arange(0, len(lengths), 2))
            for lengths in (self.heights, self.widths)
        )
        density = _fours(self.density * areas, np.add) / np.outer(heights, widths)
        return _Level(
            heights,
            widths,
            density,
            _fours(self.lowest, np.minimum),
            _fours(self.highest, np.maximum),
            _fours(self.used, np.logical_or),
        )


def _fours(values: NDArray[T], reduce: np.ufunc) -> NDArray[T]:
    """Reduce a map over groups of two by two; those at its end may be smaller."""
    rows, columns = (np.arange(0, n, 2) for n in values.shape)
    return np.asarray(reduce.reduceat(reduce.reduceat(values, rows, axis=0), columns, axis=1))


def fit_price(
    squares: Sequence[Squares], cost: Callable[[list[Leaf]], float], budget: float
) -> float:
    """Return the lowest price per model pixel at which leaves cost no more than a budget.

    Parameters
    ----------
    squares
        The region, or parts that stand for it.
    cost
        Returns the FLOPs of leaves.
    budget
        FLOPs.
    """

    def total(price: float) -> float:
        return sum(cost(each.leaves(each.densities(price))) for each in squares)

    most = max(float(each.variances.max(initial=0.0)) for each in squares)
    if total(0.0) <= budget or most <= 0:
        return 0.0
    low, high = most * 1e-9, most  # a pixel that removes all variance of a square
    while high > 1.02 * low:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if total(middle) <= budget else (middle, high)
    return high
