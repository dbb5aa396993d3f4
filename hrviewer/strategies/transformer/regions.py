"""Requests for regions of tokens, and refinement where predictions are higher than expected.

Tokens are selected by a coarser model than the transformer. A token whose prediction would have
split it is split afterwards, which corrects errors of both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

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
"""A function from the numbers of tokens of regions, without their context, to FLOPs."""


@dataclass(frozen=True, slots=True)
class TokenRegion:
    """A region and the tokens that tile it.

    Attributes
    ----------
    rect : Rect
        The region, level-0 pixels.
    tokens : tuple of Token
        The tokens.
    context : tuple of Patch
        The context: patches with an empty core.
    pending : frozenset of Rect
        Rectangles of the tokens without a prediction; the others serve as context.
    replaced : mapping of Rect to ndarray
        The earlier predictions that the pending tokens replace, if they refine others.
    """

    rect: Rect
    tokens: tuple[Token, ...]
    context: tuple[Patch, ...]
    pending: frozenset[Rect]
    replaced: Mapping[Rect, Floats] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.tokens) + len(self.context)


def token_request(regions: Sequence[TokenRegion], side: int, merge: float) -> PatchRequest:
    """Return one request for all regions; tokens have `side` pixels, `merge` as in the request."""
    patches: list[Patch] = []
    scores: list[float] = []
    for region in regions:
        for token in region.tokens:
            rect, pending = token.rect, token.rect in region.pending
            patches.append(Patch(rect, rect.h / side) if pending else _context_patch(rect, side))
            scores.append(token.score if pending else math.nan)
        patches += region.context
        scores += [math.nan] * len(region.context)
    group = tuple(number for number, region in enumerate(regions) for _ in range(len(region)))
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
    """Return the results of the pending tokens of each processed region."""
    by_region: dict[int, list[PatchResult]] = {}
    for number, result in zip(request.group or (), response.results, strict=False):
        by_region.setdefault(number, [])
        if not result.patch.core.empty:
            by_region[number].append(result)
    return map(tuple, by_region.values())


def context_patches(image: Rect, region: Rect, rings: int, side: int) -> list[Patch]:
    """Return the context of a region: patches without a core whose centre is in the image."""
    return [
        patch
        for patch in (_context_patch(square, side) for square in context_rings(region, rings))
        if Rect(patch.core.y, patch.core.x, 1, 1) in image
    ]


@dataclass
class Refiner:
    """Splits tokens whose predictions are higher than expected, within a budget.

    Attributes
    ----------
    grid : TokenGrid
        The lattice of tokens.
    classes : int
        Number of classes, whose predictions are the first values.
    finest : int
        Side of the smallest tokens, in model pixels.
    split_above : float
        Tokens with a higher prediction are split.
    cost : callable
        See `CostFunction`.
    remaining_tokens, remaining_flops
        The budget.
    """

    grid: TokenGrid
    classes: int
    finest: int
    split_above: float
    cost: CostFunction
    remaining_tokens: int
    remaining_flops: float

    def split(self, region: TokenRegion, values: Mapping[Rect, Floats]) -> TokenRegion | None:
        """Return a region with its tokens of high predictions split; None if there are none.

        Parameters
        ----------
        region
            The region as requested.
        values
            Predictions for its pending tokens, of classes, then perhaps their variances.
        """
        smallest, remaining = self.grid.side(self.finest), self.remaining_tokens
        tokens: list[Token] = []
        pending: list[Rect] = []
        replaced: dict[Rect, Floats] = {}
        for token in region.tokens:
            value = values.get(token.rect, np.zeros(1))
            count = float(value[: self.classes].sum())
            too_high = token.rect.h > smallest and count > self.split_above
            quarters = self._quarters(token.rect) if too_high else []
            if not quarters or len(quarters) > remaining:
                tokens.append(token)
                continue
            remaining -= len(quarters)
            replaced[token.rect] = value
            pending += quarters
            tokens += [Token(rect, count) for rect in quarters]
        flops = self.cost(np.array([len(tokens)]))
        if not pending or flops > self.remaining_flops:
            return None
        self.remaining_tokens, self.remaining_flops = remaining, self.remaining_flops - flops
        return TokenRegion(region.rect, tuple(tokens), region.context, frozenset(pending), replaced)

    def _quarters(self, rect: Rect) -> list[Rect]:
        half = rect.h // 2
        parts = [
            Rect(y, x, half, half) for y in (rect.y, rect.y + half) for x in (rect.x, rect.x + half)
        ]
        return [part for part in parts if not (part & self.grid.region).empty]


def _context_patch(square: Rect, side: int) -> Patch:
    """Return a patch without a core, for context."""
    y, x = map(int, square.center)
    return Patch(Rect(y, x, 0, 0), square.h / side, side // 2)
