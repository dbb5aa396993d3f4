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
from hrviewer.strategies.estimation.regression import (
    CalibrationFactor,
    calibrate,
    context_error,
    inclusion_probabilities,
)
from hrviewer.strategies.estimation.sampling import draw, probabilities
from hrviewer.strategies.estimation.sampling_grid import SamplingGrid, affordable_cells, cell_value
from hrviewer.strategies.protocol import (
    PatchRequest,
    PatchResult,
    PlanContext,
    Publish,
    Request,
    Response,
)
from hrviewer.strategies.tiling import BATCH_SIZE

__all__ = [
    "CoarsePrediction",
    "RegressionEstimate",
    "TwoPhaseSampler",
    "batch_size",
    "regression_estimate",
]

Floats = NDArray[np.float64]

UPDATES = 12
"""How often, about, the interval is shown to shrink."""


@dataclass(frozen=True)
class CoarsePrediction:
    """What a cheap network says of each leaf.

    Attributes
    ----------
    values : ndarray, shape (n, k)
        Counts per class; or scores, the same for every class.
    spread : ndarray, shape (n,)
        How unsure that is, up to a factor: the standard deviation of the sum over classes where
        the network gives variances, else the root of the count, else the score.
    calibrated : bool
        Whether `values` are in the answer's unit.
    """

    values: Floats
    spread: Floats
    calibrated: bool = True

    @property
    def priority(self) -> Floats:
        """What each leaf may well hold, ``(n,)``: its count and how unsure that is, or its score.

        Places are ranked by it: what surely holds much is worth a look as much as what is unsure.
        """
        return self.values.sum(axis=1) + self.spread if self.calibrated else self.spread


class TwoPhaseSampler:
    """Looks by ``main``, and what they found.

    Parameters
    ----------
    context : Scene
        What is known of the image.
    grid : Leaves
        Where it may look.
    prediction : Guess
        What is thought of them.
    remaining : float
        FLOPs that may be spent.
    stop : bool
        Whether the budget has ended already.

    Attributes
    ----------
    measured : dict of int to ndarray of shape (k,)
        What the leaves that were seen hold, in the order in which they were.
    failed : int
        Looks that gave nothing.
    """

    def __init__(
        self,
        context: PlanContext,
        grid: SamplingGrid,
        prediction: CoarsePrediction,
        remaining: float = math.inf,
        stop: bool = False,
    ) -> None:
        self.context, self.grid, self.prediction = context, grid, prediction
        self.remaining, self.stop = remaining, stop
        self.measured: dict[int, Floats] = {}
        self.failed = 0

    @property
    def unmeasured(self) -> NDArray[np.intp]:
        """Leaves that were not seen at full resolution."""
        there = np.ones(len(self.grid.patches), bool)
        there[list(self.measured)] = False
        return np.flatnonzero(there)

    @property
    def measured_total(self) -> Floats:
        """What was seen holds, ``(k,)``."""
        none = np.zeros(self.prediction.values.shape[1])
        return np.asarray(sum(self.measured.values(), start=none))

    @property
    def affordable(self) -> int:
        """How many looks the budget still pays for."""
        return affordable_cells(self.grid, self.remaining)

    @property
    def context_error(self) -> float:
        """By which part what was seen may be off, for want of context."""
        return context_error(self.grid.patches[0].halo, self.context.main.halo)

    def update_budget(self, response: Response) -> None:
        """Note what the budget still holds."""
        self.remaining, self.stop = response.remaining, response.stop

    def value_of(self, result: PatchResult, place: int) -> Floats:
        """Return what a leaf was seen to hold; what was guessed where the look failed."""
        k = self.context.main.card.prediction_channels
        value = np.asarray(result.value, float)[:k]
        if np.isfinite(value).all():
            return cell_value(self.context, result.patch, value)
        self.failed += 1
        return self.prediction.values[place] if self.prediction.calibrated else np.zeros(k)

    def measure(
        self,
        places: Sequence[int] | NDArray[np.intp],
        scores: Floats,
        order: Literal["any", "given"] = "any",
    ) -> Generator[Request, Response, None]:
        """Look at leaves at full resolution, chosen by scores ``(n,)`` of all leaves."""
        for i in range(0, len(places), BATCH_SIZE):
            asked = [int(place) for place in places[i : i + BATCH_SIZE]]
            result = yield PatchRequest(
                "main",
                tuple(self.grid.patches[place] for place in asked),
                target="output",
                order=order,
                scores=tuple(min(float(scores[place]), 1e300) for place in asked),
            )
            self.update_budget(result)
            for place, handle in zip(asked, result.results, strict=False):
                self.measured[place] = self.value_of(handle, place)
            if self.stop:
                return


@dataclass(frozen=True)
class RegressionEstimate:
    """An answer of what was seen and of corrected guesses.

    Attributes
    ----------
    values : ndarray, shape (k,)
        Of the region.
    interval : tuple of float
        Of its sum, 95 %.
    drawn : int
        How many leaves were drawn.
    factor : Factor
        What a unit of guess was found to be worth.
    """

    values: Floats
    interval: Interval
    drawn: int
    factor: CalibrationFactor


def regression_estimate(
    sampler: TwoPhaseSampler, weights: Floats, draws: int, rng: np.random.Generator, floor: float
) -> Generator[Request, Response, RegressionEstimate | None]:
    """Draw from what was not seen, and correct the guesses there by what was found.

    Parameters
    ----------
    sampler : Closer
        What was seen so far, because it was chosen; its guess counts.
    weights : ndarray, shape (n,)
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
    guess, rest, chosen = sampler.prediction, sampler.unmeasured, len(sampler.measured)
    p = probabilities(weights[rest], floor)
    order = draw(p, draws, rng)
    step, found = batch_size(len(order)), None
    for i in range(0, len(order), step):
        yield from sampler.measure(rest[order[i : i + step]], weights, "given")
        drawn = order[: len(sampler.measured) - chosen]
        if not len(drawn):
            break
        places = rest[drawn]
        factor = calibrate(
            guess.values[places],
            np.array([sampler.measured[int(place)] for place in places]),
            inclusion_probabilities(p, len(drawn))[drawn],
            guess.spread[places],
        )
        left, known = sampler.unmeasured, sampler.measured_total
        found = RegressionEstimate(
            known + factor.value * guess.values[left].sum(axis=0),
            factor.interval(
                float(known.sum()), guess.values[left], guess.spread[left], sampler.context_error
            ),
            len(drawn),
            factor,
        )
        yield Publish("estimate", found.values, sampler.context.region, found.interval)
        if sampler.stop:
            break
    return found


def batch_size(draws: int) -> int:
    """Return how many draws are looked at between two updates."""
    return min(BATCH_SIZE, max(4, -(-draws // UPDATES)))
