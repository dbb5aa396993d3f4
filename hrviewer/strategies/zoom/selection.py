"""Selection of the cells that ``main`` measures, by method.

Each selector measures its cells, and returns the number of random draws that are to follow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator

import numpy as np
from numpy.typing import NDArray

from hrviewer.strategies.estimation.sampling_grid import resample_onto
from hrviewer.strategies.estimation.two_phase import TwoPhaseSampler
from hrviewer.strategies.protocol import PatchRequest, PatchResult, Publish, Request, Response
from hrviewer.strategies.tiling import batches, tiles
from hrviewer.strategies.zoom.params import ZoomParams
from hrviewer.strategies.zoom.quadtree_nodes import QuadtreeNodes, pilot_samples, refine_prediction
from hrviewer.strategies.zoom.quadtree_search import grow

__all__ = ["SELECTORS"]

Floats = NDArray[np.float64]

MIN_RANDOM = 4
"""Minimum number of random draws beside selected cells; at most a third of all."""

SelectionPlan = Generator[Request, Response, int]
Selector = Callable[[TwoPhaseSampler, ZoomParams, np.random.Generator], SelectionPlan]


def _topk(sampler: TwoPhaseSampler, params: ZoomParams, rng: np.random.Generator) -> SelectionPlan:
    share = params.share
    affordable = sampler.affordable
    n, draws = _split_draws(affordable, params.k or affordable, share)
    priority = sampler.prediction.priority
    yield from sampler.measure(_ranked(priority)[:n], priority, later=sampler.later(share))
    return draws


def _threshold(
    sampler: TwoPhaseSampler, params: ZoomParams, rng: np.random.Generator
) -> SelectionPlan:
    priority, share = sampler.prediction.priority, params.share
    affordable = sampler.affordable
    density = priority / sampler.grid.areas
    selected = _ranked(priority)
    selected = selected[density[selected] >= params.threshold * density.max()]
    n, draws = _split_draws(affordable, len(selected), share)
    yield from sampler.measure(selected[:n], priority, later=sampler.later(share))
    return draws


def _policy(
    sampler: TwoPhaseSampler, params: ZoomParams, rng: np.random.Generator
) -> SelectionPlan:
    """Measure the cells that the policy network selects, the most probable first."""
    context, grid, share = sampler.context, sampler.grid, params.share
    policy, scale = context.models["policy"], context.scale_of("policy")
    results: list[PatchResult] = []
    for batch in batches(tiles(policy, context.region, scale)):
        response = yield PatchRequest("policy", batch)
        results += response.results
        sampler.update_budget(response)
        if sampler.stop:
            return 0
    # Selection probability: the mean over each cell.
    cells = grid.areas / (policy.stride * scale) ** 2
    probability = resample_onto(results, grid.ys, grid.xs, context.rect).sum(axis=0).ravel() / cells
    yield Publish("saliency", *grid.as_map(probability))
    affordable = sampler.affordable
    selected = _ranked(probability)
    n, draws = _split_draws(affordable, int(np.count_nonzero(probability >= 0.5)), share)
    yield from sampler.measure(selected[:n], probability, later=sampler.later(share))
    return draws


def _quadtree(
    sampler: TwoPhaseSampler, params: ZoomParams, rng: np.random.Generator
) -> SelectionPlan:
    """Sample a few cells at every level, grow the best tree, update the prediction from it."""
    context, grid, share = sampler.context, sampler.grid, params.share
    tree = QuadtreeNodes(context, grid, params.depth)
    factors, residuals = yield from pilot_samples(sampler, tree, rng, params.floor)
    if sampler.stop:
        return 0
    variance = sampler.prediction.spread**2
    variance[list(sampler.measured)] = 0
    remaining, later = sampler.remaining, sampler.later(share)
    selected = grow(
        variance.reshape(grid.shape), tree.first, residuals, tree.costs, remaining * (1 - share)
    )
    for level in reversed(range(1, len(selected))):
        nodes = np.flatnonzero(selected[level])
        results: list[PatchResult] = []
        wanted = [tree.patches[level][j] for j in nodes]
        for patches in sampler.batches(wanted, float(tree.costs[level].max()), later):
            response = yield PatchRequest("main", tuple(patches), target="output")
            results += response.results
            sampler.update_budget(response)
        refine_prediction(sampler, results, factors[level], residuals[level])
        if sampler.stop:
            return 0
    cells = np.flatnonzero(selected[0])
    cells = cells[np.argsort(-variance[cells], kind="stable")]
    yield from sampler.measure(cells, sampler.prediction.priority, later=later)
    return sampler.affordable if share else 0


SELECTORS: dict[str, Selector] = {
    "topk": _topk,
    "threshold": _threshold,
    "policy": _policy,
    "quadtree": _quadtree,
}


def _ranked(scores: Floats) -> NDArray[np.intp]:
    return np.argsort(-scores, kind="stable")


def _split_draws(affordable: int, wanted: int, share: float) -> tuple[int, int]:
    """Return how many of the wanted cells are measured, and how many are drawn at random.

    The fraction `share` of all measurements is drawn at random; at least a few, even if few or
    none are wanted, to correct the prediction.
    """
    if not share:
        return min(wanted, affordable), 0
    minimum = min(MIN_RANDOM, -(-affordable // 3))
    selected = min(wanted, affordable - max(minimum, math.floor(affordable * share)))
    return selected, min(
        affordable - selected, max(minimum, math.ceil(selected * share / (1 - share)))
    )
