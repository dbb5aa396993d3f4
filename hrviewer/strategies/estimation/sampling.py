"""Estimating a total from measurements of cells drawn at random.

Cells are drawn one after another, each with a probability proportional to the uncertainty of its
prediction. Every draw gives a number whose expectation, for all earlier draws, is the total over
all cells: the measurements so far, the predictions of the other cells, and the drawn cell's
difference from its prediction, weighted by its inverse probability. Hansen and Hurwitz (1943) with
replacement; Des Raj (1956) without, which is the estimator of Katharopoulos and Fleuret,
*Processing Megapixel Images with Deep Attention-Sampling Models* (ICML 2019). The plain mean of
draws without replacement is biased. The predictions are rescaled between rounds by a regression on
the measurements, which keeps every expectation (a predictable control variate).

The variance of draws without replacement falls as fewer cells are left; they are averaged with
weights that are fixed before the first, so that the mean stays unbiased.

The errors of predictions are often correlated in a neighbourhood. Therefore cells may be grouped
into strata of neighbours, all of the same probability, and drawn in rounds of one from each
(stratified sampling: Cochran, *Sampling Techniques*, 1977, ch. 5). A round's number is the sum over
its strata; differences between strata do not contribute to its variance.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hrviewer.strategies.estimation.intervals import (
    Interval,
    asymptotic,
    betting,
    student,
    with_skew,
)

__all__ = [
    "SamplingEstimator",
    "draw",
    "expected_variance",
    "expected_weights",
    "probabilities",
    "stratify",
]

Floats = NDArray[np.float64]

PRIOR = 5.0
"""Number of measurements that a calibrated prediction weighs as much as, in the regression."""

MIN_ROUNDS = 3
"""Minimum number of rounds for an interval."""

MIN_FOUND = 1.0
"""Minimum number of objects in the measured cells for an interval of a count without bounds."""

TARGET_ROUNDS = 24
"""Minimum number of rounds with strata: with fewer, Student's interval widens too much."""

MAX_STRATA = 8
"""Maximum number of strata."""


def probabilities(spread: Floats, floor: float) -> Floats:
    """Return the probability of each cell to be drawn first.

    Parameters
    ----------
    spread : ndarray, shape (n,)
        Uncertainty of each prediction: a standard deviation, up to a factor. Not negative.
    floor : float
        Fraction in 0..1 that is distributed evenly, so that every cell may be drawn.

    Returns
    -------
    ndarray, shape (n,)
        Positive, summing to 1.
    """
    n = len(spread)
    total = float(spread.sum())
    even = np.full(n, 1 / n)
    return even if total <= 0 else np.asarray((1 - floor) * spread / total + floor * even)


def draw(p: Floats, n: int, rng: np.random.Generator, *, replace: bool = False) -> NDArray[np.intp]:
    """Draw `n` cells, one after another.

    Without replacement the order is that of ``log p`` plus Gumbel noise, which is the order of
    successive draws with renormalised probabilities.
    """
    if replace:
        return rng.choice(len(p), size=n, p=p)
    keys = np.log(p) + rng.gumbel(size=len(p))
    return np.argsort(-keys, kind="stable")[:n]


def expected_variance(p: Floats, spread: Floats, n: int) -> Floats:
    """Return the expected variance of each of `n` draws without replacement, ``(n,)``.

    It is independent of the draws. A draw's variance is ``sum(p) * sum(spread**2 / p)`` over the
    remaining cells; those after k draws are approximated by independent exponential clocks of
    rates `p`. Beyond the last cell it is zero.
    """
    squares = np.where(spread > 0, spread, spread[spread > 0].min(initial=1.0)) ** 2
    clock = np.concatenate([[0.0], np.geomspace(0.01 / p.max(), 20 / p.min(), 192)])
    drawn, variance = np.empty(len(clock)), np.empty(len(clock))
    for i, tau in enumerate(clock):
        left = np.exp(-tau * p)
        drawn[i] = len(p) - left.sum()
        variance[i] = (left * p).sum() * (left * squares / p).sum()
    return np.interp(np.arange(n), drawn, variance) * (np.arange(n) < len(p))


