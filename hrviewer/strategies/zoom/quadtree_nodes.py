"""A quadtree's nodes over an image: looks at them, and what those say of the leaves below."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from hrviewer.geometry import Patch, Rect
from hrviewer.strategies.estimation.sampling import draw, probabilities
from hrviewer.strategies.estimation.sampling_grid import Leaves, content, gather
from hrviewer.strategies.estimation.two_phase import Closer, Guess
from hrviewer.strategies.protocol import Handle, Look, Request, Result, Scene
from hrviewer.strategies.tiling import input_shape
from hrviewer.strategies.zoom.quadtree_search import blocks

__all__ = ["Nodes", "learned", "refine", "trials"]

Floats = NDArray[np.float64]

TRIALS = 0.15
"""Part of a quadtree's budget that tells what looks at coarser levels are worth."""

DOUBT = 2.0
"""How many trials the belief is worth that a coarser look is worth nothing."""


class Nodes:
    """A quadtree over leaves: at each level, nodes twice as wide, seen at twice the scale."""

    def __init__(self, scene: Scene, leaves: Leaves, depth: int) -> None:
        main, scale, halo = scene.main, leaves.patches[0].scale, leaves.patches[0].halo
        self.first = int(leaves.ys[0] // leaves.cell), int(leaves.xs[0] // leaves.cell)
        self.scales = [scale * 2**level for level in range(depth + 1)]
        self.patches: list[list[Patch]] = [list(leaves.patches)]
        self.costs: list[Floats] = []
        for level in range(depth + 1):
            ys, xs = (
                edges[[*np.flatnonzero(np.diff(blocks(n, first, level), prepend=-1)), n]]
                for edges, n, first in zip(
                    (leaves.ys, leaves.xs), leaves.shape, self.first, strict=True
                )
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
            costs = [main.flops(*input_shape(main, p, scene.rect)) for p in self.patches[level]]
            self.costs.append(np.array(costs).reshape(len(ys) - 1, len(xs) - 1))


def trials(
    closer: Closer, tree: Nodes, rng: np.random.Generator, floor: float
) -> Generator[Request, Result, tuple[list[float], list[float]]]:
    """Look at a few leaves, drawn at random, at every level.

    Returns
    -------
    factors : list of float
        By what a look at each level is to be multiplied to guess what full resolution sees.
    remains : list of float
        Which part of the squared error of the scout's guess is left then.
    """
    leaves, levels = closer.leaves, range(len(tree.scales))
    chain = sum(leaves.dearest / 2**level for level in levels)
    n = min(len(leaves.patches), int(closer.left * TRIALS / chain))
    p = probabilities(closer.guess.reach, floor)
    places = [int(place) for place in draw(p, n, rng)]
    halo = leaves.patches[0].halo
    counts = np.zeros((len(tree.scales), n))
    for level in levels:
        if not n:
            break
        patches = tuple(Patch(leaves.patches[i].core, tree.scales[level], halo) for i in places)
        result = yield Look("main", patches, into="output" if level == 0 else None)
        closer.take(result)
        if closer.stop:
            break
        for j, (place, handle) in enumerate(zip(places, result.handles, strict=True)):
            value = closer.read(handle, place)
            counts[level, j] = value.sum()
            if level == 0:
                closer.seen[place] = value
    weights = 1 / p[places]
    if not closer.guess.counts and n:
        closer.guess = worth(closer, places, weights)
    return learned(counts, weights, closer.guess.values[places].sum(axis=1))


def learned(counts: Floats, weights: Floats, guessed: Floats) -> tuple[list[float], list[float]]:
    """Return what looks at each level are worth.

    Parameters
    ----------
    counts : ndarray, shape (levels, n)
        What each place was seen to hold; the first level sees all there is.
    weights : ndarray, shape (n,)
        One over how likely each was to be tried.
    guessed : ndarray, shape (n,)
        What the scout thought they hold.

    Returns
    -------
    factors, remains : list of float
        See `trials`.
    """
    truth, n = counts[0], len(guessed)
    before = float(weights @ (guessed - truth) ** 2)
    factors, remains = [1.0], [0.0]
    for seen in counts[1:]:
        squared = float(weights @ seen**2)
        factor = float(weights @ (seen * truth)) / squared if squared > 0 else 0.0
        after = float(weights @ (factor * seen - truth) ** 2)
        doubt = DOUBT * before / max(n, 1)
        remains.append(min(1.0, (after + doubt) / (before + doubt)) if before > 0 else 1.0)
        factors.append(factor)
    return factors, remains


def worth(closer: Closer, places: list[int], weights: Floats) -> Guess:
    """Return a guess in the answer's unit, made of scores by regression on looks."""
    old = closer.guess
    scores = old.values[places]
    values = np.array([closer.seen[place] for place in places if place in closer.seen])
    if len(values) < len(places):
        return old
    squared = weights @ scores**2
    factor = np.divide(
        weights @ (scores * values), squared, out=np.zeros_like(squared), where=squared > 0
    )
    return Guess(old.values * factor, old.spread, counts=True)


def refine(closer: Closer, handles: Sequence[Handle], factor: float, remains: float) -> None:
    """Guess anew where a coarser look was taken."""
    leaves, old = closer.leaves, closer.guess
    k, additive = old.values.shape[1], closer.scene.main.card.task in ("density", "detection")
    values, spread = old.values.copy(), old.spread.copy()
    sums = gather(handles, leaves.ys, leaves.xs, closer.scene.rect).reshape(-1, len(values))
    for handle in handles:
        if np.isnan(handle.value).any():
            continue
        core = handle.patch.core
        inside = leaves.within(core)
        if additive:
            values[inside] = factor * sums[:k, inside].T
        else:
            whole = content(closer.scene, handle.patch, np.asarray(handle.value[:k], float))
            values[inside] = factor * np.outer(leaves.areas[inside] / core.area, whole)
        spread[inside] *= math.sqrt(remains)
    closer.guess = Guess(values, spread, old.counts)
