"""Estimates of a total from a few measurements: enumeration, closed forms and simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from hrviewer.strategies.estimation.intervals import asymptotic, betting, student
from hrviewer.strategies.estimation.sampling import (
    SamplingEstimator,
    draw,
    expected_variance,
    expected_weights,
    probabilities,
    stratify,
)
from hrviewer.strategies.estimation.two_phase import batch_size
from hrviewer.strategies.tiling import BATCH_SIZE

EXACT = np.array([[3.0, 0.5], [0.0, 0.0], [7.0, 1.0], [1.0, 2.0], [4.0, 0.0]])
PREDICTION = np.array([[2.0, 1.0], [0.5, 0.0], [4.0, 0.5], [1.0, 1.0], [6.0, 0.2]])
SPREAD = np.array([1.0, 0.2, 2.0, 0.5, 1.5])


def estimator_of(draws, seed=0, **more):
    return SamplingEstimator(PREDICTION, SPREAD, draws, np.random.default_rng(seed), **more)


def estimator_after(order, rounds=1, **more):
    """Return an estimator with draws in a given order."""
    estimator = estimator_of(len(order), **more)
    estimator.order = np.array(order)
    for i in range(0, len(order), rounds):
        estimator.add(EXACT[estimator.order[i : i + rounds]])
    return estimator


def order_probability(order, p):
    """Return the probability of an order of draws without replacement."""
    left, total = 1.0, 1.0
    for place in order:
        total *= p[place] / left
        left -= p[place]
    return total


@pytest.mark.parametrize("calibrated", [True, False])
@pytest.mark.parametrize("rounds", [1, 2])
def test_unbiased_over_all_orders(calibrated, rounds):
    orders = list(itertools.permutations(range(5), 3))
    p = estimator_of(3).p
    chances = np.array([order_probability(order, p) for order in orders])
    assert chances.sum() == pytest.approx(1)
    found = np.array(
        [estimator_after(order, rounds, calibrated=calibrated).estimate for order in orders]
    )
    np.testing.assert_allclose(chances @ found, EXACT.sum(axis=0), rtol=1e-12)
    # Single draws are unbiased, too, also with a known part.
    known = np.array([10.0, 20.0])
    found = np.array(
        [
            estimator_after(order[:1], calibrated=calibrated, known=known).estimate
            for order in orders
        ]
    )
    np.testing.assert_allclose(chances @ found, EXACT.sum(axis=0) + known, rtol=1e-12)


def test_the_plain_mean_of_draws_without_replacement_is_biased():
    p = estimator_of(3).p
    attended = p @ EXACT[:, 0]
    orders = list(itertools.permutations(range(5), 3))
    plain = sum(order_probability(order, p) * EXACT[list(order), 0].mean() for order in orders)
    assert abs(plain / attended - 1) > 0.05
    weighted = sum(
        order_probability(order, p) * (EXACT[list(order), 0] / p[list(order)]).mean()
        for order in orders
    )
    assert abs(weighted / EXACT[:, 0].sum() - 1) > 0.05


def test_unbiased_with_replacement():
    orders = list(itertools.product(range(5), repeat=3))
    p = estimator_of(3).p
    chances = np.array([np.prod(p[list(order)]) for order in orders])
    found = np.array([estimator_after(order, replace=True).estimate for order in orders])
    np.testing.assert_allclose(chances @ found, EXACT.sum(axis=0), rtol=1e-12)


def test_draws_have_their_probabilities():
    p, rng, n = np.array([0.6, 0.3, 0.1]), np.random.default_rng(0), 20_000
    orders = [tuple(draw(p, 2, rng)) for _ in range(n)]
    for order in itertools.permutations(range(3), 2):
        expected = order_probability(order, p)
        error = math.sqrt(expected * (1 - expected) / n)
        assert orders.count(order) / n == pytest.approx(expected, abs=4 * error)


def test_every_cell_may_be_drawn():
    p = probabilities(np.array([0.0, 0.0, 5.0]), 0.3)
    np.testing.assert_allclose(p, [0.1, 0.1, 0.8])
    np.testing.assert_allclose(probabilities(np.zeros(4), 0.1), 0.25)


def test_weights_are_fixed_beforehand_and_grow():
    p = probabilities(SPREAD, 0.1)
    weights = expected_weights(expected_variance(p, SPREAD, 4))
    assert weights.sum() == pytest.approx(1)
    assert (np.diff(weights) > 0).all()
    # Among a million equal cells the last draw has the variance of the first.
    many = expected_weights(expected_variance(np.full(1_000_000, 1e-6), np.ones(1_000_000), 10))
    np.testing.assert_allclose(many, 0.1, rtol=1e-3)


@pytest.mark.parametrize("bound", [None, np.full(5, 10.0)])
def test_measuring_all_cells_gives_certainty(bound):
    estimator = estimator_after(range(5), 2, upper_bounds=bound)
    assert estimator.complete
    np.testing.assert_allclose(estimator.estimate, EXACT.sum(axis=0), rtol=1e-12)
    assert (
        estimator.fixed_interval
        == estimator.anytime_interval
        == pytest.approx((EXACT.sum(), EXACT.sum()))
    )


def test_a_right_prediction_gives_the_total_at_once():
    estimator = SamplingEstimator(EXACT, SPREAD, 3, np.random.default_rng(0))
    estimator.add(EXACT[estimator.order])
    np.testing.assert_allclose(estimator.estimate, EXACT.sum(axis=0))
    np.testing.assert_allclose(estimator.factor, 1)
    low, high = estimator.fixed_interval
    assert high - low < 1e-9


def test_the_factor_of_scores_is_estimated():
    estimator = SamplingEstimator(EXACT / 7, SPREAD, 4, np.random.default_rng(0), calibrated=False)
    estimator.add(EXACT[estimator.order])
    np.testing.assert_allclose(estimator.factor, 7)


def test_without_draws_the_estimate_is_the_prediction():
    estimator = estimator_of(3)
    np.testing.assert_allclose(estimator.estimate, PREDICTION.sum(axis=0))
    assert estimator.fixed_interval is None
    assert estimator.anytime_interval is None


# Strata.

ROW = np.stack([np.zeros(5, int), np.arange(5)], axis=1)


def test_strata_are_neighbours_of_the_same_probability():
    rng = np.random.default_rng(0)
    where = np.argwhere(np.ones((24, 40)))
    p = probabilities(rng.gamma(1, 1, len(where)), 0.1)
    of = stratify(p, where, 6)
    assert sorted(set(of)) == list(range(6))
    for h in range(6):
        assert p[of == h].sum() == pytest.approx(1 / 6, abs=2 * p.max())
    near = sum((of.reshape(24, 40)[:, 1:] == of.reshape(24, 40)[:, :-1]).ravel())
    assert near > 0.9 * 24 * 39
    assert stratify(np.array([0.98, 0.01, 0.01]), ROW[:3], 2).tolist() == [0, 1, 1]


@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("replace", [False, True])
def test_unbiased_over_all_rounds(batch, replace):
    estimator = estimator_of(4, positions=ROW, strata=2, replace=replace)
    parts = [np.flatnonzero(estimator._stratum_of == h) for h in (0, 1)]
    assert [len(part) for part in parts] == [3, 2]
    pick = (lambda part: itertools.product(part, repeat=2)) if replace else (
        lambda part: itertools.permutations(part, 2)
    )  # fmt: skip
    total, mean = 0.0, np.zeros(2)
    for one, other in itertools.product(pick(parts[0]), pick(parts[1])):
        probability = 1.0
        for own, part in ((one, parts[0]), (other, parts[1])):
            p = np.zeros(5)
            p[part] = estimator.p[part] / estimator.p[part].sum()
            probability *= np.prod(p[list(own)]) if replace else order_probability(own, p)
        other_estimator = estimator_of(4, positions=ROW, strata=2, replace=replace)
        assert other_estimator._ends == [2, 4]
        other_estimator.order = np.array([one[0], other[0], one[1], other[1]])
        for i in range(0, 4, batch):
            other_estimator.add(EXACT[other_estimator.order[i : i + batch]])
        total, mean = total + probability, mean + probability * other_estimator.estimate
    assert total == pytest.approx(1)
    np.testing.assert_allclose(mean, EXACT.sum(axis=0), rtol=1e-12)


@pytest.mark.parametrize("bound", [None, np.full(5, 10.0)])
def test_measuring_all_strata_gives_certainty(bound):
    estimator = estimator_of(5, positions=ROW, strata=2, upper_bounds=bound)
    assert sorted(estimator.order) == list(range(5))
    for i in range(5):
        estimator.add(EXACT[estimator.order[i : i + 1]])
        assert (
            estimator.anytime_interval is None
            or estimator.anytime_interval[0] <= EXACT.sum() <= estimator.anytime_interval[1]
        )
    assert estimator.complete
    np.testing.assert_allclose(estimator.estimate, EXACT.sum(axis=0), rtol=1e-12)
    assert (
        estimator.fixed_interval
        == estimator.anytime_interval
        == pytest.approx((EXACT.sum(), EXACT.sum()))
    )


@pytest.mark.slow
def test_strata_reduce_the_effect_of_local_errors():
    rng = np.random.default_rng(3)
    where = np.argwhere(np.ones((20, 30)))
    prediction = rng.gamma(2, 4, len(where))
    # Half the count on one side, too many on the other, and random errors.
    wrong = np.where(where[:, 1] < 15, 2.0, 0.7) * np.exp(0.1 * rng.standard_normal(len(where)))
    exact = rng.poisson(prediction * wrong).astype(float)
    spread, runs, found, covered = np.sqrt(0.2 * prediction**2 + prediction), 250, {}, 0
    for parts in (1, 4):
        estimates = []
        for seed in range(runs):
            estimator = SamplingEstimator(
                prediction[:, None], spread, 96, np.random.default_rng([9, seed]),
                positions=where, strata=parts,
            )  # fmt: skip
            assert len(estimator.order) == 96
            estimator.add(exact[estimator.order, None])
            estimates.append(estimator.estimate[0])
            low, high = estimator.fixed_interval
            covered += parts == 4 and low <= exact.sum() <= high
        found[parts] = np.array(estimates)
    assert found[4].std() < 0.85 * found[1].std()
    assert abs(found[4].mean() - exact.sum()) < 4 * found[4].std() / math.sqrt(runs)
    assert 0.92 <= covered / runs <= 0.98


# Intervals.


def test_student_equals_scipy():
    x = np.random.default_rng(0).normal(size=12)
    low, high = student(x, np.ones(12))
    expected = stats.ttest_1samp(x, 0).confidence_interval(0.95)
    assert (low, high) == pytest.approx((expected.low, expected.high))


def test_asymptotic_equals_the_publication():
    n, planned, alpha = 40, 100, 0.05
    x = np.random.default_rng(0).normal(3, 2, n)
    low, high = asymptotic(x, np.ones(planned))
    # Waudby-Smith et al. 2024, theorem 2.2 and its rho, with the unbiased variance.
    rho2 = (-2 * math.log(alpha) + math.log(-2 * math.log(alpha) + 1)) / planned
    inside = 2 * (n * rho2 + 1) / (n**2 * rho2) * math.log(math.sqrt(n * rho2 + 1) / alpha)
    half = x.std(ddof=1) * math.sqrt(inside)
    assert (low, high) == pytest.approx((x.mean() - half, x.mean() + half))
    assert asymptotic(x[:3], np.ones(planned)) is None


def test_betting_equals_the_hedged_capital():
    rng, planned = np.random.default_rng(1), 60
    x = rng.beta(2, 5, 40)
    low, high = betting(x, np.zeros(40), np.ones(40), np.ones(planned), (0.0, 1.0))
    goal = 2 / 0.05

    def fortune(mean, sign):
        capital = best = 1.0
        for i in range(4, 40):
            bet = math.sqrt(2 * math.log(2 / 0.05) / (planned * x[:i].var(ddof=1)))
            limit = 0.5 / (mean if sign > 0 else 1 - mean)
            capital *= 1 + min(bet, limit) * sign * (x[i] - mean)
            best = max(best, capital)
        return best

    assert 0 < low < x.mean() < high < 1
    assert fortune(low, 1) == pytest.approx(goal, rel=1e-3)
    assert fortune(high, -1) == pytest.approx(goal, rel=1e-3)


def population(n=600):
    """Return clustered counts, 85 % of cells nearly empty, a prediction and its spread."""
    rng = np.random.default_rng(1)
    rate = np.where(rng.random(n) < 0.15, rng.gamma(1.2, 12, n), 0.0)
    exact = rng.poisson(rate) + 0.05 * np.abs(rng.standard_normal(n))
    prediction = exact * np.exp(0.35 * rng.standard_normal(n)) + 0.3 * np.abs(
        rng.standard_normal(n)
    )
    spread = np.sqrt((0.4 * prediction) ** 2 + 0.3 * prediction + 0.05)
    return exact, prediction, spread


@pytest.mark.parametrize(
    ("draws", "calibrated"), [(30, True), pytest.param(60, False, marks=pytest.mark.slow)]
)
def test_intervals_have_their_coverage(draws, calibrated):
    exact, prediction, spread = population()
    total, runs = exact.sum(), 800
    errors, halves, covered, always = [], [], 0, 0
    for seed in range(runs):
        estimator = SamplingEstimator(
            prediction[:, None],
            spread,
            draws,
            np.random.default_rng([7, seed]),
            calibrated=calibrated,
        )
        held_all_along = True
        for i in range(0, draws, 10):
            estimator.add(exact[estimator.order[i : i + 10], None])
            if estimator.anytime_interval is not None:
                held_all_along &= (
                    estimator.anytime_interval[0] <= total <= estimator.anytime_interval[1]
                )
        low, high = estimator.fixed_interval
        errors.append(estimator.estimate[0] - total)
        halves.append((high - low) / 2)
        covered += low <= total <= high
        always += held_all_along
    spread_of_errors = np.std(errors)
    assert abs(np.mean(errors)) < 4 * spread_of_errors / math.sqrt(runs)
    assert 0.93 <= covered / runs <= 0.97
    assert np.mean(halves) <= 1.25 * 1.96 * spread_of_errors
    assert always / runs >= 0.95


@pytest.mark.slow
def test_the_bounded_interval_covers_at_all_times():
    exact, prediction, spread = population(120)
    total, runs, draws = exact.sum(), 800, 36
    always, narrower = 0, 0
    for seed in range(runs):
        estimator = SamplingEstimator(
            prediction[:, None],
            spread,
            draws,
            np.random.default_rng([8, seed]),
            upper_bounds=np.full(120, 60.0),
            floor=0.3,
        )
        intervals = []
        for i in range(0, draws, 12):
            estimator.add(exact[estimator.order[i : i + 12], None])
            intervals.append(estimator.anytime_interval)
        always += all(low <= total <= high for low, high in intervals)
        widths = [high - low for low, high in intervals]
        assert widths == sorted(widths, reverse=True)
        narrower += widths[-1] < widths[0]
    assert always / runs >= 0.95
    assert narrower == runs


def test_batch_size_of_updates():
    assert [batch_size(draws) for draws in (1, 48, 60, 61, 120, 10**6)] == [
        4,
        4,
        5,
        6,
        10,
        BATCH_SIZE,
    ]


def test_draws_that_found_nothing_give_no_interval():
    nothing = np.zeros((12, 1))
    estimator = SamplingEstimator(nothing, np.ones(12), 6, np.random.default_rng(0))
    estimator.add(nothing[estimator.order])
    assert estimator.fixed_interval is None
    bounded = SamplingEstimator(
        nothing, np.ones(12), 6, np.random.default_rng(0), upper_bounds=np.ones(12)
    )
    bounded.add(nothing[bounded.order])
    assert bounded.fixed_interval is not None
