"""The optimal quadtree for a budget: zoom, stop or skip at every node.

The pruning of Breiman, Friedman, Olshen and Stone (*CART*, 1984), as used by Chou, Lookabaugh and
Gray for rate and distortion: for every price of a FLOP there is one optimal tree, found bottom-up,
and the cost of trees rises monotonically as the price falls.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["Tree", "blocks", "grow", "prune"]

Floats = NDArray[np.float64]
Tree = list[NDArray[np.bool_]]
"""The measured nodes of each level, from the leaves up."""

HALVINGS = 60


def blocks(n: int, first: int, level: int) -> NDArray[np.intp]:
    """Return the node of a level to which each of `n` leaves along one axis belongs.

    Parameters
    ----------
    n : int
        Number of leaves.
    first : int
        Number of the first leaf on the image's lattice; nodes start at multiples of 2**level.
    level : int
        The level, 0 for the leaves themselves.
    """
    return ((first + np.arange(n)) >> level) - (first >> level)


def prune(
    variance: Floats,
    first: tuple[int, int],
    residuals: Sequence[float],
    costs: Sequence[Floats],
    price: float,
) -> tuple[Tree, float]:
    """Return the tree that minimizes the expected squared error plus price times cost.

    Parameters
    ----------
    variance : ndarray, shape (rows, columns)
        Expected squared error of each leaf's prediction.
    first : tuple of int
        Row and column of the first leaf on the image's lattice.
    residuals : sequence of float
        Remaining fraction of the squared error after a measurement at each level, leaves first.
    costs : sequence of ndarray
        FLOPs of a measurement of each node of each level.
    price : float
        Squared error per FLOP.

    Returns
    -------
    tree : list of ndarray of bool
        The nodes to measure. Skipped leaves are below none of them.
    value : float
        The minimum.
    """
    selected: Tree = []
    best = sums = variance
    for level, (residual, cost) in enumerate(zip(residuals, costs, strict=True)):
        if level:
            pair = [
                blocks(n, start >> (level - 1), 1)
                for n, start in zip(best.shape, first, strict=True)
            ]
            best, sums = sum_blocks(best, *pair), sum_blocks(sums, *pair)
        stop = residual * sums + price * cost
        selected.append(stop < best)
        best = np.minimum(best, stop)
    covered = np.zeros_like(selected[-1])
    for level in reversed(range(len(selected))):
        selected[level] &= ~covered
        covered = covered | selected[level]
        if level:
            rows, columns = (
                blocks(n, start >> (level - 1), 1)
                for n, start in zip(selected[level - 1].shape, first, strict=True)
            )
            covered = covered[np.ix_(rows, columns)]
    return selected, float(best.sum())


def sum_blocks(values: Floats, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> Floats:
    """Sum the values of the same row and column."""
    down = np.add.reduceat(values, np.flatnonzero(np.diff(rows, prepend=-1)), axis=0)
    return np.asarray(
        np.add.reduceat(down, np.flatnonzero(np.diff(columns, prepend=-1)), axis=1), float
    )


def grow(
    variance: Floats,
    first: tuple[int, int],
    residuals: Sequence[float],
    costs: Sequence[Floats],
    budget: float,
) -> Tree:
    """Return the best tree within `budget`, as far as a price distinguishes them."""
    max_price = 2 * max(float(variance.sum() / cost.min()) for cost in costs)
    tree, _ = prune(variance, first, residuals, costs, 0.0)
    if tree_cost(tree, costs) <= budget or max_price <= 0:
        return tree
    low, high, dearer_tree = max_price * 1e-18, max_price, tree
    tree, _ = prune(variance, first, residuals, costs, high)
    for _ in range(HALVINGS):
        price = (low * high) ** 0.5
        candidate, _ = prune(variance, first, residuals, costs, price)
        if tree_cost(candidate, costs) <= budget:
            tree, high = candidate, price
        else:
            dearer_tree, low = candidate, price
    # Nodes of the same value have the same price: take those of the next tree that are affordable.
    subset = best_subset(dearer_tree, variance, first, residuals, costs, budget)
    return max(
        tree, subset, key=lambda candidate: total_gain(candidate, variance, first, residuals)
    )


def best_subset(
    tree: Tree,
    variance: Floats,
    first: tuple[int, int],
    residuals: Sequence[float],
    costs: Sequence[Floats],
    budget: float,
) -> Tree:
    """Return the nodes of a tree with the largest gain per cost, within `budget`."""
    gains = node_gains(variance, first, residuals)
    nodes = [
        (-gains[level][row, column] / costs[level][row, column], level, row, column)
        for level, selected in enumerate(tree)
        for row, column in np.argwhere(selected)
    ]
    subset = [np.zeros_like(selected) for selected in tree]
    for _, level, row, column in sorted(nodes):
        if costs[level][row, column] <= budget:
            budget -= costs[level][row, column]
            subset[level][row, column] = True
    return subset


def node_gains(
    variance: Floats, first: tuple[int, int], residuals: Sequence[float]
) -> list[Floats]:
    """Return the reduction of the squared error by each node of each level."""
    gains = []
    for level, residual in enumerate(residuals):
        rows, columns = (
            blocks(n, start, level) for n, start in zip(variance.shape, first, strict=True)
        )
        gains.append((1 - residual) * sum_blocks(variance, rows, columns))
    return gains


def total_gain(
    tree: Tree, variance: Floats, first: tuple[int, int], residuals: Sequence[float]
) -> float:
    """Return the reduction of the squared error by a tree."""
    gains = node_gains(variance, first, residuals)
    return sum(float(g[selected].sum()) for g, selected in zip(gains, tree, strict=True))


def tree_cost(tree: Tree, costs: Sequence[Floats]) -> float:
    """Return the FLOPs of a tree."""
    return sum(float(cost[selected].sum()) for selected, cost in zip(tree, costs, strict=True))