def expected_weights(variance: Floats) -> Floats:
    """Return the weights of draws: their inverse expected variances, normalized to sum 1."""
    # The very last cells would get unbounded weights.
    weights = 1 / np.maximum(variance, 1e-6 * variance[0])
    return np.asarray(weights / weights.sum())


def stratify(p: Floats, positions: NDArray[np.intp], n: int) -> NDArray[np.intp]:
    """Group cells into at most `n` neighbourhoods of about the same probability.

    Parameters
    ----------
    p : ndarray, shape (m,)
        Probability of each cell.
    positions : ndarray of int, shape (m, 2)
        Row and column of each cell, not negative, below 2**16.
    n : int
        Number of strata.

    Returns
    -------
    ndarray of int, shape (m,)
        Stratum of each cell, from 0, along a Morton curve, which keeps neighbours together.
    """
    morton = np.zeros(len(positions), np.int64)
    for bit in range(16):
        for axis in 0, 1:
            morton |= ((positions[:, axis].astype(np.int64) >> bit) & 1) << (2 * bit + 1 - axis)
    order = np.argsort(morton, kind="stable")
    middle = np.cumsum(p[order]) - p[order] / 2
    result = np.empty(len(p), np.intp)
    result[order] = np.minimum((middle / p.sum() * n).astype(np.intp), n - 1)
    return np.unique(result, return_inverse=True)[1]


