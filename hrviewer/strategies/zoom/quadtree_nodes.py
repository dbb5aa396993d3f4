"""The nodes of a quadtree over an image, and the prediction for cells from measured nodes."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from hrviewer.geometry import Patch, Rect
from hrviewer.strategies.estimation.sampling import draw, probabilities
from hrviewer.strategies.estimation.sampling_grid import SamplingGrid, cell_value, resample_onto
from hrviewer.strategies.estimation.shares import cell_sizes
from hrviewer.strategies.estimation.two_phase import CoarsePrediction, TwoPhaseSampler
from hrviewer.strategies.protocol import PatchRequest, PatchResult, PlanContext, Request, Response
from hrviewer.strategies.tiling import input_shape
from hrviewer.strategies.zoom.quadtree_search import blocks

__all__ = ["QuadtreeNodes", "level_factors", "pilot_samples", "refine_prediction"]

Floats = NDArray[np.float64]

PILOT_SHARE = 0.15
"""Fraction of the budget for pilot samples, which measure the accuracy of coarser levels."""

PRIOR_SAMPLES = 2.0
"""Weight of the prior that coarser levels are worthless, in pilot samples."""


class QuadtreeNodes:
    """A quadtree over a grid: the nodes of each level are twice as wide, at twice the scale."""

    def __init__(self, context: PlanContext, grid: SamplingGrid, depth: int) -> None:
        main, scale, halo = context.main, grid.patches[0].scale, grid.patches[0].halo
        self.first = int(grid.ys[0] // grid.cell), int(grid.xs[0] // grid.cell)
        self.scales = [scale * 2**level for level in range(depth + 1)]
        self.patches: list[list[Patch]] = [list(grid.patches)]
        self.costs: list[Floats] = []
        for level in range(depth + 1):
            ys, xs = (
                edges[[*np.flatnonzero(np.diff(blocks(n, first, level), prepend=-1)), n]]
                for edges, n, first in zip((grid.ys, grid.xs), grid.shape, self.first, strict=True)
            )
            if level:
                self.patches.append(
                    [
                        Patch(
                            Rect(int(y), int(x), int(y1 - y), int(x1 - x)),
                            self.scales[level],
                            halo,
                        )
                        for y, y1 in pairwise(ys)
                        for x, x1 in pairwise(xs)
                    ]
                )
            costs = [main.flops(*input_shape(main, p, context.rect)) for p in self.patches[level]]
            self.costs.append(np.array(costs).reshape(len(ys) - 1, len(xs) - 1))


def pilot_samples(
    sampler: TwoPhaseSampler, tree: QuadtreeNodes, rng: np.random.Generator, floor: float
) -> Generator[Request, Response, tuple[list[float], list[float]]]:
    """Measure a few cells, drawn at random, at every level.

    Returns
    -------
    factors : list of float
        Factor by level from its predictions to those at full resolution.
    residuals : list of float
        Remaining fraction of the squared error of the scout's prediction, by level.
    """
    grid, levels = sampler.grid, range(len(tree.scales))
    chain_cost = sum(grid.max_cost / 2**level for level in levels)
    n = min(len(grid.patches), int(sampler.remaining * PILOT_SHARE / chain_cost))
    p = probabilities(sampler.prediction.priority, floor)
    cells = [int(cell) for cell in draw(p, n, rng)]
    halo = grid.patches[0].halo
    # Of shares, whose sum is known, the error is that of all classes.
    shares = sampler.context.main.card.has_shares
    counts = np.zeros((len(tree.scales), n, sampler.prediction.values.shape[1] if shares else 1))
    for level in levels:
        if not n:
            break
        patches = tuple(Patch(grid.patches[i].core, tree.scales[level], halo) for i in cells)
        response = yield PatchRequest("main", patches, target="output" if level == 0 else None)
        sampler.update_budget(response)
        if sampler.stop:
            break
        for j, (cell, result) in enumerate(zip(cells, response.results, strict=True)):
            value = sampler.value_of(result, cell)
            counts[level, j] = np.nan_to_num(value) if shares else value.sum()
            if level == 0:
                sampler.measured[cell] = value
    weights = 1 / p[cells]
    if shares:
        return share_factors(counts, weights, cell_sizes(sampler)[cells])
    if not sampler.prediction.calibrated and n:
        sampler.prediction = calibrated_prediction(sampler, cells, weights)
    return level_factors(counts[..., 0], weights, sampler.prediction.values[cells].sum(axis=1))


def share_factors(
    values: Floats, weights: Floats, sizes: Floats
) -> tuple[list[float], list[float]]:
    """Return the factor and the residual of each level for shares or means.

    All factors are 1, so that shares still sum to one. The prediction is the mean of all cells.

    Parameters
    ----------
    values : ndarray, shape (levels, n, k)
        Amounts of each cell by level.
    weights, sizes : ndarray, shape (n,)
        Inverse probability of each cell to be drawn, and its size.
    """
    exact, n = values[0], values.shape[1]
    weighted = float(weights @ sizes)
    mean = np.outer(sizes, weights @ exact / weighted) if weighted else exact
    before = float(weights @ ((mean - exact) ** 2).sum(axis=1))
    after = np.array([float(weights @ ((each - exact) ** 2).sum(axis=1)) for each in values[1:]])
    prior = PRIOR_SAMPLES * before / max(n, 1)
    residuals = np.minimum(1.0, (after + prior) / (before + prior)) if before else after * 0 + 1
    return [1.0] * len(values), [0.0, *residuals.tolist()]


def level_factors(
    counts: Floats, weights: Floats, predicted: Floats
) -> tuple[list[float], list[float]]:
    """Return the factor and the residual of each level.

    Parameters
    ----------
    counts : ndarray, shape (levels, n)
        Measurements of each cell by level; the first is full resolution.
    weights : ndarray, shape (n,)
        Inverse probability of each cell to be drawn.
    predicted : ndarray, shape (n,)
        The scout's predictions.

    Returns
    -------
    factors, residuals : list of float
        See `pilot_samples`.
    """
    exact, n = counts[0], len(predicted)
    before = float(weights @ (predicted - exact) ** 2)
    factors, residuals = [1.0], [0.0]
    for coarse in counts[1:]:
        squared = float(weights @ coarse**2)
        factor = float(weights @ (coarse * exact)) / squared if squared > 0 else 0.0
        after = float(weights @ (factor * coarse - exact) ** 2)
        prior = PRIOR_SAMPLES * before / max(n, 1)
        residuals.append(min(1.0, (after + prior) / (before + prior)) if before > 0 else 1.0)
        factors.append(factor)
    return factors, residuals


def calibrated_prediction(
    sampler: TwoPhaseSampler, cells: list[int], weights: Floats
) -> CoarsePrediction:
    """Return a prediction in the unit of the estimate, by regression of measurements on scores."""
    old = sampler.prediction
    scores = old.values[cells]
    values = np.array([sampler.measured[cell] for cell in cells if cell in sampler.measured])
    if len(values) < len(cells):
        return old
    squared = weights @ scores**2
    factor = np.divide(
        weights @ (scores * values), squared, out=np.zeros_like(squared), where=squared > 0
    )
    return CoarsePrediction(old.values * factor, old.spread, calibrated=True)


def refine_prediction(
    sampler: TwoPhaseSampler, results: Sequence[PatchResult], factor: float, residual: float
) -> None:
    """Update the prediction with measurements of coarser nodes."""
    grid, old = sampler.grid, sampler.prediction
    k, additive = old.values.shape[1], sampler.context.main.card.counts
    values, spread = old.values.copy(), old.spread.copy()
    sums = resample_onto(results, grid.ys, grid.xs, sampler.context.rect).reshape(-1, len(values))
    for result in results:
        if np.isnan(result.value).any():
            continue
        core = result.patch.core
        inside = grid.cells_within(core)
        if additive:
            values[inside] = factor * sums[:k, inside].T
        else:
            total = cell_value(sampler.context, result.patch, np.asarray(result.value[:k], float))
            values[inside] = factor * np.outer(grid.areas[inside] / core.area, total)
        spread[inside] *= math.sqrt(residual)
    sampler.prediction = replace(old, values=values, spread=spread)
