"""Confidence intervals of a mean from weighted, uncorrelated draws, and intervals for all time.

Every draw has the same expectation, given those before it; its variance is assumed to be
inversely proportional to its weight. `student` holds for a number of draws that was fixed before
the first. The others are confidence sequences: they hold at all times simultaneously, so they may
be monitored and used to stop.

No maintained library has these (``confseq`` was last released in 2022).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ALPHA",
    "MIN_PLACES",
    "Interval",
    "asymptotic",
    "betting",
    "effective_number",
    "proportion_interval",
    "student",
    "student_quantile",
    "with_skew",
]

Floats = NDArray[np.float64]
Interval = tuple[float, float]

ALPHA = 0.05
"""One minus the confidence."""

MAX_STAKE = 0.5
"""Maximum fraction of the capital that one bet may lose."""

WARM_UP = 4
"""Draws without a bet, from which the variance is estimated first."""

MIN_DRAWS = 12
"""Minimum number of draws for an asymptotic interval."""

MIN_PLACES = 8
"""Minimum number of measured places for Student's interval; of counts, of places with objects."""

PARTS, PASSES = 32, 5
"""Search for an interval's end: so many parts, in so many passes."""

TINY = 1e-12


def student_quantile(freedom: float, alpha: float = ALPHA) -> float:
    """Return the quantile of Student's distribution at ``1 - alpha / 2``."""
    from scipy.special import stdtrit  # slow to import, and every command loads this

    return float(stdtrit(max(freedom, 1.0), 1 - alpha / 2))


def student(x: Floats, weights: Floats, alpha: float = ALPHA) -> Interval:
    """Return Student's interval of the mean.

    Parameters
    ----------
    x, weights : ndarray, shape (n,)
        At least two draws, and their positive weights, which do not depend on the draws.
    alpha : float
        One minus the confidence.
    """
    a = weights / weights.sum()
    mean = float(a @ x)
    # Unbiased for equal variances; with equal weights it is the sample variance over n.
    variance = float((a**2 * (x - mean) ** 2 / (1 - a)).sum())
    freedom = 1 / float((a**2).sum()) - 1
    half = student_quantile(freedom, alpha) * math.sqrt(variance)
    return mean - half, mean + half


def with_skew(interval: Interval, estimate: float, known: float, freedom: float) -> Interval:
    """Widen Student's interval for a total that is not negative, and skewed.

    Where few draws hold most of the total, Student's interval is too short above: it then also
    holds the log-normal one, of the same variance, for the part that is not known.

    Parameters
    ----------
    interval : tuple of float
        Student's interval.
    estimate, known : float
        The estimate, and the part of it that was measured.
    freedom : float
        Degrees of freedom of the interval.
    """
    low, high = interval
    rest, quantile = estimate - known, student_quantile(freedom)
    if rest <= 0:
        return max(low, known), max(high, known)
    sigma = math.sqrt(math.log1p(((high - low) / 2 / quantile / rest) ** 2))
    factor = math.exp(min(quantile * sigma, 700.0))
    return min(max(low, known), known + rest / factor), max(high, known + rest * factor)


def effective_number(weights: Floats) -> float:
    """Return the number of equal weights that are as uneven as these: ``sum² / sum of squares``."""
    squares = float((weights**2).sum())
    return float(weights.sum()) ** 2 / squares if squares > 0 else 0.0


def proportion_interval(
    share: float, deviation: float, freedom: float, amounts: Floats, sizes: Floats
) -> Interval:
    """Return the 95 % interval of a share of the area from places drawn at random.

    Student's interval, where the class and its complement are in enough places. Where few places
    hold nearly all of one, as of a class that no place has, it would be too short: it then also
    holds the interval of Clopper and Pearson (1934) for the effective number of places (Korn and
    Graubard, *Survey Methodology* 24, 1998), to which a place adds most if it is all of one class.

    Parameters
    ----------
    share : float
        The estimate, 0 to 1.
    deviation, freedom : float
        Its standard deviation, infinite if that is not known, and degrees of freedom.
    amounts, sizes : ndarray, shape (n,)
        Area of the class in each place, and of the place, both times the place's weight.

    Examples
    --------
    >>> low, high = proportion_interval(0.0, 0.0, 29, np.zeros(30), np.ones(30))
    >>> low, round(high, 3)  # about 3 / 30
    (0.0, 0.116)
    """
    from scipy.special import betaincinv  # slow to import, and every command loads this

    low, high = 0.0, 1.0
    if math.isfinite(deviation):
        half = student_quantile(freedom) * deviation
        low, high = max(0.0, share - half), min(1.0, share + half)
    if min(effective_number(amounts), effective_number(sizes - amounts)) >= MIN_PLACES:
        return low, high
    n = effective_number(sizes)
    hits = share * n
    least = float(betaincinv(hits, n - hits + 1, ALPHA / 2)) if hits > 0 else 0.0
    most = float(betaincinv(hits + 1, n - hits, 1 - ALPHA / 2)) if hits < n else 1.0
    if len(sizes) < MIN_PLACES:  # so few give no deviation
        return least, most
    return min(low, least), max(high, most)


