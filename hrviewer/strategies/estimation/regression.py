"""Calibrating the counts of a cheap model by a few measurements: a regression estimator.

If the cells with most of the total have been selected and measured, the others keep the cheap
model's predictions, times one factor. That factor is a ratio estimator (Cochran, *Sampling
Techniques*, 1977, ch. 6) from measurements of cells drawn at random from the others, weighted by
their inverse inclusion probability. Since a few measurements determine a ratio poorly, it is
combined with what is known of the model from other images (`PredictionError` of its card: the mean
factor and its deviation between images), each weighted by its precision. With many measurements the
prior has no influence. The same card has the factor by which predicted variances are off.

`sampling.SamplingEstimator` is unbiased; this estimator trades a small bias for far less variance,
which pays if little of the total is unmeasured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hrviewer.models.accuracy import ASSUMED_ERROR, PredictionError
from hrviewer.strategies.estimation.intervals import Interval

__all__ = ["CalibrationFactor", "calibrate", "context_error", "inclusion_probabilities"]

Floats = NDArray[np.float64]

TINY = 1e-12

CONTEXT_ERROR = 0.015
"""Half of the 95 % interval of counts with the context that a card declares sufficient, relative:
by the cards of both bundles they are off by 0.4 to 0.9 % in the mean."""


@dataclass(frozen=True)
class CalibrationFactor:
    """The factor that corrects predictions.

    Attributes
    ----------
    value, deviation : ndarray, shape (k,)
        The factor per class, and its standard deviation.
    error : PredictionError
        Error of the predictions on other images.
    """

    value: Floats
    deviation: Floats
    error: PredictionError = ASSUMED_ERROR

    @property
    def conflict(self) -> float:
        """Distance from the factor of other images, over the half-width of the 95 % interval."""
        distance = np.abs(self.value - self.error.ratio)
        return float((distance / (1.96 * self.deviation)).max())

    @property
    def without_prior(self) -> CalibrationFactor:
        """The factor by the measurements alone."""
        total, prior = 1 / self.deviation**2, prior_precision(self.error)
        precision = np.maximum(total - prior, TINY)
        value = (total * self.value - prior * self.error.ratio) / precision
        return replace(self, value=value, deviation=1 / np.sqrt(precision))

    def interval(
        self, known: float, prediction: Floats, spread: Floats, relative_error: float = 0.0
    ) -> Interval:
        """Return the 95 % interval of a total.

        Parameters
        ----------
        known : float
            Sum of the measurements over all classes.
        prediction, spread : ndarray, shape (n, k) and (n,)
            Predictions for the unmeasured cells, and the independent standard deviations of
            their sums over classes.
        relative_error : float
            Relative error of the measurements (`context_error`).
        """
        rest = prediction.sum(axis=0)
        middle = known + float(rest @ self.value)
        variance = float((rest * self.deviation).sum()) ** 2
        variance += self.error.spread**2 * float((spread**2).sum())
        variance += self.error.per_object * max(float(rest @ self.value), 0.0)
        deviation = math.sqrt(variance + (self.error.slack * middle) ** 2 * bool(len(prediction)))
        low, high = (middle + quantile * deviation for quantile in self.error.quantiles)
        # The errors of measurements and predictions are independent.
        error = relative_error * known
        below = math.hypot(middle - max(low, min(known, middle)), error)
        return middle - below, middle + math.hypot(high - middle, error)


def context_error(halo: int, needed: int) -> float:
    """Return the relative error of measurements with a halo, where `needed` would be exact."""
    return CONTEXT_ERROR if halo < needed else 0.0


def inclusion_probabilities(p: Floats, draws: int) -> Floats:
    """Return the probability of each cell to be among `draws` successive draws.

    Without replacement, each in proportion to `p`, as `sampling.draw` draws; approximated by
    independent exponential clocks of these rates.
    """
    from scipy.optimize import brentq  # slow to import, and every command loads this

    n = len(p)
    if draws >= n:
        return np.ones(n)
    if draws <= 0:
        return np.zeros(n)

    def excess(log_time: float) -> float:
        return n - float(np.exp(-math.exp(log_time) * p).sum()) - draws

    low, high = math.log(1e-6 / p.max()), math.log(50 * n / p.min())
    return np.asarray(1 - np.exp(-math.exp(brentq(excess, low, high)) * p))


def prior_precision(error: PredictionError) -> float:
    """Return the inverse variance of the factor over other images."""
    return 1 / max((error.ratio * error.ratio_deviation) ** 2, TINY)


def calibrate(
    prediction: Floats,
    values: Floats,
    probabilities: Floats,
    spread: Floats,
    error: PredictionError = ASSUMED_ERROR,
) -> CalibrationFactor:
    """Return the factor that corrects predictions, from cells drawn at random.

    Parameters
    ----------
    prediction, values : ndarray, shape (m, k)
        Prediction and measurement of each drawn cell.
    probabilities : ndarray, shape (m,)
        Inclusion probability of each.
    spread : ndarray, shape (m,)
        Standard deviation of each prediction.
    error : PredictionError
        Error of the predictions on other images.
    """
    m, k = prediction.shape
    weights = 1 / probabilities
    x = weights @ prediction if m else np.zeros(k)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(x > 0, (weights @ values) / x, 1.0)
        scatter = weights**2 @ (values - ratio * prediction) ** 2 * (m / max(m - 1, 1))
        least = error.spread**2 * spread[:, None] ** 2 / k
        least = least + error.per_object * error.ratio * np.maximum(prediction, 0)
        least = least + (error.cell_deviation * error.ratio * prediction) ** 2
        scatter = np.maximum(scatter, weights**2 @ least)
        precision = np.where(x > 0, 1 / np.maximum(scatter / x**2, TINY), 0.0)
    prior = prior_precision(error)
    total = precision + prior
    return CalibrationFactor(
        (precision * ratio + prior * error.ratio) / total, 1 / np.sqrt(total), error
    )
