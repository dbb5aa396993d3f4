"""Where ``main`` looks closer, by each method.

Each looks at what it chose, and returns how many draws at random are to follow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator

import numpy as np
from numpy.typing import NDArray

from hrviewer.strategies.estimation.sampling_grid import gather
from hrviewer.strategies.estimation.two_phase import Closer
from hrviewer.strategies.protocol import Handle, Look, Request, Result, Show
from hrviewer.strategies.tiling import ROUND, rounds, tiles
from hrviewer.strategies.zoom.params import ZoomParams
from hrviewer.strategies.zoom.quadtree_nodes import Nodes, refine, trials
from hrviewer.strategies.zoom.quadtree_search import grow

__all__ = ["CHOOSE"]

Floats = NDArray[np.float64]

FEW = 4
"""Random looks to take beside chosen ones, at least, or as many as a third."""

Choosing = Generator[Request, Result, int]
Method = Callable[[Closer, ZoomParams, np.random.Generator], Choosing]


def _topk(closer: Closer, params: ZoomParams, rng: np.random.Generator) -> Choosing:
    share = params.share
    most = closer.affordable
    n, draws = _split(most, params.k or most, share)
    yield from closer.look(_best(closer.guess.reach)[:n], closer.guess.reach)
    return draws


def _threshold(closer: Closer, params: ZoomParams, rng: np.random.Generator) -> Choosing:
    reach, share = closer.guess.reach, params.share
    most = closer.affordable
    density = reach / closer.leaves.areas
    chosen = _best(reach)
    chosen = chosen[density[chosen] >= params.threshold * density.max()]
    n, draws = _split(most, len(chosen), share)
    yield from closer.look(chosen[:n], reach)
    return draws


def _policy(closer: Closer, params: ZoomParams, rng: np.random.Generator) -> Choosing:
    """Look where the policy network would, the surest places first."""
    scene, leaves, share = closer.scene, closer.leaves, params.share
    role, scale = scene.roles["policy"], scene.scale_of("policy")
    handles: list[Handle] = []
    for asked in rounds(tiles(role, scene.region, scale)):
        result = yield Look("policy", asked)
        handles += result.handles
        closer.take(result)
        if closer.stop:
            return 0
    # Chances, by area over each leaf.
    cells = leaves.areas / (role.stride * scale) ** 2
    chance = gather(handles, leaves.ys, leaves.xs, scene.rect).sum(axis=0).ravel() / cells
    yield Show("saliency", *leaves.laid(chance))
    most = closer.affordable
    chosen = _best(chance)
    n, draws = _split(most, int(np.count_nonzero(chance >= 0.5)), share)
    yield from closer.look(chosen[:n], chance)
    return draws


def _quadtree(closer: Closer, params: ZoomParams, rng: np.random.Generator) -> Choosing:
    """Try a few leaves at every level; grow the best tree; guess anew from what it saw."""
    scene, leaves, share = closer.scene, closer.leaves, params.share
    tree = Nodes(scene, leaves, params.depth)
    factors, remains = yield from trials(closer, tree, rng, params.floor)
    if closer.stop:
        return 0
    variance = closer.guess.spread**2
    variance[list(closer.seen)] = 0
    left = closer.left
    looks = grow(
        variance.reshape(leaves.shape), tree.first, remains, tree.costs, left * (1 - share)
    )
    for level in reversed(range(1, len(looks))):
        nodes = np.flatnonzero(looks[level])
        handles: list[Handle] = []
        for i in range(0, len(nodes), ROUND):
            patches = tuple(tree.patches[level][j] for j in nodes[i : i + ROUND])
            result = yield Look("main", patches, into="output")
            handles += result.handles
            closer.take(result)
            if closer.stop:
                break
        refine(closer, handles, factors[level], remains[level])
        if closer.stop:
            return 0
    places = np.flatnonzero(looks[0])
    places = places[np.argsort(-variance[places], kind="stable")]
    yield from closer.look(places, closer.guess.reach)
    return closer.affordable if share else 0


CHOOSE: dict[str, Method] = {
    "topk": _topk,
    "threshold": _threshold,
    "policy": _policy,
    "quadtree": _quadtree,
}


def _best(scores: Floats) -> NDArray[np.intp]:
    return np.argsort(-scores, kind="stable")


def _split(most: int, wanted: int, share: float) -> tuple[int, int]:
    """Return how many of the wanted places are looked at, and how many are drawn at random.

    Of `most` looks `share` is drawn, or of those that are taken; a few at least, also where few or
    none are wanted, to tell what the guess is worth.
    """
    if not share:
        return min(wanted, most), 0
    few = min(FEW, -(-most // 3))
    chosen = min(wanted, most - max(few, math.floor(most * share)))
    return chosen, min(most - chosen, max(few, math.ceil(chosen * share / (1 - share))))
