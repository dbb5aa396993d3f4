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

__all__ = ["QUANTITIES", "Charge", "Ledger"]


@dataclass(frozen=True, slots=True)
class Charge:
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

    def __add__(self, other: Charge) -> Charge:
        return Charge(*(a + b for a, b in zip(self.amounts, other.amounts, strict=True)))

    def __mul__(self, factor: float) -> Charge:
        return Charge(*(factor * a for a in self.amounts))

    @property
    def amounts(self) -> tuple[float, ...]:
        """All of it, in the order of `QUANTITIES`."""
        amounts: tuple[float, ...] = _AMOUNTS(self)
        return amounts

    @property
    def seconds(self) -> float:
        """All stages together."""
        return self.read_s + self.prepare_s + self.infer_s + self.post_s


QUANTITIES = tuple(field.name for field in fields(Charge))
"""The planes of a ledger's map, in order."""

_AMOUNTS = attrgetter(*QUANTITIES)  # `astuple` copies deeply, which many small looks would feel


class Ledger:
    """Totals and the cost map of one run.

    Parameters
    ----------
    image : Rect
        What the map covers.
    cell : int
        Side of the map's cells, level-0 pixels.

    Attributes
    ----------
    map : ndarray of float, shape (7, rows, columns)
        Per cell, the quantities of `Charge` in their order.
    total, spent, unplaced : Charge
        Everything; what was paid in this run; what fell on no pixel of the image.
    """

    def __init__(self, image: Rect, cell: int) -> None:
        self.image, self.cell = image, cell
        shape = -(-image.h // cell), -(-image.w // cell)
        self.map: NDArray[np.float64] = np.zeros((len(QUANTITIES), *shape))
        self.total = self.spent = self.unplaced = Charge()

    def add(
        self,
        charge: Charge,
        where: Rect,
        *,
        paid: bool,
        weights: NDArray[np.float64] | None = None,
    ) -> None:
        """Book a charge.

        Parameters
        ----------
        charge : Charge
            What it cost.
        where : Rect
            The core that it falls on, evenly, clipped to the image.
        paid : bool
            Whether this run paid for it.
        weights : ndarray, optional
            How it is spread over `where` instead, ``(rows, columns)``; sums to 1.
        """
        self.total += charge
        if paid:
            self.spent += charge
        clipped = where & self.image
        if clipped.empty:
            self.unplaced += charge
            return
        # Even charges fall on the clipped core; spread ones where their samples were taken.
        if weights is None:
            (row, column), (last, end) = (
                (at[0] // self.cell, at[1] // self.cell)
                for at in ((clipped.y, clipped.x), (clipped.y1 - 1, clipped.x1 - 1))
            )
            if (row, column) == (last, end):
                self.map[:, row, column] += charge.amounts
                return
            weights, where = np.ones((1, 1)), clipped
        y, ys = target_cells(clipped.y, clipped.y1, self.cell, self.map.shape[1])
        x, xs = target_cells(clipped.x, clipped.x1, self.cell, self.map.shape[2])
        rows = np.linspace(where.y, where.y1, weights.shape[0] + 1)
        columns = np.linspace(where.x, where.x1, weights.shape[1] + 1)
        share = (
            overlap(rows, ys, clipped.y, clipped.y1)
            @ weights
            @ overlap(columns, xs, clipped.x, clipped.x1).T
        )
        placed = share.sum()
        if placed <= 0:
            self.unplaced += charge
            return
        share /= placed
        block = self.map[:, y : y + share.shape[0], x : x + share.shape[1]]
        block += np.array(charge.amounts)[:, None, None] * share
