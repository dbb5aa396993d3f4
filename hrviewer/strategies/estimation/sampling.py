"""Estimating a total from a few looks at places drawn at random.

Places are drawn one after another, each with a probability in proportion to how unsure its guess
is. Every draw gives a number whose expectation, whatever was drawn before, is the total over all
places: what was seen so far, the guesses of the rest, and the drawn place's difference from its
guess, weighted by one over its probability. Hansen and Hurwitz (1943) with replacement; Des Raj
(1956) without, which is the estimator of Katharopoulos and Fleuret, *Processing Megapixel Images
with Deep Attention-Sampling Models* (ICML 2019). The plain mean of draws without replacement is
biased. The guesses are rescaled between rounds by a regression on what was drawn, which keeps every
expectation (a predictable control variate).

Draws without replacement become surer as less is left; they are averaged with weights that were
fixed before the first, so that the mean stays unbiased.

Where the places lie is of use, too: a guess is often wrong in the same way about a whole
neighbourhood. Cut into strata of neighbours, which are all of the same probability, places are
drawn in rounds of one from each (stratified sampling: Cochran, *Sampling Techniques*, 1977, ch. 5).
A round's number is the sum over its strata, and what sets them apart is no part of its variance.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hrviewer.strategies.estimation.intervals import Interval, asymptotic, betting, student

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
"""How many looks a guess that is a count is worth against the regression."""

MIN_ROUNDS = 3
"""Rounds below which no interval is given."""

TARGET_ROUNDS = 24
"""Rounds that strata must leave: what they gain must not be lost again in Student's few."""

MAX_STRATA = 8
"""Strata, at most."""


def probabilities(spread: Floats, floor: float) -> Floats:
    """Return the probability of drawing each place first.

    Parameters
    ----------
    spread : ndarray, shape (n,)
        How unsure each guess is: a standard deviation, up to a factor. Not negative.
    floor : float
        The part, in 0..1, that is shared evenly, so that every place can be reached.

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
    """Draw `n` places, one after another.

    Without replacement the order is that of ``log p`` plus Gumbel noise, which is the order of
    successive draws with renormalised probabilities.
    """
    if replace:
        return rng.choice(len(p), size=n, p=p)
    keys = np.log(p) + rng.gumbel(size=len(p))
    return np.argsort(-keys, kind="stable")[:n]


def expected_variance(p: Floats, spread: Floats, n: int) -> Floats:
    """Return the variance expected of each of `n` draws without replacement, ``(n,)``.

    It depends on no draw. A draw's variance is ``sum(p) * sum(spread**2 / p)`` over what is left;
    what is left after k draws is approximated by independent exponential clocks of rates `p`.
    Beyond the last place it is zero.
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
    """Return the weights of draws: one over the variance expected of each; they sum to 1."""
    # The last places of all would weigh without limit.
    weights = 1 / np.maximum(variance, 1e-6 * variance[0])
    return np.asarray(weights / weights.sum())


def stratify(p: Floats, positions: NDArray[np.intp], n: int) -> NDArray[np.intp]:
    """Cut places into at most `n` neighbourhoods of about the same probability.

    Parameters
    ----------
    p : ndarray, shape (m,)
        The probability of each place.
    positions : ndarray of int, shape (m, 2)
        Its row and column, not negative, below 2**16.
    n : int
        How many.

    Returns
    -------
    ndarray of int, shape (m,)
        Which each place belongs to, from 0; along Morton's curve, on which neighbours are near.
    """
    along = np.zeros(len(positions), np.int64)
    for bit in range(16):
        for axis in 0, 1:
            along |= ((positions[:, axis].astype(np.int64) >> bit) & 1) << (2 * bit + 1 - axis)
    order = np.argsort(along, kind="stable")
    middle = np.cumsum(p[order]) - p[order] / 2
    found = np.empty(len(p), np.intp)
    found[order] = np.minimum((middle / p.sum() * n).astype(np.intp), n - 1)
    return np.unique(found, return_inverse=True)[1]


