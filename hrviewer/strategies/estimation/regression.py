"""Calibrating a cheap network's counts by a few closer looks: a regression estimator.

Where most of what there is was looked at because it was chosen, the rest keeps the cheap network's
guesses, times one factor. That factor is a ratio estimator (Cochran, *Sampling Techniques*, 1977,
ch. 6) from looks at places of the rest that were drawn at random, weighed by one over the
probability that they are among those drawn. A few looks say little of a ratio, so it is combined
with what the guess is taken to be worth before any (a factor of 1, give or take `PRIOR`), each
weighed by how sure it is. With many looks the looks alone decide.

`sampling.Survey` gives up nothing of being unbiased; this trades a little bias for far less
scatter, which pays where little is left that was not seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from hrviewer.strategies.estimation.intervals import ALPHA, Interval

__all__ = ["CalibrationFactor", "calibrate", "context_error", "inclusion_probabilities"]

Floats = NDArray[np.float64]

TINY = 1e-12
CONTEXT_ERROR = 0.01
"""By which part counts may be off with the context that a card says is enough."""
PRIOR = 0.3
"""By which part the guesses of a whole region are thought to be off, before any look."""


@dataclass(frozen=True)
class CalibrationFactor:
    """What a unit of guess is worth.

    Attributes
    ----------
    value, deviation : ndarray, shape (k,)
        Per class, and how unsure that is.
    """

    value: Floats
    deviation: Floats

    def interval(
        self, known: float, prediction: Floats, spread: Floats, relative_error: float = 0.0
    ) -> Interval:
        """Return the 95 % interval of a total.

        Parameters
        ----------
        known : float
            What was seen holds, over all classes.
        prediction, spread : ndarray, shape (n, k) and (n,)
            Of the places that were not seen; `spread` are standard deviations of sums over
            classes, independent of each other.
        relative_error : float
            By which part what was seen may be off for want of context (`want_of_context`).
        """
        rest = prediction.sum(axis=0)
        half = NormalDist().inv_cdf(1 - ALPHA / 2) * math.sqrt(
            float((rest * self.deviation).sum()) ** 2 + float((spread**2).sum())
        )
        middle = known + float(rest @ self.value)
        off = relative_error * known
        return max(middle - half, known) - off, middle + half + off


def context_error(halo: int, needed: int) -> float:
    """Return by which part looks with a halo may be off, whose network sees as far as `needed`."""
    return CONTEXT_ERROR if halo < needed else 0.0


def inclusion_probabilities(p: Floats, draws: int) -> Floats:
    """Return how likely each place is to be among `draws` drawn one after another.

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


def calibrate(
    prediction: Floats, values: Floats, probabilities: Floats, spread: Floats
) -> CalibrationFactor:
    """Return what a unit of guess is worth, from places drawn at random.

    Parameters
    ----------
    prediction, values : ndarray, shape (m, k)
        What each was thought to hold, and what it holds.
    probabilities : ndarray, shape (m,)
        How likely each was to be drawn.
    spread : ndarray, shape (m,)
        The standard deviation of each guess; what the looks seem to scatter less than that is
        taken for luck.
    """
    m, k = prediction.shape
    weights = 1 / probabilities
    x = weights @ prediction if m else np.zeros(k)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(x > 0, (weights @ values) / x, 1.0)
        scatter = weights**2 @ (values - ratio * prediction) ** 2 * (m / max(m - 1, 1))
        scatter = np.maximum(scatter, float(weights**2 @ spread**2) / k)
        sure = np.where(x > 0, 1 / np.maximum(scatter / x**2, TINY), 0.0)
    total = sure + 1 / PRIOR**2
    return CalibrationFactor((sure * ratio + 1 / PRIOR**2) / total, 1 / np.sqrt(total))
