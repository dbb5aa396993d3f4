"""The cheap look everywhere: what it guesses each leaf holds, and how unsure it is."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hrviewer.geometry import snap_scale
from hrviewer.strategies.estimation.sampling_grid import Leaves, gather
from hrviewer.strategies.estimation.two_phase import Guess
from hrviewer.strategies.protocol import Handle, Into, Look, Request, Result, Scene
from hrviewer.strategies.tiling import rounds, tiles

__all__ = ["Scouted", "guess", "look_over", "scale_of_scout", "scout", "scouts_counts"]

Floats = NDArray[np.float64]

SHRINK = 8.0
"""How much a scout's picture is shrunk where its card does not say."""


@dataclass(frozen=True)
class Scouted:
    """What a cheap look everywhere gave.

    Attributes
    ----------
    handles : tuple of Handle
        In reading order.
    left : float
        FLOPs that are left.
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


def scale_of_scout(scene: Scene, shrink: float = 0.0) -> float:
    """Return the scale at which the scout sees the image; `shrink` is the person's, if not 0."""
    if shrink or scene.roles["scout"].card.input.downsample == 1:
        return snap_scale(scene.native * (shrink or SHRINK))
    return scene.scale_of("scout")


def look_over(
    scene: Scene, name: str, scale: float, into: Into | None = None
) -> Generator[Request, Result, Scouted]:
    """Look at the whole region with a role, as far as the budget goes."""
    handles: list[Handle] = []
    result = Result(left=scene.budget)
    for asked in rounds(tiles(scene.roles[name], scene.region, scale)):
        result = yield Look(name, asked, into=into)
        handles += result.handles
        if result.stop:
            break
    return Scouted(tuple(handles), result.left, result.stop)


def scout(scene: Scene, shrink: float) -> Generator[Request, Result, Scouted]:
    """Look at the whole region with the scout."""
    into: Into = "output" if scouts_counts(scene) else "saliency"
    return (yield from look_over(scene, "scout", scale_of_scout(scene, shrink), into))


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