class SamplingEstimator:
    """Draws from places with guesses, and what they say of the total.

    Parameters
    ----------
    prediction : ndarray, shape (n, k)
        What each place is thought to hold, per class; all zeros where nobody knows.
    spread : ndarray, shape (n,)
        How unsure each guess is, up to a factor; not negative.
    draws : int
        How many are planned, at most `n` without replacement.
    rng : numpy.random.Generator
        Draws the order.
    replace : bool
        Whether a place may be drawn again.
    floor : float
        See `probabilities`.
    calibrated : bool
        Whether guesses are in the answer's unit. Otherwise they are scores, and only the
        regression says what a unit is worth.
    upper_bounds : ndarray, shape (n,), optional
        The largest sum over classes that each place can hold; none is below zero. Without it the
        anytime interval is asymptotic.
    known : ndarray, shape (k,), optional
        What is held elsewhere, known for sure, and part of the total.
    positions : ndarray of int, shape (n, 2), optional
        Each place's row and column, by which to cut them into strata.
    strata : int
        How many strata; 0 for as many as leave `ROUNDS` rounds.

    Attributes
    ----------
    order : ndarray of int, shape (draws,)
        The places, in the order to look.
    p : ndarray, shape (n,)
        The probability of each to be drawn first.
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
        # Of each stratum: what was seen, the guess and the probability of what may yet be drawn.
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
        """Draw from every stratum, and take turns; return the order, and where rounds end."""
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
        """How many draws were answered."""
        return self._drawn

    @property
    def complete(self) -> bool:
        """Whether every place was seen."""
        return not self._remaining.any()

    @property
    def factor(self) -> Floats:
        """What the looks say a unit of guess is worth, ``(k,)``."""
        return self._beta

    def add(self, values: Floats) -> None:
        """Take the answers of the next draws, ``(r, k)``.

        What they teach is used from the next round on.
        """
        reaches = self._draw_bounds()
        for place, value in zip(self.order[self._drawn :], values, strict=False):
            if self._between_rounds:
                if self._stale:
                    self._update_factor()
                    self._stale, reaches = False, self._draw_bounds()
                self._begin_round()
            self._add_draw(int(place), value, reaches)
        self._stale = not self._between_rounds
        if self._between_rounds and self._drawn:
            self._update_factor()
        if self._terms:
            self._update_interval()

    @property
    def _between_rounds(self) -> bool:
        """Whether no round is under way."""
        return self._drawn == (self._ends[len(self._terms) - 1] if self._terms else 0)

    def _begin_round(self) -> None:
        """Begin a round: what strata without places hold is known."""
        empty = (
            np.zeros(len(self._remaining_in), bool) if self._replace else self._remaining_in == 0
        )
        self._term = self._known + self._measured[empty].sum(axis=0)
        self._term_limits = np.full(2, float(self._term.sum()))

    def _add_draw(self, place: int, value: Floats, reaches: Floats | None) -> None:
        """Add a stratum's part to the round; the last stratum's ends it."""
        h, guess = self._stratum_of[place], self._prediction[place]
        base = self._beta * self._unmeasured[h] + (0.0 if self._replace else self._measured[h])
        # The last place is drawn for sure; its probability must not be left to rounding.
        sure = not self._replace and self._remaining_in[h] == 1
        weight = 1.0 if sure else self._mass[h] / self.p[place]
        self._term = self._term + base + (value - self._beta * guess) * weight
        if reaches is not None:
            self._term_limits = self._term_limits + base.sum() + reaches[h] * self._mass[h]
        self._moments[0][:] += value * guess / self.p[place] ** 2
        self._moments[1][:] += guess**2 / self.p[place] ** 2
        if self._remaining[place]:
            self._measured[h] += value
            self._remaining[place] = False
        if not self._replace:
            self._unmeasured[h] -= guess
            self._mass[h] -= self.p[place]
            self._remaining_in[h] -= 1
        self._drawn += 1
        if self._drawn == self._ends[len(self._terms)]:
            self._terms.append(self._term)
            self._limits.append(self._term_limits)

    def _draw_bounds(self) -> Floats | None:
        """Return what a draw may still differ by, least and most, over its probability: (h, 2)."""
        if self._upper_bounds is None:
            return None
        guess = (self._prediction * self._beta).sum(axis=1)
        least, most = -guess / self.p, (self._upper_bounds - guess) / self.p
        found = np.zeros((len(self._remaining_in), 2))
        for h in range(len(found)):
            of = (self._stratum_of == h) & (self._remaining | self._replace)
            if of.any():
                found[h] = least[of].min(), most[of].max()
        return found

    def _update_factor(self) -> None:
        """Rescale the guesses so that what was drawn would have been guessed best."""
        factor, worth = self._prior
        crossed, squared = self._moments
        typical = worth * squared / self.drawn
        with np.errstate(invalid="ignore", divide="ignore"):
            beta = (factor * typical + crossed) / (typical + squared)
        self._beta = np.where(squared > 0, beta, factor)

    def _update_interval(self) -> None:
        terms = np.array(self._terms).sum(axis=1)
        if self.complete:
            low = high = float(self.estimate.sum())
        elif self._upper_bounds is not None:
            # Whatever was drawn: nothing is below zero, and nothing above its bound.
            low = float((self._known + self._measured.sum(axis=0)).sum())
            high = low + float(self._upper_bounds[self._remaining].sum())
            least, most = np.array(self._limits).T
            low, high = betting(terms, least, most, self._weights, within=(low, high))
        else:
            found = asymptotic(terms, self._weights)
            if found is None:
                return
            low, high = found
        if self._anytime_interval is not None and not self.complete:
            # An interval that holds at all moments at once: their common part.
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
        """The total's 95 % interval, for a number of draws that was fixed beforehand."""
        if self.complete:
            total = float(self.estimate.sum())
            return total, total
        if len(self._terms) < MIN_ROUNDS:
            return None
        low, high = student(np.array(self._terms).sum(axis=1), self._weights[: len(self._terms)])
        if self._upper_bounds is None:
            return low, high
        least = float((self._known + self._measured.sum(axis=0)).sum())
        most = least + float(self._upper_bounds[self._remaining].sum())
        return min(max(low, least), most), min(max(high, least), most)

    @property
    def anytime_interval(self) -> Interval | None:
        """The total's 95 % interval that may be read at any moment, and stopped by."""
        return self._anytime_interval
