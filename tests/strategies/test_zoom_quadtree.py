"""The optimal tree for a price, against enumeration of all trees."""

from __future__ import annotations

import numpy as np
import pytest

from hrviewer.strategies.zoom.quadtree_nodes import PRIOR_SAMPLES, level_factors
from hrviewer.strategies.zoom.quadtree_search import blocks, grow, prune, tree_cost

REMAINS = [0.0, 0.3, 0.8]


def tree_of(seed, shape=(4, 4), first=(0, 0)):
    rng = np.random.default_rng(seed)
    costs = []
    for level in range(3):
        sides = [blocks(n, start, level)[-1] + 1 for n, start in zip(shape, first, strict=True)]
        costs.append(rng.uniform(0.8, 1.2, sides))
    return rng.exponential(1, shape) ** 2, first, REMAINS, costs


def best_of_all(variance, costs, price, level, row, column):
    """Return the minimum below a node, by enumeration."""
    side = 2**level
    part = variance[row * side : (row + 1) * side, column * side : (column + 1) * side]
    options = [part.sum(), REMAINS[level] * part.sum() + price * costs[level][row, column]]
    if level:
        options.append(
            sum(
                best_of_all(variance, costs, price, level - 1, 2 * row + i, 2 * column + j)
                for i in range(2)
                for j in range(2)
            )
        )
    return min(options)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("price", [0.05, 0.5, 2.0])
def test_pruning_finds_the_optimal_tree(seed, price):
    variance, first, remains, costs = tree_of(seed)
    selected, value = prune(variance, first, remains, costs, price)
    assert value == pytest.approx(best_of_all(variance, costs, price, 2, 0, 0))
    # The tree has the returned value, and no node is below another.
    covered, kept = np.zeros((4, 4), int), variance.copy()
    for level, nodes in enumerate(selected):
        wide = np.kron(nodes, np.ones((2**level, 2**level), int))
        covered += wide
        kept = np.where(wide > 0, remains[level] * variance, kept)
    assert covered.max() <= 1
    assert kept.sum() + price * tree_cost(selected, costs) == pytest.approx(value)


def test_nodes_are_on_the_images_lattice():
    assert blocks(5, 3, 1).tolist() == [0, 1, 1, 2, 2]
    assert blocks(5, 3, 2).tolist() == [0, 1, 1, 1, 1]
    variance, first, remains, costs = tree_of(0, (5, 6), (3, 2))
    selected, value = prune(variance, first, remains, costs, 0.0)
    assert selected[0].all()
    assert value == 0


def test_growing_finds_the_optimal_tree_within_the_budget():
    variance, first, remains, costs = tree_of(3, (8, 8))
    left = []
    for budget in (0.0, 4.0, 12.0, 1e9):
        selected = grow(variance, first, remains, costs, budget)
        assert tree_cost(selected, costs) <= budget
        kept = variance.copy()
        for level, nodes in enumerate(selected):
            wide = np.kron(nodes, np.ones((2**level, 2**level), int)) > 0
            kept = np.where(wide, remains[level] * variance, kept)
        left.append(kept.sum())
    assert left == sorted(left, reverse=True)
    assert left[0] == variance.sum()
    assert left[-1] == 0


def test_of_equal_nodes_as_many_as_affordable():
    costs = [np.ones((4, 4)), np.full((2, 2), 10.0)]
    selected = grow(np.ones((4, 4)), (0, 0), [0.0, 1.0], costs, 7.5)
    assert selected[0].sum() == 7
    assert not selected[1].any()


def test_without_variance_nothing_is_measured():
    _, first, remains, costs = tree_of(0)
    selected = grow(np.zeros((4, 4)), first, remains, costs, 5.0)
    assert not any(selected.any() for selected in selected)


def test_level_factors_are_weighted_by_inverse_probability():
    counts = np.array([[4.0, 10.0], [2.0, 2.0], [0.0, 0.0]])
    weights, guessed = np.array([1.0, 3.0]), np.array([1.0, 8.0])
    factors, remains = level_factors(counts, weights, guessed)
    # By hand: (1·2·4 + 3·2·10) / (1·4 + 3·4), and the remainder of 1·3² + 3·2².
    assert factors == [1.0, pytest.approx(68 / 16), 0.0]
    before, after = 21.0, (8.5 - 4) ** 2 + 3 * (8.5 - 10) ** 2
    doubt = PRIOR_SAMPLES * before / 2
    assert remains == [0.0, pytest.approx(min(1, (after + doubt) / (before + doubt))), 1.0]


def test_coarser_levels_add_nothing_to_a_perfect_scout():
    counts = np.array([[4.0, 10.0], [2.0, 5.0]])
    factors, remains = level_factors(counts, np.ones(2), counts[0])
    assert factors == [1.0, 2.0]
    assert remains == [0.0, 1.0]
