"""The expansion of a stratified random sample of places, against closed forms."""

from __future__ import annotations

import math
from itertools import combinations, product

import numpy as np
import pytest

from hrviewer.strategies.estimation.stratified import StratifiedEstimator, stratified_order


def grid(rows: int, columns: int) -> np.ndarray:
    return np.argwhere(np.ones((rows, columns), bool))


def column(*values: float) -> np.ndarray:
    return np.array(values, float)[:, None]


def test_every_beginning_is_a_stratified_sample() -> None:
    drawn = stratified_order(grid(7, 9), 30, np.random.default_rng(3))
    assert sorted(drawn.order) == list(range(63))
    assert len(set(drawn.stratum)) == 10
    for n in range(1, 61):
        counts = np.bincount(drawn.stratum[drawn.order[:n]], minlength=10)
        assert counts.max() - counts.min() <= 1


def test_each_place_is_drawn_equally_often() -> None:
    first = [
        stratified_order(grid(4, 6), 12, np.random.default_rng(i)).order[:4] for i in range(900)
    ]
    counts = np.bincount(np.concatenate(first), minlength=24)
    assert abs(counts - 150).max() < 5 * math.sqrt(150)


def test_one_stratum_is_a_simple_random_sample() -> None:
    values = np.array([2.0, 5.0, 3.0, 8.0])
    sample = StratifiedEstimator(
        values[:, None], np.arange(4), np.full(10, 7.0), np.zeros(10, np.intp)
    )
    assert sample.total == pytest.approx([10 * values.mean()])
    deviation, freedom = sample.deviation(np.ones(1))
    assert deviation == pytest.approx(math.sqrt(100 * (1 - 0.4) * values.var(ddof=1) / 4))
    assert freedom == pytest.approx(3)


def test_total_and_variance_have_the_right_expectation_over_all_samples() -> None:
    rng = np.random.default_rng(0)
    values = rng.gamma(0.5, 10, 9)
    stratum = np.repeat([0, 1], [5, 4])
    totals, variances = [], []
    for one, two in product(combinations(range(5), 3), combinations(range(5, 9), 2)):
        drawn = np.array(one + two)
        sample = StratifiedEstimator(values[drawn][:, None], drawn, np.ones(9), stratum)
        totals.append(float(sample.total[0]))
        variances.append(sample.deviation(np.ones(1))[0] ** 2)
    assert np.mean(totals) == pytest.approx(values.sum())
    assert np.mean(variances) == pytest.approx(np.var(totals))


def test_measuring_everything_is_exact() -> None:
    values = np.array([[1.0, 2.0], [0.0, 4.0], [5.0, 1.0], [2.0, 2.0]])
    sample = StratifiedEstimator(values, np.arange(4), np.full(4, 3.0), np.zeros(4, np.intp))
    assert sample.total == pytest.approx(values.sum(axis=0))
    assert sample.coverage == 1
    assert sample.deviation(np.ones(2))[0] == 0


def test_areas_sum_to_the_whole_where_tiles_at_the_border_are_smaller() -> None:
    sizes = np.array([64.0, 64, 64, 20, 64, 64, 64, 20, 30, 30, 30, 9])
    drawn = stratified_order(grid(3, 4), 6, np.random.default_rng(1))
    some = drawn.order[:6]
    shares = np.random.default_rng(2).dirichlet([1, 2, 3], 6)
    sample = StratifiedEstimator(shares * sizes[some, None], some, sizes, drawn.stratum)
    assert sample.ratio.sum() == pytest.approx(1)
    assert sample.total.sum() == pytest.approx(sizes.sum())


def test_a_density_proportional_to_the_area_has_no_variance() -> None:
    sizes = np.array([64.0, 20, 64, 30, 64, 9, 64, 20, 30, 9])
    drawn = np.array([0, 1, 2, 3, 5, 6, 8, 9])
    sample = StratifiedEstimator(0.5 * sizes[drawn][:, None], drawn, sizes, np.repeat([0, 1], 5))
    assert sample.total == pytest.approx([0.5 * sizes.sum()])
    assert sample.total_interval() == pytest.approx((0.5 * sizes.sum(),) * 2)


def test_strata_with_one_place_are_collapsed() -> None:
    stratum = np.repeat([0, 1, 2], 4)
    sample = StratifiedEstimator(column(1, 3, 8), np.array([0, 4, 8]), np.ones(12), stratum)
    assert sample.total == pytest.approx([48])
    deviation, _ = sample.deviation(np.ones(1))
    assert deviation == pytest.approx(math.sqrt(144 * (1 - 3 / 12) * np.var([1, 3, 8], ddof=1) / 3))


def test_failed_places_widen_the_interval_and_are_estimated_by_the_others() -> None:
    rng = np.random.default_rng(5)
    values = 10 + 2 * np.cos(grid(6, 10) * 0.9).sum(axis=1, keepdims=True)
    drawn = stratified_order(grid(6, 10), 60, rng)
    whole = np.arange(60)
    lost = values.copy()
    lost[36:] = np.nan  # the end of a file
    sample = StratifiedEstimator(lost, whole, np.ones(60), drawn.stratum)
    assert sample.coverage == pytest.approx(0.6)
    assert sample.total == pytest.approx([values[:36].mean() * 60], rel=0.1)
    low, high = sample.total_interval() or (0, 0)
    assert low < float(values.sum()) < high
    scattered = values.copy()
    scattered[rng.permutation(60)[:24]] = np.nan
    other = StratifiedEstimator(scattered, whole, np.ones(60), drawn.stratum)
    narrow = other.total_interval() or (0, math.inf)
    assert 0 < narrow[1] - narrow[0] < high - low


@pytest.mark.parametrize("values", [(), (4.0,), (4.0, 6.0, 3.0), (math.nan,) * 9, (0.0,) * 9])
def test_too_few_places_have_no_interval(values: tuple[float, ...]) -> None:
    sample = StratifiedEstimator(
        np.reshape(values, (-1, 1)), np.arange(len(values)), np.ones(20), np.zeros(20, np.intp)
    )
    assert sample.total_interval() is None


def test_intervals_hold_the_total_of_clustered_counts() -> None:
    rng = np.random.default_rng(11)
    held, given = 0, 0
    for _ in range(300):
        counts = rng.negative_binomial(0.5, 0.1, (16, 16)).astype(float).ravel()
        order = stratified_order(grid(16, 16), 60, rng)
        drawn = order.order[:60]
        sample = StratifiedEstimator(counts[drawn][:, None], drawn, np.ones(256), order.stratum)
        interval = sample.total_interval()
        if interval is not None:
            given += 1
            held += interval[0] <= counts.sum() <= interval[1]
    assert given > 280
    assert 0.92 < held / given < 0.995


def test_shares_have_an_interval_within_zero_and_one() -> None:
    rng = np.random.default_rng(4)
    shares = rng.dirichlet([0.5, 0.5], 40)
    order = stratified_order(grid(5, 8), 20, rng)
    drawn = order.order[:20]
    sizes = np.full(40, 9.0)
    sample = StratifiedEstimator(shares[drawn] * 9, drawn, sizes, order.stratum)
    low, high = sample.share_intervals()[0]
    assert 0 <= low < float(sample.ratio[0]) < high <= 1
    assert low < float(shares[:, 0].mean()) < high
