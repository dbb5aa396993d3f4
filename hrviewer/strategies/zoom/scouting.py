"""The cheap look everywhere: what it guesses each leaf holds, and how unsure it is."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hrviewer.geometry import snap_scale
from hrviewer.strategies.protocol import Handle, Look, Request, Result, Scene
from hrviewer.strategies.survey.closer import Guess
from hrviewer.strategies.survey.leaves import Leaves, gather
from hrviewer.strategies.tiling import rounds, tiles

__all__ = ["Scouted", "guess", "scout", "scouts_counts"]

Floats = NDArray[np.float64]

SHRINK = 8.0
"""How much a scout's picture is shrunk where its card does not say."""


@dataclass(frozen=True)
class Scouted:
    """The scout's looks.

    Attributes
    ----------
    handles : tuple of Handle
        In reading order.
    stop : bool
        Whether the budget ended.
    """

    handles: tuple[Handle, ...]
    left: float
    stop: bool


def scouts_counts(scene: Scene) -> bool:
    """Tell whether the scout answers the question itself, at a scale that it was taught at."""
    main, card = scene.main.card, scene.roles["scout"].card
    taught = card.input.downsample > 1
    return card.task == main.task == "density" and card.classes == main.classes and taught


def scout(scene: Scene, shrink: float) -> Generator[Request, Result, Scouted]:
    """Look at the whole region with the scout."""
    role = scene.roles["scout"]
    scale = scene.scale_of("scout")
    if shrink or role.card.input.downsample == 1:
        scale = snap_scale(scene.native * (shrink or SHRINK))
    handles: list[Handle] = []
    result = Result(left=scene.budget)
    for asked in rounds(tiles(role, scene.region, scale)):
        result = yield Look("scout", asked, into="output" if scouts_counts(scene) else "saliency")
        handles += result.handles
        if result.stop:
            break
    return Scouted(tuple(handles), result.left, result.stop)


def guess(scene: Scene, scouted: Scouted, leaves: Leaves) -> Guess:
    """Return what the scout says of each leaf."""
    k = scene.main.card.answers
    sums = gather(scouted.handles, leaves.ys, leaves.xs, scene.rect)
    sums = sums.reshape(len(sums), -1)
    if scouts_counts(scene):
        values = sums[:k].T
        variance = sums[k : 2 * k].sum(axis=0) if len(sums) >= 2 * k else values.sum(axis=1)
        return Guess(values, np.sqrt(np.maximum(variance, 0)), counts=True)
    score = np.maximum(sums.mean(axis=0), 0)
    return Guess(np.repeat(score[:, None], k, axis=1), score, counts=False)
