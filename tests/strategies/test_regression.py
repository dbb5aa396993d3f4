"""A ratio of few measurements, combined with a prior: closed forms and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hrviewer.models.accuracy import ASSUMED_ERROR
from hrviewer.strategies.estimation.regression import (
    CalibrationFactor,
    calibrate,
    context_error,
    inclusion_probabilities,
)
from hrviewer.strategies.estimation.sampling import draw, probabilities

PRIOR = ASSUMED_ERROR.ratio_deviation
MEASURED = ASSUMED_ERROR.model_copy(
    update={"ratio": 0.8, "ratio_deviation": 0.2, "spread": 0.5, "cell_deviation": 0.4,
            "slack": 0.01, "quantiles": (-2.0, 3.0)}
)  # fmt: skip


def column(*values: float) -> np.ndarray:
    return np.array(values, float)[:, None]


def test_inclusion_probabilities() -> None:
    rng = np.random.default_rng(0)
    p = probabilities(rng.gamma(0.5, size=40), 0.1)
    often = np.zeros(40)
    for _ in range(8000):
        often[draw(p, 12, rng)] += 1 / 8000
    expected = inclusion_probabilities(p, 12)
    assert expected.sum() == pytest.approx(12, rel=1e-9)
    np.testing.assert_allclose(expected, often, atol=0.025)
    assert (inclusion_probabilities(p, 40) == 1).all()
    assert (inclusion_probabilities(p, 0) == 0).all()


def test_without_measurements_the_factor_is_the_prior() -> None:
    none = np.zeros((0, 2))
    found = calibrate(none, none, np.zeros(0), np.zeros(0))
    assert found.value.tolist() == [1, 1]
    assert found.deviation == pytest.approx([PRIOR, PRIOR])


def test_prior_and_ratio_are_weighted_by_precision() -> None:
    prediction, values = column(2, 4), column(6, 8)
    found = calibrate(prediction, values, np.array([1.0, 1.0]), np.array([3.0, 4.0]))
    # The ratio is 14 / 6; its variance from the predictions', 25, exceeds that of the residuals.
    ratio, variance = 14 / 6, 25 / 36
    rests = 2 * ((6 - 2 * ratio) ** 2 + (8 - 4 * ratio) ** 2)
    assert rests < 25
    weights = 1 / variance, 1 / PRIOR**2
    expected = (weights[0] * ratio + weights[1]) / sum(weights)
    assert found.value[0] == pytest.approx(expected)
    assert found.deviation[0] == pytest.approx(1 / math.sqrt(sum(weights)))


def test_empty_cells_do_not_make_the_factor_zero() -> None:
    found = calibrate(column(0.01, 0.02), column(0, 0), np.ones(2), np.array([0.3, 0.3]))
    assert found.value[0] == pytest.approx(1, abs=0.01)


def test_precise_measurements_outweigh_the_prior() -> None:
    none = np.zeros(2)
    found = calibrate(column(1, 2), column(3, 6), np.array([0.5, 0.1]), none)
    assert found.value[0] == pytest.approx(3)
    assert found.deviation[0] == pytest.approx(0, abs=1e-5)
    # Cells without a prediction do not change the factor.
    assert calibrate(column(0, 0), column(3, 6), np.ones(2), none).value[0] == pytest.approx(1)


def test_the_interval_is_that_of_a_sum() -> None:
    known, prediction, spread = 10.0, column(3, 5), np.array([1.0, 2.0])
    low, high = CalibrationFactor(np.array([0.9]), np.array([0.1])).interval(
        known, prediction, spread
    )
    half = 1.96 * math.sqrt((8 * 0.1) ** 2 + 5)
    assert (low + high) / 2 == pytest.approx(10 + 7.2)
    assert (high - low) / 2 == pytest.approx(half, rel=1e-5)
    # Measurements with less context than needed may be wrong by 1.5 %.
    wider = CalibrationFactor(np.array([0.9]), np.array([0.1])).interval(
        known, prediction, spread, context_error(32, 96)
    )
    wide = math.hypot(half, 0.15)
    assert wider == pytest.approx((17.2 - wide, 17.2 + wide), rel=1e-5)
    assert context_error(96, 96) == 0
    # The total is at least what was measured.
    assert (
        CalibrationFactor(np.array([0.0]), np.array([1.0])).interval(known, prediction, spread)[0]
        == known
    )


def test_the_measured_error_of_a_scout_is_used() -> None:
    # Without draws, the factor is that of other images, and its deviation theirs.
    none = np.zeros((0, 1))
    found = calibrate(none, none, np.zeros(0), np.zeros(0), MEASURED)
    assert (found.value[0], found.deviation[0]) == pytest.approx((0.8, 0.16))
    low, high = found.interval(10.0, column(3, 5), np.array([1.0, 2.0]))
    middle = 10 + 0.8 * 8
    deviation = math.sqrt((8 * 0.16) ** 2 + 0.5**2 * 5 + (0.01 * middle) ** 2)
    assert (low, high) == pytest.approx((middle - 2 * deviation, middle + 3 * deviation))
    noisy = CalibrationFactor(
        *(found.value, found.deviation), MEASURED.model_copy(update={"per_object": 0.5})
    )
    deviation = math.hypot(deviation, math.sqrt(0.5 * 0.8 * 8))
    ends = noisy.interval(10.0, column(3, 5), np.array([1.0, 2.0]))
    assert ends == pytest.approx((max(middle - 2 * deviation, 10), middle + 3 * deviation))
    # Two draws that agree by chance do not outweigh it.
    agree = calibrate(column(2, 2), column(4, 4), np.ones(2), np.zeros(2), MEASURED)
    variance = 2 * (0.4 * 0.8 * 2) ** 2 / 4**2
    assert agree.deviation[0] == pytest.approx(1 / math.sqrt(1 / variance + 1 / 0.16**2))


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.6])
def test_over_many_runs_the_factor_is_right_and_covered(factor: float) -> None:
    rng = np.random.default_rng(1)
    prediction = rng.gamma(0.3, 2.0, size=(600, 1))
    spread = np.sqrt(0.3 * prediction[:, 0] + 0.05)
    p = probabilities(spread, 0.1)
    off, covered, runs = [], 0, 400
    for _ in range(runs):
        values = np.maximum(factor * prediction + spread[:, None] * rng.normal(size=(600, 1)), 0)
        drawn = draw(p, 60, rng)
        found = calibrate(
            prediction[drawn], values[drawn], inclusion_probabilities(p, 60)[drawn], spread[drawn]
        )
        rest = np.setdiff1d(np.arange(600), drawn)
        known, total = float(values[drawn].sum()), float(values.sum())
        off.append(known + float(prediction[rest].sum() * found.value[0]) - total)
        low, high = found.interval(known, prediction[rest], spread[rest])
        covered += low <= total <= high
    assert abs(np.mean(off)) < 0.08 * abs(total)
    assert covered >= 0.9 * runs
