"""The cost map: every cost has a place on it, and the map adds up to the totals."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hrviewer.engine import Cost, CostMap
from hrviewer.geometry import Rect

IMAGE = Rect(0, 0, 333, 517)

amounts = st.just(0.0) | st.floats(1e-9, 1e15)
seconds = st.just(0.0) | st.floats(1e-9, 1e4)
costs = st.builds(Cost, amounts, amounts, amounts, *[seconds] * 4)
rects = st.builds(
    Rect, st.integers(-400, 800), st.integers(-400, 800), st.integers(0, 300), st.integers(0, 300)
)


@st.composite
def distributions(draw):
    """Weights that sum to 1, some of them 0; None for an even distribution."""
    if draw(st.booleans()):
        return None
    shape = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    numbers = draw(st.lists(st.integers(0, 9), min_size=36, max_size=36))
    weights = np.array(numbers[: shape[0] * shape[1]], float).reshape(shape)
    return weights / weights.sum() if weights.any() else np.full(shape, 1 / weights.size)


@given(
    st.lists(st.tuples(costs, rects, st.booleans(), distributions()), max_size=8),
    st.sampled_from([16, 7, 1000]),
)
def test_map_and_unattributed_cost_add_up_to_the_totals(added, cell):
    cost_map = CostMap(IMAGE, cell)
    for cost, rect, spent, weights in added:
        cost_map.add(cost, rect, spent=spent, weights=weights)
    attributed = cost_map.values.sum((1, 2)) + np.array(astuple(cost_map.unattributed))
    np.testing.assert_allclose(attributed, astuple(cost_map.total), rtol=1e-9)
    spent_total = sum((cost for cost, _, spent, _ in added if spent), Cost())
    np.testing.assert_allclose(astuple(cost_map.spent), astuple(spent_total), rtol=1e-9)


def test_weights_outside_the_image_are_distributed_over_the_rest():
    cost_map = CostMap(Rect(0, 0, 100, 100), 50)
    # A quarter of the core lies inside; the other three weights fall outside.
    cost_map.add(Cost(flops=8.0), Rect(50, 50, 100, 100), spent=True, weights=np.full((2, 2), 0.25))
    np.testing.assert_allclose(cost_map.values[0], [[0, 0], [0, 8]])
    assert cost_map.unattributed.flops == 0
    # Nothing of the weight lies inside: the cost has no place.
    weights = np.array([[0.0, 0.5], [0.0, 0.5]])
    cost_map.add(Cost(flops=3.0), Rect(0, 60, 80, 80), spent=True, weights=weights)
    assert cost_map.unattributed.flops == 3
    assert cost_map.total.flops == 11


def test_a_cost_is_even_over_its_core_clipped_to_the_image():
    cost_map = CostMap(IMAGE, 16)
    cost_map.add(Cost(flops=100), Rect(-10, 8, 26, 16), spent=True)  # 16 rows inside
    flops = cost_map.values[0]
    assert flops[0, 0] == pytest.approx(50)
    assert flops[0, 1] == pytest.approx(50)
    assert np.count_nonzero(flops) == 2


def test_a_cost_outside_the_image_is_unattributed():
    cost_map = CostMap(IMAGE, 16)
    cost_map.add(Cost(flops=7), Rect(1000, 0, 5, 5), spent=True)
    cost_map.add(Cost(flops=3), Rect(0, 0, 0, 0), spent=False)
    assert cost_map.unattributed.flops == 10
    assert not cost_map.values.any()
    assert (cost_map.total.flops, cost_map.spent.flops) == (10, 7)


def test_weights_distribute_a_cost():
    cost_map = CostMap(IMAGE, 16)
    weights = np.array([[0.75, 0.25]])
    cost_map.add(Cost(flops=8), Rect(0, 0, 16, 32), spent=True, weights=weights)
    np.testing.assert_allclose(cost_map.values[0, 0, :2], [6, 2])


def test_costs_add_and_scale():
    cost = Cost(2, 4, 6, 1, 2, 3, 4) + Cost(1) * 2
    assert cost == Cost(4, 4, 6, 1, 2, 3, 4)
    assert cost.seconds == 10
