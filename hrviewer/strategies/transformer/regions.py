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

from hrviewer.geometry import Patch, Rect, surroundings
from hrviewer.strategies.protocol import Handle, Look, Result
from hrviewer.strategies.transformer.tokens import Mosaic, Square

__all__ = ["Cost", "Refiner", "Tiling", "answers", "context", "look"]

Floats = NDArray[np.float64]
Cost = Callable[[NDArray[np.int64]], float]
"""Takes how many tokens each region has, their context left out; returns FLOPs."""


@dataclass(frozen=True, slots=True)
class Tiling:
    """A region and the squares that tile it.

    Attributes
    ----------
    rect : Rect
        The region, level-0 pixels.
    squares : tuple of Square
        Its tokens.
    around : tuple of Patch
        Its context: looks without a core.
    fresh : frozenset of Rect
        The squares that are to be asked about; the others are known, and context, too.
    replaced : ndarray, shape (k,), or 0
        What those squares were found to hold that the fresh ones tile anew.
    """

    rect: Rect
    squares: tuple[Square, ...]
    around: tuple[Patch, ...]
    fresh: frozenset[Rect]
    replaced: Floats | float = 0.0

    def __len__(self) -> int:
        return len(self.squares) + len(self.around)


def look(tilings: Sequence[Tiling], side: int, merge: float) -> Look:
    """Ask for regions, all at once, of tokens of `side` pixels; merge as `Look` says."""
    patches: list[Patch] = []
    scores: list[float] = []
    for tiling in tilings:
        for square in tiling.squares:
            rect, fresh = square.rect, square.rect in tiling.fresh
            patches.append(Patch(rect, rect.h / side) if fresh else _beside(rect, side))
            scores.append(square.score if fresh else math.nan)
        patches += tiling.around
        scores += [math.nan] * len(tiling.around)
    group = tuple(number for number, tiling in enumerate(tilings) for _ in range(len(tiling)))
    return Look(
        "transformer",
        tuple(patches),
        into="output",
        group=group,
        merge=merge,
        scores=tuple(scores),
    )


def answers(asked: Look, result: Result) -> Iterator[tuple[Handle, ...]]:
    """Return what was said of the fresh squares of each region that was seen."""
    found: dict[int, list[Handle]] = {}
    for number, handle in zip(asked.group or (), result.handles, strict=False):
        found.setdefault(number, [])
        if not handle.patch.core.empty:
            found[number].append(handle)
    return map(tuple, found.values())


def context(image: Rect, region: Rect, rings: int, side: int) -> list[Patch]:
    """Return the squares about a region whose middle lies in the image: looks without a core."""
    return [
        patch
        for patch in (_beside(square, side) for square in surroundings(region, rings))
        if Rect(patch.core.y, patch.core.x, 1, 1) in image
    ]


@dataclass
class Refiner:
    """Splits what holds more than was expected, as long as something is left for it.

    Attributes
    ----------
    mosaic : Mosaic
        Where tokens lie.
    finest : int
        Side of the smallest tokens, in the network's pixels.
    enough : float
        How much a square may be found to hold.
    cost : callable
        See `Cost`.
    tokens, flops
        What is left.
    """

    mosaic: Mosaic
    finest: int
    enough: float
    cost: Cost
    tokens: int
    flops: float

    def split(self, tiling: Tiling, held: Mapping[Rect, Floats]) -> Tiling | None:
        """Return a region with those squares split that hold too much; None if there are none.

        Parameters
        ----------
        tiling
            What was asked.
        held
            What its fresh squares hold, ``(k,)``.
        """
        least, left = self.mosaic.side(self.finest), self.tokens
        squares: list[Square] = []
        fresh: list[Rect] = []
        replaced: Floats | float = 0.0
        for square in tiling.squares:
            much = held.get(square.rect, np.zeros(1))
            hot = square.rect.h > least and much.sum() > self.enough
            quarters = self._quarters(square.rect) if hot else []
            if not quarters or len(quarters) > left:
                squares.append(square)
                continue
            left -= len(quarters)
            replaced = replaced + much
            fresh += quarters
            squares += [Square(rect, float(much.sum())) for rect in quarters]
        flops = self.cost(np.array([len(squares)]))
        if not fresh or flops > self.flops:
            return None
        self.tokens, self.flops = left, self.flops - flops
        return Tiling(tiling.rect, tuple(squares), tiling.around, frozenset(fresh), replaced)

    def _quarters(self, rect: Rect) -> list[Rect]:
        half = rect.h // 2
        parts = [
            Rect(y, x, half, half) for y in (rect.y, rect.y + half) for x in (rect.x, rect.x + half)
        ]
        return [part for part in parts if not (part & self.mosaic.asked).empty]


def _beside(square: Rect, side: int) -> Patch:
    """Return a look at a square that answers for nothing."""
    y, x = (int(at) for at in square.center)
    return Patch(Rect(y, x, 0, 0), square.h / side, side // 2)
