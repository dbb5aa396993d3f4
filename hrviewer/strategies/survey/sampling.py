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
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hrviewer.strategies.survey.intervals import Interval, asymptotic, betting, student

__all__ = ["Survey", "draw", "expected_weights", "probabilities"]

Floats = NDArray[np.float64]

PRIOR = 5.0
"""How many looks a guess that is a count is worth against the regression."""

FEWEST = 3
"""Looks below which no interval is given."""


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


def expected_weights(p: Floats, spread: Floats, n: int) -> Floats:
    """Return the weights of `n` draws without replacement: one over the variance expected of each.

    They depend on no draw. A draw's variance is ``sum(p) * sum(spread**2 / p)`` over what is left;
    what is left after k draws is approximated by independent exponential clocks of rates `p`.

    Returns
    -------
    ndarray, shape (n,)
        Positive, summing to 1.
    """
    squares = np.where(spread > 0, spread, spread[spread > 0].min(initial=1.0)) ** 2
    clock = np.concatenate([[0.0], np.geomspace(0.01 / p.max(), 20 / p.min(), 192)])
    drawn, variance = np.empty(len(clock)), np.empty(len(clock))
    for i, tau in enumerate(clock):
        left = np.exp(-tau * p)
        drawn[i] = len(p) - left.sum()
        variance[i] = (left * p).sum() * (left * squares / p).sum()
    # The last places of all would weigh without limit.
    variance = np.interp(np.arange(n), drawn, np.maximum(variance, 1e-6 * variance[0]))
    weights = 1 / variance
    return np.asarray(weights / weights.sum())


