"""Where ``main`` looks closer, by each method.

Each looks at what it chose, and returns how many draws at random are to follow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator

import numpy as np
from numpy.typing import NDArray

from hrviewer.strategies.estimation.sampling_grid import resample_onto
from hrviewer.strategies.estimation.two_phase import TwoPhaseSampler
from hrviewer.strategies.protocol import PatchRequest, PatchResult, Publish, Request, Response
from hrviewer.strategies.tiling import BATCH_SIZE, batches, tiles
from hrviewer.strategies.zoom.params import ZoomParams
from hrviewer.strategies.zoom.quadtree_nodes import QuadtreeNodes, pilot_samples, refine_prediction
from hrviewer.strategies.zoom.quadtree_search import grow

__all__ = ["SELECTORS"]

Floats = NDArray[np.float64]

MIN_RANDOM = 4
"""Random looks to take beside chosen ones, at least, or as many as a third."""

SelectionPlan = Generator[Request, Response, int]
Selector = Callable[[TwoPhaseSampler, ZoomParams, np.random.Generator], SelectionPlan]


def _topk(closer: TwoPhaseSampler, params: ZoomParams, rng: np.random.Generator) -> SelectionPlan:
    share = params.share
    most = closer.affordable
    n, draws = _split_draws(most, params.k or most, share)
    yield from closer.measure(_ranked(closer.prediction.priority)[:n], closer.prediction.priority)
    return draws


def _threshold(
    closer: TwoPhaseSampler, params: ZoomParams, rng: np.random.Generator
) -> SelectionPlan:
    reach, share = closer.prediction.priority, params.share
    most = closer.affordable
    density = reach / closer.grid.areas
    chosen = _ranked(reach)
    chosen = chosen[density[chosen] >= params.threshold * density.max()]
    n, draws = _split_draws(most, len(chosen), share)
    yield from closer.measure(chosen[:n], reach)
    return draws


def _policy(closer: TwoPhaseSampler, params: ZoomParams, rng: np.random.Generator) -> SelectionPlan:
    """Look where the policy network would, the surest places first."""
    scene, leaves, share = closer.context, closer.grid, params.share
    role, scale = scene.models["policy"], scene.scale_of("policy")
    handles: list[PatchResult] = []
    for asked in batches(tiles(role, scene.region, scale)):
        result = yield PatchRequest("policy", asked)
        handles += result.results
        closer.update_budget(result)
        if closer.stop:
            return 0
    # Chances, by area over each leaf.
    cells = leaves.areas / (role.stride * scale) ** 2
    chance = resample_onto(handles, leaves.ys, leaves.xs, scene.rect).sum(axis=0).ravel() / cells
    yield Publish("saliency", *leaves.as_map(chance))
    most = closer.affordable
    chosen = _ranked(chance)
    n, draws = _split_draws(most, int(np.count_nonzero(chance >= 0.5)), share)
    yield from closer.measure(chosen[:n], chance)
    return draws


def _quadtree(
    closer: TwoPhaseSampler, params: ZoomParams, rng: np.random.Generator
) -> SelectionPlan:
    """Try a few leaves at every level; grow the best tree; guess anew from what it saw."""
    scene, leaves, share = closer.context, closer.grid, params.share
    tree = QuadtreeNodes(scene, leaves, params.depth)
    factors, remains = yield from pilot_samples(closer, tree, rng, params.floor)
    if closer.stop:
        return 0
    variance = closer.prediction.spread**2
    variance[list(closer.measured)] = 0
    left = closer.remaining
    looks = grow(
        variance.reshape(leaves.shape), tree.first, remains, tree.costs, left * (1 - share)
    )
    for level in reversed(range(1, len(looks))):
        nodes = np.flatnonzero(looks[level])
        handles: list[PatchResult] = []
        for i in range(0, len(nodes), BATCH_SIZE):
            patches = tuple(tree.patches[level][j] for j in nodes[i : i + BATCH_SIZE])
            result = yield PatchRequest("main", patches, target="output")
            handles += result.results
            closer.update_budget(result)
            if closer.stop:
                break
        refine_prediction(closer, handles, factors[level], remains[level])
        if closer.stop:
            return 0
    places = np.flatnonzero(looks[0])
    places = places[np.argsort(-variance[places], kind="stable")]
    yield from closer.measure(places, closer.prediction.priority)
    return closer.affordable if share else 0


SELECTORS: dict[str, Selector] = {
    "topk": _topk,
    "threshold": _threshold,
    "policy": _policy,
    "quadtree": _quadtree,
}


def _ranked(scores: Floats) -> NDArray[np.intp]:
    return np.argsort(-scores, kind="stable")


def _split_draws(most: int, wanted: int, share: float) -> tuple[int, int]:
    """Return how many of the wanted places are looked at, and how many are drawn at random.

    Of `most` looks `share` is drawn, or of those that are taken; a few at least, also where few or
    none are wanted, to tell what the guess is worth.
    """
    if not share:
        return min(wanted, most), 0
    few = min(MIN_RANDOM, -(-most // 3))
    chosen = min(wanted, most - max(few, math.floor(most * share)))
    return chosen, min(most - chosen, max(few, math.ceil(chosen * share / (1 - share))))
