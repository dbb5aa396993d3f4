"""Two-phase sampling: a cheap prediction for all cells, corrected by measurements of some.

A cheap model has predicted the value of each cell. `TwoPhaseSampler` measures cells with ``main``;
`regression_estimate` measures some of the others, drawn at random, and corrects the predictions.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from hrviewer.models.accuracy import ASSUMED_ERROR, PredictionError
from hrviewer.strategies.estimation.aggregation import Aggregation, tile_answers
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
    Target,
)
from hrviewer.strategies.tiling import BATCH_SIZE, TIMED_BATCH

__all__ = [
    "CoarsePrediction",
    "RegressionEstimate",
    "TwoPhaseSampler",
    "batch_size",
    "regression_estimate",
]

Floats = NDArray[np.float64]
T = TypeVar("T")

UPDATES = 12
"""Approximate number of intermediate estimates."""

PLANNED_SHARE = 0.92
"""Share of a limit of seconds that measurements are planned for: the rest is for the estimate."""

EVIDENCE = 2.0
"""Conflict with the factor of other images that refutes it: few measurements scatter."""

FIRST_PACE = 2.0
"""Time that measurements are taken to need before any was made, over the expected one."""


@dataclass(frozen=True)
class CoarsePrediction:
    """The prediction of a cheap model for each cell.

    Attributes
    ----------
    values : ndarray, shape (n, k)
        Counts per class; or scores, equal for all classes. Of shares and means NaN where they
        were not predicted.
    spread : ndarray, shape (n,)
        Uncertainty, up to a factor: the standard deviation of the sum over classes if the model
        predicts variances, else the root of the count, else the score.
    calibrated : bool
        Whether `values` are in the unit of the estimate.
    error : PredictionError
        Error of such predictions on other images.
    """

    values: Floats
    spread: Floats
    calibrated: bool = True
    error: PredictionError = ASSUMED_ERROR

    @property
    def priority(self) -> Floats:
        """Priority of each cell, ``(n,)``: its count plus its uncertainty, or its score.

        Certain high counts are worth a measurement as much as uncertain ones.
        """
        return self.values.sum(axis=1) + self.spread if self.calibrated else self.spread


class TwoPhaseSampler:
    """Measurements of cells by ``main``, within a budget.

    Parameters
    ----------
    context : PlanContext
        Properties of the image and the models.
    grid : SamplingGrid
        The cells.
    prediction : CoarsePrediction
        The prediction for each cell.
    remaining : float
        FLOPs left in the budget.
    stop : bool
        Whether the budget has ended already.
    target : {"output"}, optional
        The map that measurements are painted into; None for none.
    aggregation : {"mean", "majority", "maximum"}
        See `aggregation_field`.
    excluded : ndarray of bool, shape (n,), optional
        Cells that are no part of the estimate, of shares and means: background.

    Attributes
    ----------
    measured : dict of int to ndarray of shape (k,)
        Values of the measured cells, in the order of measurement.
    lost : set of int
        Those of them whose measurement failed: they have the value of their prediction.
    failed : int
        Measurements that failed.
    """

    def __init__(
        self,
        context: PlanContext,
        grid: SamplingGrid,
        prediction: CoarsePrediction,
        remaining: float = math.inf,
        stop: bool = False,
        target: Target | None = "output",
        *,
        aggregation: Aggregation = "mean",
        excluded: NDArray[np.bool_] | None = None,
    ) -> None:
        self.aggregation: Aggregation = aggregation
        self.excluded = np.zeros(len(grid.patches), bool) if excluded is None else excluded
        self.context, self.grid, self.prediction = context, grid, prediction
        self.remaining, self.stop, self.target = remaining, stop, target
        self.measured: dict[int, Floats] = {}
        self.lost: set[int] = set()
        self.failed = 0

    @property
    def unmeasured(self) -> NDArray[np.intp]:
        """Indices of the cells that were not measured."""
        unmeasured = ~self.excluded
        unmeasured[list(self.measured)] = False
        return np.flatnonzero(unmeasured)

    @property
    def predicted(self) -> NDArray[np.intp]:
        """Indices of the cells of which only the prediction is known."""
        return np.union1d(self.unmeasured, np.array([*self.lost], np.intp))

    @property
    def measured_total(self) -> Floats:
        """Sum of the measured cells, ``(k,)``, but for those that failed."""
        none = np.zeros(self.prediction.values.shape[1])
        known = (value for cell, value in self.measured.items() if cell not in self.lost)
        return np.asarray(sum(known, start=none))

    @property
    def affordable(self) -> int:
        """Number of measurements that the budget still pays for."""
        return affordable_cells(self.grid, self.remaining)

    @property
    def context_error(self) -> float:
        """Relative error of the measurements, due to limited context."""
        return context_error(self.grid.patches[0].halo, self.context.main.halo)

    def update_budget(self, response: Response) -> None:
        """Update the remaining budget."""
        self.remaining, self.stop = response.remaining, response.stop

    def later(self, share: float) -> float:
        """Return the FLOPs for a share of the measurements, if the clock may end them; else 0."""
        if math.isinf(self.context.seconds):
            return 0.0
        unplanned = (1 - PLANNED_SHARE) * self.context.budget
        return unplanned + share * max(self.remaining - unplanned, 0.0)

    def batches(self, items: Sequence[T], cost: float, later: float = 0.0) -> Iterator[Sequence[T]]:
        """Yield batches of what is to be measured, until the budget ends.

        Parameters
        ----------
        items : sequence
            The measurements, of which the budget is updated after each batch.
        cost : float
            FLOPs of one.
        later : float
            FLOPs of a limit of seconds that are kept for other measurements. At the pace of the
            batches so far, the last one leaves these.
        """
        start, done = self.remaining, 0
        while done < len(items) and not self.stop:
            n = BATCH_SIZE
            if later:
                pace = (start - self.remaining) / done if done else FIRST_PACE * cost
                left = max(self.remaining - later, 0.0)
                n = min(TIMED_BATCH, int(left / pace)) if pace * TIMED_BATCH > left else TIMED_BATCH
            if not n:
                return
            yield items[done : done + n]
            done += n

    def value_of(self, result: PatchResult, cell: int) -> Floats:
        """Return the measured value of a cell; its prediction if the measurement failed.

        Of shares and means it is then NaN.
        """
        k = self.context.main.card.prediction_channels
        value = np.asarray(result.value, float)[:k]
        if np.isfinite(value).all():
            value = tile_answers(self.context.main.card, value, self.aggregation)
            return cell_value(self.context, result.patch, value)
        self.failed += 1
        self.lost.add(cell)
        if self.context.main.card.has_shares:  # a ratio leaves them out
            return np.full(k, np.nan)
        return self.prediction.values[cell] if self.prediction.calibrated else np.zeros(k)

    def measure(
        self,
        cells: Sequence[int] | NDArray[np.intp],
        scores: Floats,
        order: Literal["any", "given"] = "any",
        later: float = 0.0,
    ) -> Generator[Request, Response, None]:
        """Measure cells at full resolution, selected by the scores ``(n,)`` of all cells.

        Of a limit of seconds, `later` FLOPs are kept for other measurements.
        """
        wanted = [int(cell) for cell in cells if not self.excluded[cell]]
        for batch in self.batches(wanted, self.grid.max_cost, later):
            response = yield PatchRequest(
                "main",
                tuple(self.grid.patches[cell] for cell in batch),
                target=self.target,
                order=order,
                scores=tuple(min(float(scores[cell]), 1e300) for cell in batch),
            )
            self.update_budget(response)
            for cell, result in zip(batch, response.results, strict=False):
                self.measured[cell] = self.value_of(result, cell)


@dataclass(frozen=True)
class RegressionEstimate:
    """An estimate from measurements and corrected predictions.

    Attributes
    ----------
    values : ndarray, shape (k,)
        Estimate for the region, per class.
    interval : tuple of float
        95 % interval of its sum.
    drawn : int
        Number of cells that were drawn.
    factor : CalibrationFactor
        The factor that corrects the predictions.
    biased : bool
        Whether the measurements refute the factor of other images.
    """

    values: Floats
    interval: Interval
    drawn: int
    factor: CalibrationFactor
    biased: bool = False


def regression_estimate(
    sampler: TwoPhaseSampler,
    weights: Floats,
    draws: int,
    rng: np.random.Generator,
    floor: float,
    *,
    publish: bool = True,
    refutable: bool = False,
) -> Generator[Request, Response, RegressionEstimate | None]:
    """Draw from the unmeasured cells, and correct the predictions by their measurements.

    Parameters
    ----------
    sampler : TwoPhaseSampler
        Measurements so far, of selected cells; its prediction is calibrated.
    weights : ndarray, shape (n,)
        Cells are drawn in proportion to these.
    draws : int
        Number of draws.
    rng, floor
        See `probabilities`.
    publish : bool
        Whether to publish estimates: if the cells are the whole region.
    refutable : bool
        Whether the measurements alone give the factor where they contradict that of other images.

    Returns
    -------
    RegressionEstimate or None
        None if the budget ended before the first draw.
    """
    prediction, unmeasured, selected = sampler.prediction, sampler.unmeasured, len(sampler.measured)
    p = probabilities(weights[unmeasured], floor)
    order = draw(p, draws, rng)
    step, estimate = batch_size(len(order)), None
    for i in range(0, len(order), step):
        yield from sampler.measure(unmeasured[order[i : i + step]], weights, "given")
        drawn = order[: len(sampler.measured) - selected]
        if not len(drawn):
            break
        kept = np.array([int(unmeasured[place]) not in sampler.lost for place in drawn])
        if not kept.any():
            continue
        cells = unmeasured[drawn[kept]]
        factor = calibrate(
            prediction.values[cells],
            np.array([sampler.measured[int(cell)] for cell in cells]),
            inclusion_probabilities(p, len(drawn))[drawn[kept]],
            prediction.spread[cells],
            prediction.error,
        )
        conflict = factor.conflict
        factor = factor.without_prior if refutable and conflict > 1 else factor
        rest, known = sampler.predicted, sampler.measured_total
        estimate = RegressionEstimate(
            known + factor.value * prediction.values[rest].sum(axis=0),
            factor.interval(
                float(known.sum()),
                prediction.values[rest],
                prediction.spread[rest],
                sampler.context_error,
            ),
            len(cells),
            factor,
            conflict > EVIDENCE,
        )
        if publish:
            yield Publish("estimate", estimate.values, sampler.context.region, estimate.interval)
        if sampler.stop:
            break
    return estimate


def batch_size(draws: int) -> int:
    """Return the number of draws between two intermediate estimates."""
    return min(BATCH_SIZE, max(4, -(-draws // UPDATES)))
