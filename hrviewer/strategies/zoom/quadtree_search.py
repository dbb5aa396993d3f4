"""The best quadtree of looks for a price: zoom, stop or skip at every node.

Breiman, Friedman, Olshen and Stone's pruning (*CART*, 1984), as Chou, Lookabaugh and Gray use it
for rate and distortion: for every price of a FLOP there is one best tree, found from the leaves up,
and trees of falling prices are nested in cost.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["Tree", "blocks", "grow", "prune"]

Floats = NDArray[np.float64]
Tree = list[NDArray[np.bool_]]
"""For each level, from the leaves up, which nodes are looked at."""

HALVINGS = 60


def blocks(n: int, first: int, level: int) -> NDArray[np.intp]:
    """Return which node of a level each of `n` leaves along one axis belongs to.

    Parameters
    ----------
    n : int
        Leaves.
    first : int
        The first leaf's number on the image's lattice; nodes start at multiples of 2**level.
    level : int
        0 for the leaves themselves.
    """
    return ((first + np.arange(n)) >> level) - (first >> level)


def prune(
    variance: Floats,
    first: tuple[int, int],
    residuals: Sequence[float],
    costs: Sequence[Floats],
    price: float,
) -> tuple[Tree, float]:
    """Return the tree that makes expected squared error plus price times cost least.

    Parameters
    ----------
    variance : ndarray, shape (rows, columns)
        The squared error that each leaf's guess is expected to have.
    first : tuple of int
        The first leaf's row and column on the image's lattice.
    residuals : sequence of float
        Which part of the squared error a look at each level leaves; ``remains[0]`` at the leaves.
    costs : sequence of ndarray
        FLOPs of a look at each node of each level.
    price : float
        Squared error for a FLOP.

    Returns
    -------
    tree : list of ndarray of bool
        Which nodes to look at. Skipped leaves are under no node that is looked at.
    value : float
        What was made least.
    """
    looks: Tree = []
    best = held = variance
    for level, (part, cost) in enumerate(zip(residuals, costs, strict=True)):
        if level:
            pair = [
                blocks(n, start >> (level - 1), 1)
                for n, start in zip(best.shape, first, strict=True)
            ]
            best, held = sum_blocks(best, *pair), sum_blocks(held, *pair)
        stop = part * held + price * cost
        looks.append(stop < best)
        best = np.minimum(best, stop)
    covered = np.zeros_like(looks[-1])
    for level in reversed(range(len(looks))):
        looks[level] &= ~covered
        covered = covered | looks[level]
        if level:
            rows, columns = (
                blocks(n, start >> (level - 1), 1)
                for n, start in zip(looks[level - 1].shape, first, strict=True)
            )
            covered = covered[np.ix_(rows, columns)]
    return looks, float(best.sum())


def sum_blocks(values: Floats, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> Floats:
    """Sum what falls into the same row and column."""
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
    """Return the best tree that `budget` pays for, as far as a price tells them apart."""
    dear = 2 * max(float(variance.sum() / cost.min()) for cost in costs)
    tree, _ = prune(variance, first, residuals, costs, 0.0)
    if tree_cost(tree, costs) <= budget or dear <= 0:
        return tree
    low, high, dearer = dear * 1e-18, dear, tree
    tree, _ = prune(variance, first, residuals, costs, high)
    for _ in range(HALVINGS):
        price = (low * high) ** 0.5
        tried, _ = prune(variance, first, residuals, costs, price)
        if tree_cost(tried, costs) <= budget:
            tree, high = tried, price
        else:
            dearer, low = tried, price
    # Nodes worth the same come and go together: of the next dearer tree, as many as can be paid.
    part = best_subset(dearer, variance, first, residuals, costs, budget)
    return max(tree, part, key=lambda it: total_gain(it, variance, first, residuals))


def best_subset(
    tree: Tree,
    variance: Floats,
    first: tuple[int, int],
    residuals: Sequence[float],
    costs: Sequence[Floats],
    budget: float,
) -> Tree:
    """Return the looks of a tree that gain most for their cost, as many as `budget` pays for."""
    gains = node_gains(variance, first, residuals)
    nodes = [
        (-gains[level][row, column] / costs[level][row, column], level, row, column)
        for level, looked in enumerate(tree)
        for row, column in np.argwhere(looked)
    ]
    part = [np.zeros_like(looked) for looked in tree]
    for _, level, row, column in sorted(nodes):
        if costs[level][row, column] <= budget:
            budget -= costs[level][row, column]
            part[level][row, column] = True
    return part


def node_gains(
    variance: Floats, first: tuple[int, int], residuals: Sequence[float]
) -> list[Floats]:
    """Return by how much a look at each node of each level makes the squared error less."""
    gains = []
    for level, part in enumerate(residuals):
        rows, columns = (
            blocks(n, start, level) for n, start in zip(variance.shape, first, strict=True)
        )
        gains.append((1 - part) * sum_blocks(variance, rows, columns))
    return gains


def total_gain(
    tree: Tree, variance: Floats, first: tuple[int, int], residuals: Sequence[float]
) -> float:
    """Return by how much a tree makes the squared error less."""
    gains = node_gains(variance, first, residuals)
    return sum(float(g[looked].sum()) for g, looked in zip(gains, tree, strict=True))


def tree_cost(tree: Tree, costs: Sequence[Floats]) -> float:
    """Return what a tree costs."""
    return sum(float(cost[looked].sum()) for looked, cost in zip(tree, costs, strict=True))
