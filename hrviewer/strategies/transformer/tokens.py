"""Which squares tile a region: small ones where there is detail, large ones elsewhere.

A square is split into four where it scores more than a threshold (Ronen et al., *Vision
Transformers with Mixed-Resolution Tokenization*, CVPR Workshops 2023; Choudhury et al.,
*Accelerating Vision Transformers with Adaptive Patch Sizes*, ICLR 2026). A square never scores
less than a part of it, so the best tree of a given size is that of the highest scores.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hrviewer.geometry import Rect

__all__ = ["BASE", "COARSEST", "REGION", "Forest", "Token", "TokenGrid"]

Floats = NDArray[np.float64]

COARSEST = 128
"""Side of the largest tokens, in the network's pixels."""

BASE = 32
"""Side of the smallest squares that are split."""

REGION = 512
"""Side of the squares whose tokens attend to each other."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token.

    Attributes
    ----------
    rect : Rect
        What it sees, level-0 pixels; it may reach beyond what is asked for.
    score : float
        What its splitting was decided by; NaN for the smallest.
    """

    rect: Rect
    score: float


@dataclass(frozen=True)
class TokenGrid:
    """The lattice that tokens lie on: it starts at the image's corner, wherever the region does.

    Attributes
    ----------
    region : Rect
        What is to be tiled.
    scale : float
        Level-0 pixels per pixel of the network; a whole number of sixteenths.
    """

    region: Rect
    scale: float

    def side(self, pixels: int) -> int:
        """Return a side in level-0 pixels; `pixels` is a multiple of 16."""
        return round(pixels * self.scale)

    @property
    def rect(self) -> Rect:
        """The whole regions that `asked` meets."""
        r = self.side(REGION)
        y, x = self.region.y // r * r, self.region.x // r * r
        return Rect(y, x, -(-self.region.y1 // r) * r - y, -(-self.region.x1 // r) * r - x)

    def edges(self, pixels: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the edges of the squares of a size, ``(rows + 1,)`` and ``(columns + 1,)``."""
        step, rect = self.side(pixels), self.rect
        return np.arange(rect.y, rect.y1 + 1, step), np.arange(rect.x, rect.x1 + 1, step)

    def areas(self, pixels: int) -> Floats:
        """Return how much of each square of a size is asked for, in level-0 pixels."""
        ys, xs = self.edges(pixels)
        rows, columns = (
            np.diff(np.clip(edges, low, high))
            for edges, low, high in (
                (ys, self.region.y, self.region.y1),
                (xs, self.region.x, self.region.x1),
            )
        )
        return np.outer(rows, columns).astype(float)

    def count(self, pixels: int) -> int:
        """Return how many squares of a size the grid has that is asked for."""
        return int(np.count_nonzero(self.areas(pixels)))


class Forest:
    """The quadtrees of a mosaic.

    Parameters
    ----------
    grid : Mosaic
        Where.
    scores : ndarray, shape (rows, columns)
        Of the squares of `BASE` pixels, at least 0; 0 where nothing is asked for.
    reduction : {"sum", "max"}
        What the score of a square is of those of its quarters.
    finest : int
        Side of the smallest tokens, in the network's pixels: 16, 32, 64 or 128.
    """

    def __init__(
        self, grid: TokenGrid, scores: Floats, reduction: Literal["sum", "max"], finest: int
    ) -> None:
        self.grid, self.finest = grid, finest
        self.scores: dict[int, NDArray[np.float32]] = {}
        level, side = np.asarray(scores, np.float32), BASE
        while side <= COARSEST:
            if side > finest:
                self.scores[side] = level
            quarters = level.reshape(level.shape[0] // 2, 2, level.shape[1] // 2, 2)
            level = quarters.sum((1, 3)) if reduction == "sum" else quarters.max((1, 3))
            side *= 2

    def threshold(self, minimum: float, tokens: int) -> float:
        """Return the threshold, at least `minimum`, at which there are at most `tokens` tokens.

        Each splitting makes three more; that a square reaches beyond what is asked for is left
        out of account.
        """
        splits = max(0, (tokens - self.grid.count(COARSEST)) // 3)
        if not self.scores:
            return minimum
        everything = np.concatenate([level.ravel() for level in self.scores.values()])
        if splits >= len(everything):
            return minimum
        place = len(everything) - 1 - splits
        return max(minimum, float(np.partition(everything, place)[place]))

    def counts(self, threshold: float) -> NDArray[np.int64]:
        """Return how many tokens each region has, at most: ``(rows, columns)``."""
        rows, columns = (
            length // self.grid.side(REGION) for length in (self.grid.rect.h, self.grid.rect.w)
        )
        asked = (self.grid.areas(COARSEST) > 0).reshape(rows, REGION // COARSEST, columns, -1)
        total: NDArray[np.int64] = asked.sum((1, 3))
        for level in self.scores.values():
            split = (level > threshold).reshape(rows, level.shape[0] // rows, columns, -1)
            total = total + 3 * split.sum((1, 3))
        return total

    def affordable(
        self,
        minimum: float,
        tokens: int,
        cost: Callable[[NDArray[np.int64]], float],
        remaining: float,
    ) -> float:
        """Return the threshold whose tokens, at most `tokens`, can be paid.

        Parameters
        ----------
        least, tokens
            See `threshold`.
        cost
            FLOPs of regions with so many tokens.
        left
            What is to be spent. Where that does not even pay for the largest tokens, it is those.
        """
        found = self.threshold(minimum, tokens)
        if cost(self.counts(found)) <= remaining:
            return found
        low, high = self.grid.count(COARSEST), tokens
        while high - low > 1:
            middle = (low + high) // 2
            if cost(self.counts(self.threshold(minimum, middle))) <= remaining:
                low = middle
            else:
                high = middle
        return self.threshold(minimum, low)

    def regions(self, threshold: float) -> Iterator[tuple[Rect, list[Token]]]:
        """Return every region with the tokens that tile the part of it that is asked for."""
        mosaic = self.grid
        whole, r = mosaic.rect, mosaic.side(REGION)
        for row in range(whole.h // r):
            for column in range(whole.w // r):
                rect = Rect(whole.y + row * r, whole.x + column * r, r, r)
                yield rect, list(self._tokens(rect, row, column, threshold))

    def _tokens(self, rect: Rect, row: int, column: int, threshold: float) -> Iterator[Token]:
        n = REGION // COARSEST
        there = np.ones((n, n), bool)
        side = COARSEST
        while True:
            step = self.grid.side(side)
            if side in self.scores:
                scores = self.scores[side][
                    row * n : (row + 1) * n, column * n : (column + 1) * n
                ].astype(float)
                split = there & (scores > threshold)
            else:
                scores, split = np.full((n, n), math.nan), np.zeros_like(there)
            for i, j in np.argwhere(there & ~split):
                square = Rect(rect.y + int(i) * step, rect.x + int(j) * step, step, step)
                if not (square & self.grid.region).empty:
                    yield Token(square, float(scores[i, j]))
            if side <= self.finest or not split.any():
                return
            there = split.repeat(2, 0).repeat(2, 1)
            side, n = side // 2, 2 * n