class SamplingEstimator:
    """Unbiased estimate of a total from draws of cells with predictions.

    Parameters
    ----------
    prediction : ndarray, shape (n, k)
        Prediction for each cell, per class; zeros if there is none.
    spread : ndarray, shape (n,)
        Uncertainty of each prediction, up to a factor; not negative.
    draws : int
        Number of planned draws, at most `n` without replacement.
    rng : numpy.random.Generator
        Source of randomness.
    replace : bool
        Whether cells are drawn with replacement.
    floor : float
        See `probabilities`.
    calibrated : bool
        Whether predictions are in the unit of the estimate. Otherwise they are scores, and only
        the regression determines their factor.
    upper_bounds : ndarray, shape (n,), optional
        Largest possible sum over classes of each cell; the smallest is zero. Without bounds the
        anytime interval is asymptotic.
    known : ndarray, shape (k,), optional
        Known part of the total, outside the cells.
    positions : ndarray of int, shape (n, 2), optional
        Row and column of each cell, by which they are grouped into strata.
    strata : int
        Number of strata; 0 for as many as leave `TARGET_ROUNDS` rounds.

    Attributes
    ----------
    order : ndarray of int, shape (draws,)
        Cells in the order to measure.
    p : ndarray, shape (n,)
        Probability of each cell to be drawn first.
    """

    def __init__(
        self,
        prediction: Floats,
        spread: Floats,
        draws: int,
        rng: np.random.Generator,
        *,
        replace: bool = False,
        floor: float = 0.1,
        calibrated: bool = True,
        upper_bounds: Floats | None = None,
        known: Floats | None = None,
        positions: NDArray[np.intp] | None = None,
        strata: int = 0,
    ) -> None:
        n, k = prediction.shape
        self._prediction, self._upper_bounds, self._replace = prediction, upper_bounds, replace
        self._known = np.zeros(k) if known is None else known
        self.p = probabilities(spread, floor)
        strata = min(strata or min(MAX_STRATA, draws // TARGET_ROUNDS), draws)
        self._stratum_of = np.zeros(n, np.intp)
        if positions is not None and strata > 1:
            self._stratum_of = stratify(self.p, positions, strata)
        members = [
            np.flatnonzero(self._stratum_of == h)
            for h in range(self._stratum_of.max(initial=0) + 1)
        ]
        self.order, self._ends = self._draw_rounds(members, draws, rng)
        rounds = len(self._ends)
        if replace or not rounds:
            self._weights = np.full(rounds, 1 / max(rounds, 1))
        else:
            each = [expected_variance(self.p[at], spread[at], rounds) for at in members]
            self._weights = expected_weights(np.sum(each, axis=0))
        self._prior = (np.ones(k), PRIOR) if calibrated else (np.zeros(k), 0.0)
        self._beta = self._prior[0]
        self._remaining = np.ones(n, bool)
        # Per stratum: sum of measurements; prediction, probability and number of cells left.
        self._measured = np.zeros((len(members), k))
        self._unmeasured = np.array([prediction[at].sum(axis=0) for at in members], float)
        self._mass = np.array([self.p[at].sum() for at in members])
        self._remaining_in = np.array([len(at) for at in members])
        self._drawn, self._stale = 0, False
        self._term, self._term_limits = np.zeros(k), np.zeros(2)
        self._moments = np.zeros(k), np.zeros(k)
        self._terms: list[Floats] = []
        self._limits: list[Floats] = []
        self._anytime_interval: Interval | None = None

    def _draw_rounds(
        self, members: Sequence[NDArray[np.intp]], draws: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.intp], list[int]]:
        """Draw from the strata in turn; return the order, and the ends of the rounds."""
        orders = []
        for at in members:
            most = -(-draws // len(members)) if self._replace else min(draws, len(at))
            p = self.p[at]
            orders.append(at[draw(p / p.sum(), most, rng, replace=self._replace)])
        order: list[int] = []
        ends: list[int] = []
        for i in range(max((len(own) for own in orders), default=0)):
            row = [int(own[i]) for own in orders if i < len(own)]
            if len(order) + len(row) > draws:
                break
            order += row
            ends.append(len(order))
        return np.array(order, np.intp), ends

    @property
    def drawn(self) -> int:
        """Number of draws that were measured."""
        return self._drawn

    @property
    def complete(self) -> bool:
        """Whether every cell was measured."""
        return not self._remaining.any()

    @property
    def factor(self) -> Floats:
        """The current factor of the predictions, ``(k,)``."""
        return self._beta

    def add(self, values: Floats) -> None:
        """Add the measurements of the next draws, ``(r, k)``.

        The factor is updated from them for the next round on.
        """
        bounds = self._draw_bounds()
        for cell, value in zip(self.order[self._drawn :], values, strict=False):
            if self._between_rounds:
                if self._stale:
                    self._update_factor()
                    self._stale, bounds = False, self._draw_bounds()
                self._begin_round()
            self._add_draw(int(cell), value, bounds)
        self._stale = not self._between_rounds
        if self._between_rounds and self._drawn:
            self._update_factor()
        if self._terms:
            self._update_interval()

    @property
    def _between_rounds(self) -> bool:
        """Whether the last round is complete."""
        return self._drawn == (self._ends[len(self._terms) - 1] if self._terms else 0)

    def _begin_round(self) -> None:
        """Begin a round with the known part: strata without remaining cells."""
        empty = (
            np.zeros(len(self._remaining_in), bool) if self._replace else self._remaining_in == 0
        )
        self._term = self._known + self._measured[empty].sum(axis=0)
        self._term_limits = np.full(2, float(self._term.sum()))

    def _add_draw(self, cell: int, value: Floats, bounds: Floats | None) -> None:
        """Add one stratum's term to the round, which ends after the last stratum."""
        h, predicted = self._stratum_of[cell], self._prediction[cell]
        base = self._beta * self._unmeasured[h] + (0.0 if self._replace else self._measured[h])
        # The last cell is drawn with certainty: avoid rounding its probability.
        sure = not self._replace and self._remaining_in[h] == 1
        weight = 1.0 if sure else self._mass[h] / self.p[cell]
        self._term = self._term + base + (value - self._beta * predicted) * weight
        if bounds is not None:
            self._term_limits = self._term_limits + base.sum() + bounds[h] * self._mass[h]
        self._moments[0][:] += value * predicted / self.p[cell] ** 2
        self._moments[1][:] += predicted**2 / self.p[cell] ** 2
        if self._remaining[cell]:
            self._measured[h] += value
            self._remaining[cell] = False
        if not self._replace:
            self._unmeasured[h] -= predicted
            self._mass[h] -= self.p[cell]
            self._remaining_in[h] -= 1
        self._drawn += 1
        if self._drawn == self._ends[len(self._terms)]:
            self._terms.append(self._term)
            self._limits.append(self._term_limits)

    def _draw_bounds(self) -> Floats | None:
        """Return the limits of a draw's difference over its probability, per stratum: (h, 2)."""
        if self._upper_bounds is None:
            return None
        predicted = (self._prediction * self._beta).sum(axis=1)
        least, most = -predicted / self.p, (self._upper_bounds - predicted) / self.p
        result = np.zeros((len(self._remaining_in), 2))
        for h in range(len(result)):
            of = (self._stratum_of == h) & (self._remaining | self._replace)
            if of.any():
                result[h] = least[of].min(), most[of].max()
        return result

    def _update_factor(self) -> None:
        """Update the factor that minimizes the prediction error of the measurements."""
        factor, prior_weight = self._prior
        crossed, squared = self._moments
        typical = prior_weight * squared / self.drawn
        with np.errstate(invalid="ignore", divide="ignore"):
            beta = (factor * typical + crossed) / (typical + squared)
        self._beta = np.where(squared > 0, beta, factor)

    def _update_interval(self) -> None:
        terms = np.array(self._terms).sum(axis=1)
        if self.complete:
            low = high = float(self.estimate.sum())
        elif self._upper_bounds is not None:
            # Certain limits: no cell is below zero or above its bound.
            low = float((self._known + self._measured.sum(axis=0)).sum())
            high = low + float(self._upper_bounds[self._remaining].sum())
            least, most = np.array(self._limits).T
            low, high = betting(terms, least, most, self._weights, within=(low, high))
        else:
            result = asymptotic(terms, self._weights)
            if result is None:
                return
            low, high = result
        if self._anytime_interval is not None and not self.complete:
            # Since the intervals hold simultaneously, so does their intersection.
            low, high = max(low, self._anytime_interval[0]), min(high, self._anytime_interval[1])
            if low > high:
                low, high = self._anytime_interval
        self._anytime_interval = low, high

    @property
    def estimate(self) -> Floats:
        """The total per class, ``(k,)``: unbiased after a number of draws fixed beforehand."""
        if self.complete:
            return np.asarray(self._known + self._measured.sum(axis=0))
        if not self._terms:
            rest = self._beta * self._prediction[self._remaining].sum(axis=0)
            return np.asarray(self._known + self._measured.sum(axis=0) + rest)
        weights = self._weights[: len(self._terms)]
        return np.asarray(weights @ np.array(self._terms) / weights.sum())

    @property
    def fixed_interval(self) -> Interval | None:
        """The total's 95 % interval, for a number of draws that was fixed beforehand.

        None after few draws, or if they found nothing: that gives no scale of what there may be.
        """
        if self.complete:
            total = float(self.estimate.sum())
            return total, total
        if len(self._terms) < MIN_ROUNDS:
            return None
        weights = self._weights[: len(self._terms)]
        low, high = student(np.array(self._terms).sum(axis=1), weights)
        known = float((self._known + self._measured.sum(axis=0)).sum())
        if known < MIN_FOUND and self._upper_bounds is None:
            return None
        if not self._replace:
            freedom = float(weights.sum() ** 2 / (weights**2).sum()) - 1
            low, high = with_skew((low, high), float(self.estimate.sum()), known, freedom)
        if self._upper_bounds is None:
            return low, high
        least = float((self._known + self._measured.sum(axis=0)).sum())
        most = least + float(self._upper_bounds[self._remaining].sum())
        return min(max(low, least), most), min(max(high, least), most)

    @property
    def anytime_interval(self) -> Interval | None:
        """The total's 95 % interval that holds at all times, and may be used to stop."""
        return self._anytime_interval