class Survey:
    """Draws from places with guesses, and what they say of the total.

    Parameters
    ----------
    guess : ndarray, shape (n, k)
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
    counts : bool
        Whether guesses are in the answer's unit. Otherwise they are scores, and only the
        regression says what a unit is worth.
    bound : ndarray, shape (n,), optional
        The largest sum over classes that each place can hold; none is below zero. Without it the
        anytime interval is asymptotic.
    known : ndarray, shape (k,), optional
        What is held elsewhere, known for sure, and part of the total.

    Attributes
    ----------
    order : ndarray of int, shape (draws,)
        The places, in the order to look.
    p : ndarray, shape (n,)
        The probability of each to be drawn first.
    """

    def __init__(
        self,
        guess: Floats,
        spread: Floats,
        draws: int,
        rng: np.random.Generator,
        *,
        replace: bool = False,
        floor: float = 0.1,
        counts: bool = True,
        bound: Floats | None = None,
        known: Floats | None = None,
    ) -> None:
        n, k = guess.shape
        self._guess, self._bound, self._replace = guess, bound, replace
        self._known = np.zeros(k) if known is None else known
        self.p = probabilities(spread, floor)
        self.order = draw(self.p, draws if replace else min(draws, n), rng, replace=replace)
        draws = len(self.order)
        even = np.full(draws, 1 / max(draws, 1))
        self._weights = even if replace or not draws else expected_weights(self.p, spread, draws)
        self._prior = (np.ones(k), PRIOR) if counts else (np.zeros(k), 0.0)
        self._beta = self._prior[0]
        self._left = np.ones(n, bool)
        self._sum = np.zeros(k)
        self._moments = np.zeros(k), np.zeros(k)
        self._terms: list[Floats] = []
        self._limits: list[tuple[float, float]] = []
        self._anytime: Interval | None = None

    @property
    def drawn(self) -> int:
        """How many draws were answered."""
        return len(self._terms)

    @property
    def complete(self) -> bool:
        """Whether every place was seen."""
        return not self._left.any()

    @property
    def factor(self) -> Floats:
        """What the looks say a unit of guess is worth, ``(k,)``."""
        return self._beta

    def add(self, values: Floats) -> None:
        """Take the answers of the next draws, ``(r, k)``.

        What a round teaches is used from the next round on.
        """
        beta, p, n = self._beta, self.p, len(self.p)
        everywhere = self._replace
        left = np.ones(n, bool) if everywhere else self._left
        reach = self._reach(left)
        mass, rest = float(p[left].sum()), self._guess[left].sum(axis=0)
        remaining = int(left.sum())
        places = self.order[self.drawn : self.drawn + len(values)]
        for place, value in zip(places, values, strict=True):
            guess = self._guess[place]
            seen = 0.0 if everywhere else self._sum
            base = self._known + seen + beta * rest
            # The last place is drawn for sure; its probability must not be left to rounding.
            weight = mass / p[place] if everywhere or remaining > 1 else 1.0
            self._terms.append(base + (value - beta * guess) * weight)
            if reach is not None:
                total = float(base.sum())
                self._limits.append((total + reach[0] * mass, total + reach[1] * mass))
            self._moments[0][:] += value * guess / p[place] ** 2
            self._moments[1][:] += guess**2 / p[place] ** 2
            if self._left[place]:
                self._sum = self._sum + value
                self._left[place] = False
            if not everywhere:
                rest, mass, remaining = rest - guess, mass - p[place], remaining - 1
        self._learn()
        self._follow()

    def _reach(self, left: NDArray[np.bool_]) -> tuple[float, float] | None:
        """Return the least and the largest difference over probability that may still come."""
        if self._bound is None or not left.any():
            return None
        guess = (self._guess[left] * self._beta).sum(axis=1)
        low, high = -guess / self.p[left], (self._bound[left] - guess) / self.p[left]
        return float(low.min()), float(high.max())

    def _learn(self) -> None:
        """Rescale the guesses so that what was drawn would have been guessed best."""
        factor, worth = self._prior
        crossed, squared = self._moments
        typical = worth * squared / self.drawn
        with np.errstate(invalid="ignore", divide="ignore"):
            beta = (factor * typical + crossed) / (typical + squared)
        self._beta = np.where(squared > 0, beta, factor)

    def _follow(self) -> None:
        terms = np.array(self._terms).sum(axis=1)
        if self.complete:
            low = high = float(self.estimate.sum())
        elif self._bound is not None:
            # Whatever was drawn: nothing is below zero, and nothing above its bound.
            low = float((self._known + self._sum).sum())
            high = low + float(self._bound[self._left].sum())
            least, most = np.array(self._limits).T
            low, high = betting(terms, least, most, self._weights, within=(low, high))
        else:
            found = asymptotic(terms, self._weights)
            if found is None:
                return
            low, high = found
        if self._anytime is not None and not self.complete:
            # An interval that holds at all moments at once: their common part.
            low, high = max(low, self._anytime[0]), min(high, self._anytime[1])
            if low > high:
                low, high = self._anytime
        self._anytime = low, high

    @property
    def estimate(self) -> Floats:
        """The total per class, ``(k,)``: unbiased after a number of draws fixed beforehand."""
        if self.complete:
            return np.asarray(self._known + self._sum)
        if not self._terms:
            return np.asarray(self._known + (self._beta * self._guess).sum(axis=0))
        weights = self._weights[: self.drawn]
        return np.asarray(weights @ np.array(self._terms) / weights.sum())

    @property
    def fixed(self) -> Interval | None:
        """The total's 95 % interval, for a number of draws that was fixed beforehand."""
        if self.complete:
            total = float(self.estimate.sum())
            return total, total
        if self.drawn < FEWEST:
            return None
        low, high = student(np.array(self._terms).sum(axis=1), self._weights[: self.drawn])
        if self._bound is None:
            return low, high
        least = float((self._known + self._sum).sum())
        most = least + float(self._bound[self._left].sum())
        return min(max(low, least), most), min(max(high, least), most)

    @property
    def anytime(self) -> Interval | None:
        """The total's 95 % interval that may be read at any moment, and stopped by."""
        return self._anytime
