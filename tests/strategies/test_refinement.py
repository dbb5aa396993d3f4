"""Refinement of a counting scout's prediction by `nonuniform`."""

from __future__ import annotations

import math

import numpy as np
import pytest
from toys import FLOPS, card

from hrviewer.geometry import Rect
from hrviewer.models.accuracy import ASSUMED_ERROR, ScaleCurve, ScalePoint
from hrviewer.strategies import ModelInfo, PlanContext
from hrviewer.strategies.estimation.two_phase import CoarsePrediction
from hrviewer.strategies.nonuniform.refinement import Squares, fit_price, square_grid

EXACT = ScaleCurve(
    domain="images",
    images=1,
    data="none",
    command="none",
    points=(
        ScalePoint(scale=1.0, gain=1.0),
        ScalePoint(scale=1.25, gain=1.0, per_object=0.5),
        ScalePoint(scale=2.0, gain=1.0, per_object=0.5),
        ScalePoint(scale=8.0, gain=1.0, per_object=8.0),
    ),
)


def squares(counts, spread=None, coarsest=2.0, halo=8):
    """Squares of 64 pixels with these expected counts."""
    rows, columns = counts.shape
    shape = 64 * rows, 64 * columns
    main = ModelInfo(card("main"), 4, 0, lambda h, w: FLOPS * h * w)
    context = PlanContext(
        shape, (1.0,), None, Rect(0, 0, *shape), 1.0, {"main": main}, scale_curve=EXACT
    )
    grid = square_grid(context, math.inf)
    assert grid.shape == counts.shape
    spread = np.sqrt(counts) if spread is None else spread
    prediction = CoarsePrediction(counts.reshape(-1, 1), spread.ravel())
    return Squares(context, grid, prediction, halo, 1024, coarsest)


def crowded(seed=0, shape=(13, 18)):
    rng = np.random.default_rng(seed)
    return rng.uniform(0, 4, shape) * (rng.random(shape) < 0.2)


def test_a_square_gets_the_scale_that_gains_most_at_a_price():
    # Variance 1 + (0.3)² = 1.09 by the scout, 0 at full size, 0.5 at half of it; with half of the
    # context they cost (64 + 8)² and (32 + 8)² pixels.
    one = squares(np.array([[1.0]]))
    assert one.variances == pytest.approx([1.09])
    equal = 0.5 / (72**2 - 40**2)
    assert one.densities(0.99 * equal) == [1.0]
    assert one.densities(1.01 * equal) < 1
    assert one.densities(0.6 / 40**2) == [0]
    assert squares(np.array([[0.0]])).densities(0.0) == [0]


@pytest.mark.parametrize("seed", range(6))
def test_leaves_hold_every_refined_square_once_and_cost_no_more(seed):
    there = squares(crowded(seed), coarsest=4.0)
    densities = there.densities(1e-4)
    leaves = there.leaves(densities)
    inside = np.zeros(there.grid.shape, int)
    for leaf in leaves:
        rect = leaf.rect
        inside[rect.y // 64 : -(-rect.y1 // 64), rect.x // 64 : -(-rect.x1 // 64)] += 1
    wanted = densities.reshape(there.grid.shape) > 0
    assert wanted.any()
    assert inside.max() == 1
    assert (inside[wanted] == 1).all()
    assert min(leaf.density for leaf in leaves) >= 1 / 4.0**2

    def pixels(rect, density):
        side = math.sqrt(density)
        h, w = rect.h * side, rect.w * side
        around = 2 * min(8, max(h, w) / 4)
        return (h + around) * (w + around)

    alone = sum(pixels(Rect(0, 0, 64, 64), density) for density in densities[densities > 0])
    assert sum(pixels(leaf.rect, leaf.density) for leaf in leaves) <= alone * (1 + 1e-9)


def test_the_price_follows_from_the_budget():
    there = squares(crowded())

    def cost(leaves):
        return sum(leaf.rect.area * leaf.density for leaf in leaves)

    prices = [fit_price([there], cost, budget) for budget in (1e4, 3e4, 1e5, 1e7)]
    assert prices == sorted(prices, reverse=True)
    assert prices[-1] == 0
    for price, budget in zip(prices, (1e4, 3e4, 1e5, 1e7), strict=True):
        assert cost(there.leaves(there.densities(price))) <= budget
    assert cost(there.leaves(there.densities(prices[2]))) > 5e4


def test_the_assumed_error_of_a_scout_is_shared_by_all_squares():
    there = squares(np.full((1, 2), 10.0), np.zeros((1, 2)))
    deviation = ASSUMED_ERROR.ratio_deviation
    assert there.variances == pytest.approx([(10 * deviation) ** 2] * 2)
