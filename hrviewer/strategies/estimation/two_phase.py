"""Closer looks at leaves, and what they teach of the others.

A cheap network has guessed what each leaf holds. `Closer` looks with ``main``, and `corrected` has
some of the others drawn at random, which say what the guesses there are worth.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hrviewer.strategies.estimation.intervals import Interval
from hrviewer.strategies.estimation.regression import Factor, calibrate, inclusion, want_of_context
from hrviewer.strategies.estimation.sampling import draw, probabilities
from hrviewer.strategies.estimation.sampling_grid import Leaves, affordable, content
from hrviewer.strategies.protocol import Handle, Look, Request, Result, Scene, Show
from hrviewer.strategies.tiling import ROUND

__all__ = ["Closer", "Corrected", "Guess", "corrected", "pace"]

Floats = NDArray[np.float64]

UPDATES = 12
"""How often, about, the interval is shown to shrink."""


@dataclass(frozen=True)
class Guess:
    """What a cheap network says of each leaf.

    Attributes
    ----------
    values : ndarray, shape (n, k)
        Counts per class; or scores, the same for every class.
    spread : ndarray, shape (n,)
        How unsure that is, up to a factor: the standard deviation of the sum over classes where
        the network gives variances, else the root of the count, else the score.
    counts : bool
        Whether `values` are in the answer's unit.
    """

    values: Floats
    spread: Floats
    counts: bool = True

    @property
    def reach(self) -> Floats:
        """What each leaf may well hold, ``(n,)``: its count and how unsure that is, or its score.

        Places are ranked by it: what surely holds much is worth a look as much as what is unsure.
        """
        return self.values.sum(axis=1) + self.spread if self.counts else self.spread


class Closer:
    """Looks by ``main``, and what they found.

    Parameters
    ----------
    scene : Scene
        What is known of the image.
    leaves : Leaves
        Where it may look.
    guess : Guess
        What is thought of them.
    left : float
        FLOPs that may be spent.
    stop : bool
        Whether the budget has ended already.

    Attributes
    ----------
    seen : dict of int to ndarray of shape (k,)
        What the leaves that were seen hold, in the order in which they were.
    failed : int
        Looks that gave nothing.
    """

    def __init__(
        self,
        scene: Scene,
        leaves: Leaves,
        guess: Guess,
        left: float = math.inf,
        stop: bool = False,
    ) -> None:
        self.scene, self.leaves, self.guess = scene, leaves, guess
        self.left, self.stop = left, stop
        self.seen: dict[int, Floats] = {}
        self.failed = 0

    @property
    def rest(self) -> NDArray[np.intp]:
        """Leaves that were not seen at full resolution."""
        there = np.ones(len(self.leaves.patches), bool)
        there[list(self.seen)] = False
        return np.flatnonzero(there)

    @property
    def known(self) -> Floats:
        """What was seen holds, ``(k,)``."""
        none = np.zeros(self.guess.values.shape[1])
        return np.asarray(sum(self.seen.values(), start=none))

    @property
    def affordable(self) -> int:
        """How many looks the budget still pays for."""
        return affordable(self.leaves, self.left)

    @property
    def uncertain(self) -> float:
        """By which part what was seen may be off, for want of context."""
        return want_of_context(self.leaves.patches[0].halo, self.scene.main.halo)

    def take(self, result: Result) -> None:
        """Note what the budget still holds."""
        self.left, self.stop = result.left, result.stop

    def read(self, handle: Handle, place: int) -> Floats:
        """Return what a leaf was seen to hold; what was guessed where the look failed."""
        k = self.scene.main.card.answers
        value = np.asarray(handle.value, float)[:k]
        if np.isfinite(value).all():
            return content(self.scene, handle.patch, value)
        self.failed += 1
        return self.guess.values[place] if self.guess.counts else np.zeros(k)

    def look(
        self,
        places: Sequence[int] | NDArray[np.intp],
        scores: Floats,
        order: Literal["any", "given"] = "any",
    ) -> Generator[Request, Result, None]:
        """Look at leaves at full resolution, chosen by scores ``(n,)`` of all leaves."""
        for i in range(0, len(places), ROUND):
            asked = [int(place) for place in places[i : i + ROUND]]
            result = yield Look(
                "main",
                tuple(self.leaves.patches[place] for place in asked),
                into="output",
                order=order,
                scores=tuple(min(float(scores[place]), 1e300) for place in asked),
            )
            self.take(result)
            for place, handle in zip(asked, result.handles, strict=False):
                self.seen[place] = self.read(handle, place)
            if self.stop:
                return


@dataclass(frozen=True)
class Corrected:
    """An answer of what was seen and of corrected guesses.

    Attributes
    ----------
    estimate : ndarray, shape (k,)
        Of the region.
    interval : tuple of float
        Of its sum, 95 %.
    drawn : int
        How many leaves were drawn.
    factor : Factor
        What a unit of guess was found to be worth.
    """

    estimate: Floats
    interval: Interval
    drawn: int
    factor: Factor


def corrected(
    closer: Closer, doubt: Floats, draws: int, rng: np.random.Generator, floor: float
) -> Generator[Request, Result, Corrected | None]:
    """Draw from what was not seen, and correct the guesses there by what was found.

    Parameters
    ----------
    closer : Closer
        What was seen so far, because it was chosen; its guess counts.
    doubt : ndarray, shape (n,)
        In proportion to which leaves are drawn.
    draws : int
        How many.
    rng, floor
        See `probabilities`.

    Returns
    -------
    Corrected or None
        None where the budget ended before anything was drawn.
    """
    guess, rest, chosen = closer.guess, closer.rest, len(closer.seen)
    p = probabilities(doubt[rest], floor)
    order = draw(p, draws, rng)
    step, found = pace(len(order)), None
    for i in range(0, len(order), step):
        yield from closer.look(rest[order[i : i + step]], doubt, "given")
        drawn = order[: len(closer.seen) - chosen]
        if not len(drawn):
            break
        places = rest[drawn]
        factor = calibrate(
            guess.values[places],
            np.array([closer.seen[int(place)] for place in places]),
            inclusion(p, len(drawn))[drawn],
            guess.spread[places],
        )
        left, known = closer.rest, closer.known
        found = Corrected(
            known + factor.value * guess.values[left].sum(axis=0),
            factor.interval(
                float(known.sum()), guess.values[left], guess.spread[left], closer.uncertain
            ),
            len(drawn),
            factor,
        )
        yield Show("estimate", found.estimate, closer.scene.region, found.interval)
        if closer.stop:
            break
    return found


def pace(draws: int) -> int:
    """Return how many draws are looked at between two updates."""
    return min(ROUND, max(4, -(-draws // UPDATES)))
