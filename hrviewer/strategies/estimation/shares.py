"""Shares of classes and means, from cells that were selected and cells that were drawn at random.

A total has no limit, but shares of classes sum to one, and a mean is that of a known area. They are
therefore estimated as ratios: the amounts of the drawn cells, each weighted by its inverse
inclusion probability, over the area of the same cells (Cochran, *Sampling Techniques*, 1977,
ch. 6). Selected cells are measured with certainty, and are no part of the ratio. Where there
are predictions for cells, the drawn ones correct them by their mean difference per area: the
difference estimator (Särndal, Swensson and Wretman, *Model Assisted Survey Sampling*, 1992,
ch. 6.3), in which shares still sum to one.

The variance is Hájek's approximation for unequal probabilities without replacement (Matei and
Tillé, *Journal of Official Statistics* 21, 2005, estimator Dev1), which falls to zero as all cells
are drawn.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hrviewer.strategies.estimation.aggregation import maximum
from hrviewer.strategies.estimation.intervals import proportion_interval, student_quantile
from hrviewer.strategies.estimation.regression import inclusion_probabilities
from hrviewer.strategies.estimation.sampling import draw, probabilities
from hrviewer.strategies.estimation.two_phase import TwoPhaseSampler, batch_size
from hrviewer.strategies.protocol import Estimate, Publish, Request, Response

__all__ = [
    "ShareEstimate",
    "cell_sizes",
    "estimate_shares",
    "measured_maximum",
    "share_estimate",
]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ShareEstimate:
    """An estimate of amounts whose sum is known, or of means.

    Attributes
    ----------
    values : ndarray, shape (k,)
        Amount per class: its share times the area.
    intervals : ndarray, shape (k, 2), or None
        95 % interval of each. Without drawn cells the limits that hold with certainty; None where
        there are none.
    drawn : int
        Number of cells that were drawn, and did not fail.
    cells : ndarray, shape (n, k)
        Amounts of each cell: measured, or predicted and corrected.
    """

    values: Floats
    intervals: Floats | None
    drawn: int
    cells: Floats


def estimate_shares(
    sizes: Floats,
    values: Floats,
    prediction: Floats,
    drawn: NDArray[np.intp],
    inclusion: Floats,
    *,
    exclusive: bool = True,
    limited: bool = True,
) -> ShareEstimate | None:
    """Estimate amounts per class over all cells.

    Parameters
    ----------
    sizes : ndarray, shape (n,)
        Area of each cell.
    values : ndarray, shape (n, k)
        Measured amounts per class; NaN where a cell was not measured, or failed.
    prediction : ndarray, shape (n, k)
        Predicted amounts; NaN where there is no prediction.
    drawn : ndarray of int, shape (m,)
        Cells that were drawn at random from those that were not selected. All other measured
        cells were selected.
    inclusion : ndarray, shape (m,)
        Probability of each to be drawn.
    exclusive : bool
        Whether the amounts of all classes in a cell sum to its size.
    limited : bool
        Whether amounts are from 0 to the cell's size.

    Returns
    -------
    ShareEstimate or None
        None if nothing was measured or predicted.

    Examples
    --------
    >>> values = np.array([[10.0, 0], [6, 4], [np.nan, np.nan], [np.nan, np.nan]])
    >>> drawn, inclusion = np.array([1]), np.array([1 / 3])
    >>> found = estimate_shares(np.full(4, 10.0), values, values * np.nan, drawn, inclusion)
    >>> found.values  # 10 of the selected cell, and 6 of 10 of the others
    array([28., 12.])
    """
    k = values.shape[1]
    measured: NDArray[np.bool_] = np.asarray(np.isfinite(values).all(axis=1))
    kept = measured[drawn]
    drawn, weights = drawn[kept], 1 / inclusion[kept]
    selected = measured.copy()
    selected[drawn] = False
    known = values[measured].sum(axis=0)
    others, rest = ~selected, float(sizes[~measured].sum())
    if not rest:
        return ShareEstimate(known, np.stack([known, known], axis=1), len(drawn), values)
    predicted = _completed(prediction, sizes, values, drawn, weights)
    if predicted is None:
        return None
    residual = values[drawn] - predicted[drawn]
    weighted = weights * sizes[drawn]
    per_area = (weights @ residual) / weighted.sum() if len(drawn) else np.zeros(k)
    cells = np.where(measured[:, None], values, predicted + np.outer(sizes, per_area))
    area = float(sizes[others].sum())
    total = (
        values[selected].sum(axis=0) + predicted[others].sum(axis=0) + area * per_area
        if len(drawn)
        else known + predicted[~measured].sum(axis=0)
    )
    if limited:
        total = known + np.clip(total - known, 0, rest)
    unknown = total - known
    if exclusive and unknown.sum() > 0:
        total = known + unknown * (rest / unknown.sum())
    deviation = (
        _deviation(residual - sizes[drawn][:, None] * per_area, weights) * (area / weighted.sum())
        if len(drawn) > 1
        else np.full(k, math.inf)
    )
    if not limited:
        half = student_quantile(len(drawn) - 1) * deviation
        ends = np.stack([total - half, total + half], axis=1)
        return ShareEstimate(total, ends if np.isfinite(half).all() else None, len(drawn), cells)
    intervals = np.empty((k, 2))
    for column in range(k):
        low, high = 0.0, 1.0
        if len(drawn):
            low, high = proportion_interval(
                float(np.clip((total - known)[column] / rest, 0, 1)),
                float(deviation[column]) / rest,
                len(drawn) - 1,
                weights * np.clip(values[drawn, column], 0, sizes[drawn]),
                weighted,
            )
        intervals[column] = known[column] + rest * low, known[column] + rest * high
    return ShareEstimate(total, intervals, len(drawn), cells)


def _completed(
    prediction: Floats,
    sizes: Floats,
    values: Floats,
    drawn: NDArray[np.intp],
    weights: Floats,
) -> Floats | None:
    """Return predictions for all cells: where there is none, the mean of the measurements.

    That is of the drawn cells, or of the selected ones without any; None if nothing is known.
    """
    missing: NDArray[np.bool_] = np.asarray(~np.isfinite(prediction).all(axis=1))
    if not missing.any():
        return prediction
    if len(drawn):
        ratio = (weights @ values[drawn]) / (weights @ sizes[drawn])
    else:
        measured: NDArray[np.bool_] = np.asarray(np.isfinite(values).all(axis=1))
        if not measured.any():
            return None
        ratio = values[measured].sum(axis=0) / sizes[measured].sum()
    return np.where(missing[:, None], sizes[:, None] * ratio, prediction)


def _deviation(residual: Floats, weights: Floats) -> Floats:
    """Return the standard deviation of the weighted sum of residuals, per class, ``(k,)``."""
    missing = 1 - 1 / weights  # one minus the inclusion probability
    if missing.sum() <= 0:
        return np.zeros(residual.shape[1])
    parts = missing / missing.sum()
    expanded = residual * weights[:, None]
    scatter = missing @ (expanded - parts @ expanded) ** 2
    return np.asarray(np.sqrt(scatter / max(1 - float((parts**2).sum()), 1e-12)))


def cell_sizes(sampler: TwoPhaseSampler) -> Floats:
    """Return the size of each cell in the unit of its amounts: pixels, or parts of the region.

    Of cells that are no part of the estimate it is zero.
    """
    context = sampler.context
    areas = context.counting_areas([patch.core for patch in sampler.grid.patches])
    areas[sampler.excluded] = 0
    return areas / context.region.area if context.main.card.averaged else areas


def share_estimate(
    sampler: TwoPhaseSampler,
    weights: Floats,
    draws: int,
    rng: np.random.Generator,
    floor: float,
    *,
    publish: bool = True,
) -> Generator[Request, Response, ShareEstimate | None]:
    """Draw from the cells that were not selected, and estimate shares or means.

    Parameters
    ----------
    sampler : TwoPhaseSampler
        Measurements so far, of selected cells.
    weights : ndarray, shape (n,)
        Cells are drawn in proportion to these.
    draws : int
        Number of draws; none for an estimate from the selected cells alone.
    rng, floor
        See `probabilities`.
    publish : bool
        Whether to publish estimates: if the cells are the whole region.

    Returns
    -------
    ShareEstimate or None
        None if nothing was measured.
    """
    card, sizes = sampler.context.main.card, cell_sizes(sampler)
    unmeasured, selected = sampler.unmeasured, len(sampler.measured)
    p = probabilities(weights[unmeasured], floor)
    order = draw(p, min(draws, len(unmeasured)), rng)

    def estimate() -> ShareEstimate | None:
        values = np.full(sampler.prediction.values.shape, np.nan)
        values[sampler.excluded] = 0
        for cell, value in sampler.measured.items():
            values[cell] = value
        found = order[: len(sampler.measured) - selected]
        return estimate_shares(
            sizes,
            values,
            sampler.prediction.values,
            unmeasured[found],
            inclusion_probabilities(p, len(found))[found],
            exclusive=card.exclusive,
            limited=card.task != "regression",
        )

    step = batch_size(len(order))
    for i in range(0, len(order), step):
        cells = unmeasured[order[i : i + step]]
        yield from sampler.measure(cells, weights, "given")
        current = estimate()
        if publish and current is not None and sampler.aggregation != "maximum":
            yield Publish(
                "estimate",
                current.values,
                sampler.context.region,
                class_intervals=current.intervals,
            )
        if sampler.stop:
            break
    return estimate()


def measured_maximum(sampler: TwoPhaseSampler, notes: Sequence[str]) -> Estimate:
    """Return the highest probability of each class in the cells that were measured."""
    sizes = cell_sizes(sampler)
    values = [value / sizes[cell] for cell, value in sampler.measured.items()]
    complete = not len(sampler.unmeasured) and not sampler.failed
    found = maximum(np.array(values), complete=complete) if values else None
    if found is None:
        return Estimate(None, note="; ".join([*notes, "nothing was measured"]))
    rest = [] if complete else ["the maximum is of these alone: another cell may have a higher one"]
    return Estimate(
        found[0], note="; ".join([*notes, *rest]), class_intervals=found[1], certain=True
    )
