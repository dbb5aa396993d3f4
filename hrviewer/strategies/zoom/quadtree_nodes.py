"""A quadtree's nodes over an image: looks at them, and what those say of the leaves below."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from hrviewer.geometry import Patch, Rect
from hrviewer.strategies.estimation.sampling import draw, probabilities
from hrviewer.strategies.estimation.sampling_grid import SamplingGrid, cell_value, resample_onto
from hrviewer.strategies.estimation.two_phase import CoarsePrediction, TwoPhaseSampler
from hrviewer.strategies.protocol import PatchRequest, PatchResult, PlanContext, Request, Response
from hrviewer.strategies.tiling import input_shape
from hrviewer.strategies.zoom.quadtree_search import blocks

__all__ = ["QuadtreeNodes", "level_factors", "pilot_samples", "refine_prediction"]

Floats = NDArray[np.float64]

PILOT_SHARE = 0.15
"""Part of a quadtree's budget that tells what looks at coarser levels are worth."""

PRIOR_SAMPLES = 2.0
"""How many trials the belief is worth that a coarser look is worth nothing."""


class QuadtreeNodes:
    """A quadtree over leaves: at each level, nodes twice as wide, seen at twice the scale."""

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
    """Look at a few leaves, drawn at random, at every level.

    Returns
    -------
    factors : list of float
        By what a look at each level is to be multiplied to guess what full resolution sees.
    remains : list of float
        Which part of the squared error of the scout's guess is left then.
    """
    leaves, levels = sampler.grid, range(len(tree.scales))
    chain = sum(leaves.max_cost / 2**level for level in levels)
    n = min(len(leaves.patches), int(sampler.remaining * PILOT_SHARE / chain))
    p = probabilities(sampler.prediction.priority, floor)
    places = [int(place) for place in draw(p, n, rng)]
    halo = leaves.patches[0].halo
    counts = np.zeros((len(tree.scales), n))
    for level in levels:
        if not n:
            break
        patches = tuple(Patch(leaves.patches[i].core, tree.scales[level], halo) for i in places)
        result = yield PatchRequest("main", patches, target="output" if level == 0 else None)
        sampler.update_budget(result)
        if sampler.stop:
            break
        for j, (place, handle) in enumerate(zip(places, result.results, strict=True)):
            value = sampler.value_of(handle, place)
            counts[level, j] = value.sum()
            if level == 0:
                sampler.measured[place] = value
    weights = 1 / p[places]
    if not sampler.prediction.calibrated and n:
        sampler.prediction = calibrated_prediction(sampler, places, weights)
    return level_factors(counts, weights, sampler.prediction.values[places].sum(axis=1))


def level_factors(
    counts: Floats, weights: Floats, predicted: Floats
) -> tuple[list[float], list[float]]:
    """Return what looks at each level are worth.

    Parameters
    ----------
    counts : ndarray, shape (levels, n)
        What each place was seen to hold; the first level sees all there is.
    weights : ndarray, shape (n,)
        One over how likely each was to be tried.
    predicted : ndarray, shape (n,)
        What the scout thought they hold.

    Returns
    -------
    factors, remains : list of float
        See `trials`.
    """
    truth, n = counts[0], len(predicted)
    before = float(weights @ (predicted - truth) ** 2)
    factors, remains = [1.0], [0.0]
    for seen in counts[1:]:
        squared = float(weights @ seen**2)
        factor = float(weights @ (seen * truth)) / squared if squared > 0 else 0.0
        after = float(weights @ (factor * seen - truth) ** 2)
        doubt = PRIOR_SAMPLES * before / max(n, 1)
        remains.append(min(1.0, (after + doubt) / (before + doubt)) if before > 0 else 1.0)
        factors.append(factor)
    return factors, remains


def calibrated_prediction(
    sampler: TwoPhaseSampler, places: list[int], weights: Floats
) -> CoarsePrediction:
    """Return a guess in the answer's unit, made of scores by regression on looks."""
    old = sampler.prediction
    scores = old.values[places]
    values = np.array([sampler.measured[place] for place in places if place in sampler.measured])
    if len(values) < len(places):
        return old
    squared = weights @ scores**2
    factor = np.divide(
        weights @ (scores * values), squared, out=np.zeros_like(squared), where=squared > 0
    )
    return CoarsePrediction(old.values * factor, old.spread, calibrated=True)


def refine_prediction(
    sampler: TwoPhaseSampler, results: Sequence[PatchResult], factor: float, residual: float
) -> None:
    """Guess anew where a coarser look was taken."""
    leaves, old = sampler.grid, sampler.prediction
    k, additive = old.values.shape[1], sampler.context.main.card.task in ("density", "detection")
    values, spread = old.values.copy(), old.spread.copy()
    sums = resample_onto(results, leaves.ys, leaves.xs, sampler.context.rect).reshape(
        -1, len(values)
    )
    for handle in results:
        if np.isnan(handle.value).any():
            continue
        core = handle.patch.core
        inside = leaves.cells_within(core)
        if additive:
            values[inside] = factor * sums[:k, inside].T
        else:
            whole = cell_value(sampler.context, handle.patch, np.asarray(handle.value[:k], float))
            values[inside] = factor * np.outer(leaves.areas[inside] / core.area, whole)
        spread[inside] *= math.sqrt(residual)
    sampler.prediction = CoarsePrediction(values, spread, old.calibrated)
