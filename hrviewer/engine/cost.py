"""What a look cost, and where on the image the cost falls.

The ledger's invariant: its map and what could not be placed add up to the totals, for every
quantity. Costs are *nominal*: a result served from the cache counts what it cost when it was
computed; `Ledger.spent` counts only what this run paid.
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
    """What one look cost.

    Parameters
    ----------
    flops : float
        Nominal floating-point operations; one multiply-accumulate is two.
    bytes, pixels : float
        Read from storage and decoded, each stored tile paid by the first look that needed it.
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
        """All of it, in the order of `QUANTITIES`."""
        amounts: tuple[float, ...] = _AMOUNTS(self)
        return amounts

    @property
    def seconds(self) -> float:
        """All stages together."""
        return self.read_s + self.prepare_s + self.infer_s + self.post_s


QUANTITIES = tuple(field.name for field in fields(Cost))
"""The planes of a ledger's map, in order."""

_AMOUNTS = attrgetter(*QUANTITIES)  # `astuple` copies deeply, which many small looks would feel


class CostMap:
    """Totals and the cost map of one run.

    Parameters
    ----------
    image : Rect
        What the map covers.
    cell : int
        Side of the map's cells, level-0 pixels.

    Attributes
    ----------
    values : ndarray of float, shape (7, rows, columns)
        Per cell, the quantities of `Charge` in their order.
    total, spent, unattributed : Charge
        Everything; what was paid in this run; what fell on no pixel of the image.
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
        """Book a charge.

        Parameters
        ----------
        cost : Charge
            What it cost.
        core : Rect
            The core that it falls on, evenly, clipped to the image.
        spent : bool
            Whether this run paid for it.
        weights : ndarray, optional
            How it is spread over `core` instead, ``(rows, columns)``; sums to 1.
        """
        self.total += cost
        if spent:
            self.spent += cost
        clipped = core & self.image
        if clipped.empty:
            self.unattributed += cost
            return
        # Even charges fall on the clipped core; spread ones where their samples were taken.
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
        share = (
            overlap(rows, ys, clipped.y, clipped.y1)
            @ weights
            @ overlap(columns, xs, clipped.x, clipped.x1).T
        )
        placed = share.sum()
        if placed <= 0:
            self.unattributed += cost
            return
        share /= placed
        block = self.values[:, y : y + share.shape[0], x : x + share.shape[1]]
        block += np.array(cost.amounts)[:, None, None] * share
