"""Regions that are asked about together, and asked again where they hold more than was expected.

What tokens are chosen by sees less than they do. A square that turns out to hold as much as would
have split it is split after all, so that a mistake of either is looked at more finely.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hrviewer.geometry import Patch, Rect, context_rings
from hrviewer.strategies.protocol import PatchRequest, PatchResult, Response
from hrviewer.strategies.transformer.tokens import Token, TokenGrid

__all__ = [
    "CostFunction",
    "Refiner",
    "TokenRegion",
    "context_patches",
    "results_by_region",
    "token_request",
]

Floats = NDArray[np.float64]
CostFunction = Callable[[NDArray[np.int64]], float]
"""Takes how many tokens each region has, their context left out; returns FLOPs."""


@dataclass(frozen=True, slots=True)
class TokenRegion:
    """A region and the squares that tile it.

    Attributes
    ----------
    rect : Rect
        The region, level-0 pixels.
    tokens : tuple of Square
        Its tokens.
    context : tuple of Patch
        Its context: looks without a core.
    pending : frozenset of Rect
        The squares that are to be asked about; the others are known, and context, too.
    replaced : ndarray, shape (k,), or 0
        What those squares were found to hold that the fresh ones tile anew.
    """

    rect: Rect
    tokens: tuple[Token, ...]
    context: tuple[Patch, ...]
    pending: frozenset[Rect]
    replaced: Floats | float = 0.0

    def __len__(self) -> int:
        return len(self.tokens) + len(self.context)


def token_request(regions: Sequence[TokenRegion], side: int, merge: float) -> PatchRequest:
    """Ask for regions, all at once, of tokens of `side` pixels; merge as `Look` says."""
    patches: list[Patch] = []
    scores: list[float] = []
    for tiling in regions:
        for square in tiling.tokens:
            rect, fresh = square.rect, square.rect in tiling.pending
            patches.append(Patch(rect, rect.h / side) if fresh else _context_patch(rect, side))
            scores.append(square.score if fresh else math.nan)
        patches += tiling.context
        scores += [math.nan] * len(tiling.context)
    group = tuple(number for number, tiling in enumerate(regions) for _ in range(len(tiling)))
    return PatchRequest(
        "transformer",
        tuple(patches),
        target="output",
        group=group,
        merge=merge,
        scores=tuple(scores),
    )


def results_by_region(
    request: PatchRequest, response: Response
) -> Iterator[tuple[PatchResult, ...]]:
    """Return what was said of the fresh squares of each region that was seen."""
    found: dict[int, list[PatchResult]] = {}
    for number, handle in zip(request.group or (), response.results, strict=False):
        found.setdefault(number, [])
        if not handle.patch.core.empty:
            found[number].append(handle)
    return map(tuple, found.values())


def context_patches(image: Rect, region: Rect, rings: int, side: int) -> list[Patch]:
    """Return the squares about a region whose middle lies in the image: looks without a core."""
    return [
        patch
        for patch in (_context_patch(square, side) for square in context_rings(region, rings))
        if Rect(patch.core.y, patch.core.x, 1, 1) in image
    ]


@dataclass
class Refiner:
    """Splits what holds more than was expected, as long as something is left for it.

    Attributes
    ----------
    grid : Mosaic
        Where tokens lie.
    finest : int
        Side of the smallest tokens, in the network's pixels.
    split_above : float
        How much a square may be found to hold.
    cost : callable
        See `Cost`.
    tokens, flops
        What is left.
    """

    grid: TokenGrid
    finest: int
    split_above: float
    cost: CostFunction
    remaining_tokens: int
    remaining_flops: float

    def split(self, region: TokenRegion, values: Mapping[Rect, Floats]) -> TokenRegion | None:
        """Return a region with those squares split that hold too much; None if there are none.

        Parameters
        ----------
        tiling
            What was asked.
        held
            What its fresh squares hold, ``(k,)``.
        """
        least, left = self.grid.side(self.finest), self.remaining_tokens
        squares: list[Token] = []
        fresh: list[Rect] = []
        replaced: Floats | float = 0.0
        for square in region.tokens:
            much = values.get(square.rect, np.zeros(1))
            hot = square.rect.h > least and much.sum() > self.split_above
            quarters = self._quarters(square.rect) if hot else []
            if not quarters or len(quarters) > left:
                squares.append(square)
                continue
            left -= len(quarters)
            replaced = replaced + much
            fresh += quarters
            squares += [Token(rect, float(much.sum())) for rect in quarters]
        flops = self.cost(np.array([len(squares)]))
        if not fresh or flops > self.remaining_flops:
            return None
        self.remaining_tokens, self.remaining_flops = left, self.remaining_flops - flops
        return TokenRegion(region.rect, tuple(squares), region.context, frozenset(fresh), replaced)

    def _quarters(self, rect: Rect) -> list[Rect]:
        half = rect.h // 2
        parts = [
            Rect(y, x, half, half) for y in (rect.y, rect.y + half) for x in (rect.x, rect.x + half)
        ]
        return [part for part in parts if not (part & self.grid.region).empty]


def _context_patch(square: Rect, side: int) -> Patch:
    """Return a look at a square that answers for nothing."""
    y, x = (int(at) for at in square.center)
    return Patch(Rect(y, x, 0, 0), square.h / side, side // 2)