def asymptotic(x: Floats, weights: Floats, alpha: float = ALPHA) -> Interval | None:
    """Return an asymptotic confidence sequence's interval after the draws so far.

    Robbins' normal mixture with the scatter estimated: Waudby-Smith, Arbour, Sinha, Kennedy and
    Ramdas, *Time-uniform central limit theory and asymptotic confidence sequences* (Annals of
    Statistics 2024). Tightest at the planned end.

    Parameters
    ----------
    x : ndarray, shape (k,)
        Draws so far.
    weights : ndarray, shape (n,)
        Weights of all planned draws, n >= k, positive.
    alpha : float
        One minus the confidence.

    Returns
    -------
    tuple of float or None
        None before `MIN_DRAWS` draws, or the planned number if that is less.
    """
    k, n = len(x), len(weights)
    if k < min(MIN_DRAWS, n) or k < 2:
        return None
    a = weights / weights.sum()
    a, done = a[:k], float(a[:k].sum())
    mean = float(a @ x) / done
    scatter = float((a * (x - mean) ** 2).sum()) / (k - 1)  # variance of a draw of weight 1
    variance = scatter * done  # of the martingale sum(a * (x - mean)), up to now
    # Makes the boundary nearly tightest at the planned end (Howard et al. 2021).
    tuned = scatter / (2 * math.log(1 / alpha) + math.log(1 + 2 * math.log(1 / alpha)))
    if tuned <= 0:
        return mean, mean
    boundary = math.sqrt((variance + tuned) * math.log((variance + tuned) / (tuned * alpha**2)))
    return mean - boundary / done, mean + boundary / done


def betting(
    x: Floats,
    low: Floats,
    high: Floats,
    weights: Floats,
    within: Interval,
    alpha: float = ALPHA,
) -> Interval:
    """Return the hedged capital process's interval after the draws so far.

    Bets against the hypothesis that the mean is m have expected gain zero if it is true: values of
    m against which the capital grows large are rejected (Ville). Waudby-Smith and Ramdas,
    *Estimating means of bounded random variables by betting* (JRSS B 2024), with limits that may
    differ from draw to draw, which covers draws without replacement.

    Parameters
    ----------
    x, low, high : ndarray, shape (k,)
        Draws so far, and the limits of each that were known before it.
    weights : ndarray, shape (n,)
        Weights of all planned draws, n >= k, positive.
    within : tuple of float
        Limits of the mean that hold with certainty.
    alpha : float
        One minus the confidence.
    """
    k = len(x)
    a = weights[:k] / weights.sum()
    scatter = _variance_before(x, a)
    bets = np.zeros(k)
    known = scatter > 0
    bets[known] = a[known] * np.sqrt(2 * math.log(2 / alpha) / scatter[known])
    goal = math.log(2 / alpha)

    def too_low(means: Floats) -> NDArray[np.bool_]:
        above = x - means[:, None]
        stake = np.minimum(bets, MAX_STAKE / np.maximum(means[:, None] - low, TINY))
        return _max_log_capital(stake * above) >= goal

    def too_high(means: Floats) -> NDArray[np.bool_]:
        below = means[:, None] - x
        stake = np.minimum(bets, MAX_STAKE / np.maximum(high - means[:, None], TINY))
        return _max_log_capital(stake * below) >= goal

    least, most = within
    lower = _rejection_boundary(too_low, least, most)
    upper = _rejection_boundary(too_high, most, least)
    # Should chance reject all values, the certain limits still hold.
    return (lower, upper) if lower <= upper else within


def _variance_before(x: Floats, a: Floats) -> Floats:
    """Return the variance of a draw of weight 1, estimated before each draw."""
    scatter = np.zeros(len(x))
    if len(x) <= WARM_UP:
        return scatter
    centred = x - x[0]
    sums = np.cumsum(a), np.cumsum(a * centred), np.cumsum(a * centred**2)
    freedom = np.arange(len(x))
    with np.errstate(invalid="ignore", divide="ignore"):
        after = (sums[2] - sums[1] ** 2 / sums[0]) / freedom
    scatter[WARM_UP:] = np.maximum(after[WARM_UP - 1 : -1], 0)
    return scatter


def _max_log_capital(gains: Floats) -> Floats:
    """Return the logarithm of the largest capital so far, starting from 1, for each row."""
    capital = np.cumsum(np.log1p(np.maximum(gains, TINY - 1)), axis=1)
    return np.asarray(capital.max(axis=1, initial=0.0))


def _rejection_boundary(
    rejected: Callable[[Floats], NDArray[np.bool_]], bad: float, good: float
) -> float:
    """Return the end of the rejected range, which begins at `bad`, approximated from inside."""
    for _ in range(PASSES):
        tried = np.linspace(bad, good, PARTS + 1)
        out = rejected(tried)
        if not out[0]:
            return bad
        last = PARTS if out.all() else int(out.argmin()) - 1
        bad, good = float(tried[last]), float(tried[min(last + 1, PARTS)])
    return bad
