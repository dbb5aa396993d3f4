"""Expanding a stratified random sample of places to the whole region.

Neighbouring places form strata, and places are drawn from all strata in turn, in random order, so
that every beginning of the order is a stratified random sample: a run may stop anywhere. Totals
are estimated by the combined ratio estimator with the places' areas as the auxiliary variable and
the finite population correction (Cochran, *Sampling Techniques*, 1977, ch. 5 and 6.11), so area
fractions and probabilities sum to one. Strata with a single place are collapsed with a neighbour.

Counts are skewed: where few places hold most objects, Student's interval with Satterthwaite's
degrees of freedom is too short above. The interval therefore also holds the log-normal one for the
part of the total that was not measured.

Places that were drawn but failed are often neighbours, as in a file that is cut off. Their
variance is estimated between blocks of as many places as failed in a row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hrviewer.strategies.estimation.intervals import (
    MIN_PLACES,
    Interval,
    proportion_interval,
    student_quantile,
)
from hrviewer.strategies.estimation.sampling import stratify

__all__ = ["MIN_PLACES", "StratifiedEstimator", "StratifiedOrder", "stratified_order"]

Floats = NDArray[np.float64]

PLACES_PER_STRATUM = 3
"""Places drawn from each stratum: two give too few degrees of freedom for skewed counts."""

MAX_STRATA = 256
"""Maximum number of strata: more improve the estimate little, and slow its updates."""

MAX_HALF_WIDTH = 2.0
"""Half of an interval that is wider, relative to the estimate, is of no use, and is not given."""

MIN_BLOCKS = 4
"""Blocks between which the variance of failed places is estimated."""


@dataclass(frozen=True)
class StratifiedOrder:
    """An order in which to measure places.

    Attributes
    ----------
    order : ndarray of int, shape (n,)
        All places; every beginning is a stratified random sample.
    stratum : ndarray of int, shape (n,)
        Stratum of each place, from 0; strata with neighbouring numbers are neighbours.
    """

    order: NDArray[np.intp]
    stratum: NDArray[np.intp]


def stratified_order(
    positions: NDArray[np.intp], planned: int, rng: np.random.Generator
) -> StratifiedOrder:
    """Draw places from strata of neighbours in turn.

    Parameters
    ----------
    positions : ndarray of int, shape (n, 2)
        Row and column of each place, not negative.
    planned : int
        Number of places that will be measured, as far as it is known.
    rng : numpy.random.Generator
        Source of randomness.

    Examples
    --------
    >>> grid = np.argwhere(np.ones((4, 4), bool))
    >>> drawn = stratified_order(grid, 12, np.random.default_rng(0))
    >>> sorted(int(drawn.stratum[place]) for place in drawn.order[:4])  # one of each quarter
    [0, 1, 2, 3]
    """
    n = len(positions)
    strata = max(1, min(MAX_STRATA, min(planned, n) // PLACES_PER_STRATUM))
    stratum = stratify(np.full(n, 1 / n), positions, strata)
    shuffled = rng.permutation(n)
    shuffled = shuffled[np.argsort(stratum[shuffled], kind="stable")]
    sorted_strata = stratum[shuffled]
    round_of = np.arange(n) - np.searchsorted(sorted_strata, sorted_strata)
    return StratifiedOrder(shuffled[np.lexsort((rng.random(n), round_of))], stratum)


class StratifiedEstimator:
    """Estimate of totals over all places from those that were measured.

    Parameters
    ----------
    values : ndarray, shape (m, k)
        Measurements of drawn places per class: counts, or areas; NaN where one failed.
    drawn : ndarray of int, shape (m,)
        The drawn places.
    sizes : ndarray, shape (n,)
        Area of every place.
    stratum : ndarray of int, shape (n,)
        Stratum of every place, see `StratifiedOrder`.

    Attributes
    ----------
    measured : ndarray of bool, shape (m,)
        Which drawn places did not fail.
    coverage : float
        Fraction of the area that was measured.

    Examples
    --------
    >>> sizes, stratum = np.full(4, 10.0), np.array([0, 0, 1, 1])
    >>> sample = StratifiedEstimator(np.array([[3.0], [5.0]]), np.array([0, 2]), sizes, stratum)
    >>> sample.total, sample.coverage
    (array([16.]), 0.5)
    """

    def __init__(
        self,
        values: Floats,
        drawn: NDArray[np.intp],
        sizes: Floats,
        stratum: NDArray[np.intp],
    ) -> None:
        self.measured: NDArray[np.bool_] = np.asarray(np.isfinite(values).all(axis=1))
        self._size = float(sizes.sum())
        self._population = np.bincount(stratum)
        # Along the strata, for blocks of neighbours.
        along = np.lexsort((drawn, stratum[drawn]))
        self._lost = ~self.measured[along]
        self._lost_in_order = ~self.measured[np.argsort(drawn)]
        expansion = (self._population / np.maximum(np.bincount(stratum[drawn], minlength=len(
            self._population)), 1))[stratum[drawn[along]]]  # fmt: skip
        self._lost_size = float((sizes[drawn] * ~self.measured)[along] @ expansion)
        kept = along[~self._lost]
        self._values, self._sizes = values[kept], sizes[drawn[kept]]
        self._stratum = stratum[drawn[kept]]
        self._failed_strata = np.setdiff1d(stratum[drawn], self._stratum)
        self.coverage = float(self._sizes.sum()) / self._size

    @cached_property
    def _groups(self) -> list[tuple[int, NDArray[np.intp]]]:
        """Strata with at least two measured places each: their population, and those places.

        A stratum with fewer is joined with its neighbour. One whose drawn places all failed is
        left out: the ratio of the others stands for it.
        """
        groups: list[tuple[int, NDArray[np.intp]]] = []
        population, places = 0, np.zeros(0, np.intp)
        # Measurements are sorted by stratum.
        edges = np.searchsorted(self._stratum, np.arange(len(self._population) + 1))
        failed = set(self._failed_strata.tolist())
        for h, size in enumerate(self._population):
            if h in failed:
                continue
            population += int(size)
            places = np.append(places, np.arange(edges[h], edges[h + 1]))
            if len(places) >= 2:
                groups.append((population, places))
                population, places = 0, np.zeros(0, np.intp)
        if population and groups:
            last_population, last_places = groups.pop()
            groups.append((last_population + population, np.append(last_places, places)))
        elif len(places):
            groups.append((population, places))
        return groups

    def _expand(self, amounts: Floats) -> Floats:
        """Sum amounts of the measured places, each weighted by those that it stands for."""
        return np.asarray(sum(n * amounts[at].mean(axis=0) for n, at in self._groups))

    @cached_property
    def ratio(self) -> Floats:
        """Amount per area and class, ``(k,)``; NaN if nothing was measured."""
        if not self.measured.any():
            return np.full(self._values.shape[1], np.nan)
        return np.asarray(self._expand(self._values) / self._expand(self._sizes))

    @property
    def total(self) -> Floats:
        """Amount over the whole area per class, ``(k,)``."""
        return self.ratio * self._size

    def deviation(self, combination: Floats) -> tuple[float, float]:
        """Return the standard deviation of a linear combination of the classes' totals.

        Parameters
        ----------
        combination : ndarray, shape (k,)
            Factor of each class.

        Returns
        -------
        deviation, freedom : float
            The standard deviation, infinite where it cannot be estimated, and Satterthwaite's
            degrees of freedom.
        """
        if len(self._values) < 2:
            return math.inf, 0.0
        residual = self._values @ combination - float(self.ratio @ combination) * self._sizes
        scale = self._size / float(self._expand(self._sizes))
        parts = [
            (
                scale**2 * n**2 * max(0.0, 1 - len(at) / n) * residual[at].var(ddof=1) / len(at),
                len(at) - 1,
            )
            for n, at in self._groups
            if len(at) > 1
        ]
        if self._lost.any():
            parts.append(self._variance_of_lost(residual))
        variance = sum(part for part, _ in parts)
        spread = sum(part**2 / freedom for part, freedom in parts)
        return math.sqrt(variance), variance**2 / spread if spread > 0 else len(self._values) - 1

    def _variance_of_lost(self, residual: Floats) -> tuple[float, int]:
        """Return the variance of what failed places hold, and its degrees of freedom."""
        together = max(_longest_run(self._lost), _longest_run(self._lost_in_order))
        measured = len(residual)
        count = max(2, measured // max(1, min(together, measured // MIN_BLOCKS)))
        blocks = np.array_split(np.arange(measured), count)
        density = np.array([residual[at].sum() / self._sizes[at].sum() for at in blocks])
        apart = max(1.0, float(self._lost.sum()) / together)
        variance = self._lost_size**2 * density.var(ddof=1) * (1 / apart + 1 / count)
        return float(variance), count - 1

    def total_interval(self) -> Interval | None:
        """Return the 95 % interval of the sum of totals that are not negative.

        Returns
        -------
        tuple of float or None
            None where too few places were measured, or the interval would say nothing.
        """
        ones = np.ones(self._values.shape[1])
        half = self._half_width(ones)
        estimate, known = float(self.total.sum()), float(self._values.sum())
        # Clusters that the sample missed are not in its variance, if it found few.
        if half is None or np.count_nonzero(self._values.sum(axis=1)) < MIN_PLACES:
            return None
        low, high, rest = max(estimate - half, known), estimate + half, estimate - known
        if rest > 0:
            deviation, freedom = self.deviation(ones)
            sigma = math.sqrt(math.log1p((deviation / rest) ** 2))
            factor = math.exp(min(student_quantile(freedom) * sigma, 700.0))
            low, high = min(low, known + rest / factor), max(high, known + rest * factor)
        return (low, high) if (high - low) / 2 <= MAX_HALF_WIDTH * estimate else None

    def share_intervals(self) -> Floats:
        """Return the 95 % interval of each class's fraction of the area, ``(k, 2)``.

        The measured part is known; the rest is between none and all of a class.
        """
        intervals = np.tile([0.0, 1.0], (self._values.shape[1], 1))
        rest = 1 - self.coverage
        if not len(self._values):
            return intervals
        for column, share in enumerate(self.ratio):
            known = float(self._values[:, column].sum()) / self._size
            low = high = 0.0
            if rest > 0:
                deviation, freedom = self.deviation(np.eye(len(intervals))[column])
                low, high = proportion_interval(
                    float(np.clip((share - known) / rest, 0, 1)),
                    deviation / self._size / rest,
                    freedom,
                    self._values[:, column],
                    self._sizes,
                )
            intervals[column] = known + rest * low, known + rest * high
        return intervals

    def mean_intervals(self) -> Floats | None:
        """Return the 95 % interval of each amount per area, ``(k, 2)``, which has no limits."""
        classes = np.eye(self._values.shape[1])
        halves = [self._half_width(each) for each in classes]
        if any(half is None for half in halves):
            return None
        half = np.array(halves, float) / self._size
        return np.stack([self.ratio - half, self.ratio + half], axis=1)

    def _half_width(self, combination: Floats) -> float | None:
        """Return Student's half-width; None where too few places were measured."""
        if len(self._values) < MIN_PLACES:
            return None
        deviation, freedom = self.deviation(combination)
        return student_quantile(freedom) * deviation


def _longest_run(flags: NDArray[np.bool_]) -> int:
    """Return the length of the longest run of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(int)))
    return int((edges[1::2] - edges[::2]).max(initial=0))
