"""Tokens of mixed sizes that tile a region: small ones where there is detail.

A square is split into four if its score exceeds a threshold (Ronen et al., *Vision
Transformers with Mixed-Resolution Tokenization*, CVPR Workshops 2023; Choudhury et al.,
*Accelerating Vision Transformers with Adaptive Patch Sizes*, ICLR 2026). The score of a
square is never below those of its parts, so the best tree of a given size splits the highest
scores.
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
"""Side of the largest tokens, in model pixels."""

BASE = 32
"""Side of the smallest squares that are split, in model pixels."""

REGION = 512
"""Side of the regions whose tokens attend to each other, in model pixels."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token: a square of the image.

    Attributes
    ----------
    rect : Rect
        The square, level-0 pixels; it may extend beyond the region.
    score : float
        The score that decided on its splitting; NaN for the smallest.
    """

    rect: Rect
    score: float


@dataclass(frozen=True)
class TokenGrid:
    """The lattice of tokens, which starts at the image's corner for all regions.

    Attributes
    ----------
    region : Rect
        The rectangle to tile.
    scale : float
        Level-0 pixels per model pixel; a multiple of 1/16.
    """

    region: Rect
    scale: float

    def side(self, pixels: int) -> int:
        """Return a side in level-0 pixels; `pixels` is a multiple of 16."""
        return round(pixels * self.scale)

    @property
    def rect(self) -> Rect:
        """The extent of the attention regions that meet `region`."""
        r = self.side(REGION)
        y, x = self.region.y // r * r, self.region.x // r * r
        return Rect(y, x, -(-self.region.y1 // r) * r - y, -(-self.region.x1 // r) * r - x)

    def edges(self, pixels: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the edges of the squares of a size, ``(rows + 1,)`` and ``(columns + 1,)``."""
        step, rect = self.side(pixels), self.rect
        return np.arange(rect.y, rect.y1 + 1, step), np.arange(rect.x, rect.x1 + 1, step)

    def areas(self, pixels: int) -> Floats:
        """Return the area of each square of a size within the region, in level-0 pixels."""
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
        """Return the number of squares of a size that meet the region."""
        return int(np.count_nonzero(self.areas(pixels)))


class Forest:
    """The quadtrees of a grid of tokens, one per largest token.

    Parameters
    ----------
    grid : TokenGrid
        The lattice.
    scores : ndarray, shape (rows, columns)
        Scores of the squares of `BASE` pixels, at least 0; 0 outside the region.
    reduction : {"sum", "max"}
        How the scores of quarters give that of a square.
    finest : int
        Side of the smallest tokens, in model pixels: 16, 32, 64 or 128.
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

        Every split adds three tokens; those that fall outside the region are counted, too.
        """
        splits = max(0, (tokens - self.grid.count(COARSEST)) // 3)
        if not self.scores:
            return minimum
        scores = np.concatenate([level.ravel() for level in self.scores.values()])
        if splits >= len(scores):
            return minimum
        index = len(scores) - 1 - splits
        return max(minimum, float(np.partition(scores, index)[index]))

    def counts(self, threshold: float) -> NDArray[np.int64]:
        """Return the maximum number of tokens of each attention region: ``(rows, columns)``."""
        rows, columns = (
            length // self.grid.side(REGION) for length in (self.grid.rect.h, self.grid.rect.w)
        )
        requested = (self.grid.areas(COARSEST) > 0).reshape(rows, REGION // COARSEST, columns, -1)
        total: NDArray[np.int64] = requested.sum((1, 3))
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
        """Return the lowest threshold whose tokens, at most `tokens`, the budget pays for.

        Parameters
        ----------
        minimum, tokens
            See `threshold`.
        cost
            A function from the numbers of tokens of regions to FLOPs.
        remaining
            The budget. If it does not pay for the largest tokens, their threshold is returned.
        """
        threshold = self.threshold(minimum, tokens)
        if cost(self.counts(threshold)) <= remaining:
            return threshold
        low, high = self.grid.count(COARSEST), tokens
        while high - low > 1:
            middle = (low + high) // 2
            if cost(self.counts(self.threshold(minimum, middle))) <= remaining:
                low = middle
            else:
                high = middle
        return self.threshold(minimum, low)

    def regions(self, threshold: float) -> Iterator[tuple[Rect, list[Token]]]:
        """Yield every attention region with the tokens that tile its part of the region."""
        grid = self.grid
        extent, r = grid.rect, grid.side(REGION)
        for row in range(extent.h // r):
            for column in range(extent.w // r):
                rect = Rect(extent.y + row * r, extent.x + column * r, r, r)
                yield rect, list(self._tokens(rect, row, column, threshold))

    def _tokens(self, rect: Rect, row: int, column: int, threshold: float) -> Iterator[Token]:
        n = REGION // COARSEST
        present = np.ones((n, n), bool)
        side = COARSEST
        while True:
            step = self.grid.side(side)
            if side in self.scores:
                scores = self.scores[side][
                    row * n : (row + 1) * n, column * n : (column + 1) * n
                ].astype(float)
                split = present & (scores > threshold)
            else:
                scores, split = np.full((n, n), math.nan), np.zeros_like(present)
            for i, j in np.argwhere(present & ~split):
                square = Rect(rect.y + int(i) * step, rect.x + int(j) * step, step, step)
                if not (square & self.grid.region).empty:
                    yield Token(square, float(scores[i, j]))
            if side <= self.finest or not split.any():
                return
            present = split.repeat(2, 0).repeat(2, 1)
            side, n = side // 2, 2 * n
