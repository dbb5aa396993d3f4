"""Cost of inference, and its map over the image.

Invariant of the cost map: for every quantity, the map and the cost outside the image add up to the
total. Costs are *nominal*: a cached result counts as much as when it was computed; `CostMap.spent`
counts only what this run computed.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from hrviewer.engine.canvas import overlap, target_cells
from hrviewer.geometry import Rect

__all__ = ["QUANTITIES", "Cost", "CostMap"]


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of inference on one patch.

    Parameters
    ----------
    flops : float
        Nominal floating-point operations; one multiply-accumulate is two.
    bytes, pixels : float
        Read from storage and decoded; each stored tile counts for the first patch that needs it.
    read_s, prepare_s, infer_s, post_s : float
        Seconds in each stage.
    """

    flops: float = 0.0
    bytes: float = 0.0
    pixels: float = 0.0
    read_s: float = 0.0
    prepare_s: float = 0.0
    infer_s: float = 0.0
    post_s: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(a + b for a, b in zip(self.amounts, other.amounts, strict=True)))

    def __mul__(self, factor: float) -> Cost:
        return Cost(*(factor * a for a in self.amounts))

    @property
    def amounts(self) -> tuple[float, ...]:
        """All quantities, in the order of `QUANTITIES`."""
        amounts: tuple[float, ...] = _AMOUNTS(self)
        return amounts

    @property
    def seconds(self) -> float:
        """Sum over the stages."""
        return self.read_s + self.prepare_s + self.infer_s + self.post_s


QUANTITIES = tuple(field.name for field in fields(Cost))
"""Names of the planes of a cost map, in order."""

_AMOUNTS = attrgetter(*QUANTITIES)  # `astuple` copies deeply, which is slow for many small patches


class CostMap:
    """Totals and the cost map of one run.

    Parameters
    ----------
    image : Rect
        Extent of the map.
    cell : int
        Side of the map's cells, level-0 pixels.

    Attributes
    ----------
    values : ndarray of float, shape (7, rows, columns)
        Per cell, the quantities of `Cost` in their order.
    total, spent, unattributed : Cost
        All of it; the part that this run computed; the part outside the image.
    """

    def __init__(self, image: Rect, cell: int) -> None:
        self.image, self.cell = image, cell
        shape = -(-image.h // cell), -(-image.w // cell)
        self.values: NDArray[np.float64] = np.zeros((len(QUANTITIES), *shape))
        self.total = self.spent = self.unattributed = Cost()

    def add(
        self,
        cost: Cost,
        core: Rect,
        *,
        spent: bool,
        weights: NDArray[np.float64] | None = None,
    ) -> None:
        """Attribute a cost to a core.

        Parameters
        ----------
        cost : Cost
            The cost of inference on one patch.
        core : Rect
            The patch's core; it is clipped to the image and the cost distributed evenly over it.
        spent : bool
            Whether this run computed the result, rather than reusing it.
        weights : ndarray, optional
            Distribution over `core` instead, ``(rows, columns)``, summing to 1; the part outside
            the image is distributed over the rest.
        """
        self.total += cost
        if spent:
            self.spent += cost
        clipped = core & self.image
        if clipped.empty:
            self.unattributed += cost
            return
        # Without weights the cost is even over the clipped core; else it follows the samples.
        if weights is None:
            (row, column), (last, end) = (
                (at[0] // self.cell, at[1] // self.cell)
                for at in ((clipped.y, clipped.x), (clipped.y1 - 1, clipped.x1 - 1))
            )
            if (row, column) == (last, end):
                self.values[:, row, column] += cost.amounts
                return
            weights, core = np.ones((1, 1)), clipped
        y, ys = target_cells(clipped.y, clipped.y1, self.cell, self.values.shape[1])
        x, xs = target_cells(clipped.x, clipped.x1, self.cell, self.values.shape[2])
        rows = np.linspace(core.y, core.y1, weights.shape[0] + 1)
        columns = np.linspace(core.x, core.x1, weights.shape[1] + 1)
        shares = (
            overlap(rows, ys, clipped.y, clipped.y1)
            @ weights
            @ overlap(columns, xs, clipped.x, clipped.x1).T
        )
        inside = shares.sum()
        if inside <= 0:
            self.unattributed += cost
            return
        shares /= inside
        block = self.values[:, y : y + shares.shape[0], x : x + shares.shape[1]]
        block += np.array(cost.amounts)[:, None, None] * shares
