"""Sharing a budget of pixels out: how sharply each place is seen, and in which pieces.

*Sharpness* is network pixels per pixel at native scale, by area: 1 is full resolution, a
sixty-fourth an eighth per side. It follows the interest, between a floor and 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from hrviewer.geometry import Rect
from hrviewer.strategies.nonuniform.importance import ImportanceMap

__all__ = ["Leaf", "PixelDensity", "partition", "pixel_density"]

Floats = NDArray[np.float64]

MAX_DENSITY_RATIO = 6.0
"""How much sharper than its mean a warp can see a place; what asks for more is cut up."""


@dataclass(frozen=True, eq=False)
class PixelDensity:
    """How sharply each cell of a region is to be seen."""

    region: Rect
    cell: int
    values: Floats

    def crop(self, rect: Rect) -> Floats:
        """Return the cells that a rectangle touches."""
        y, x = rect.y - self.region.y, rect.x - self.region.x
        return self.values[
            max(0, y // self.cell) : max(1, -(-(y + rect.h) // self.cell)),
            max(0, x // self.cell) : max(1, -(-(x + rect.w) // self.cell)),
        ]

    def at_nodes(self, rect: Rect, g: int) -> Floats:
        """Return it at ``g × g`` nodes that span a rectangle."""
        from scipy.ndimage import map_coordinates  # slow to import, and every command loads this

        t = np.linspace(0, 1, g)
        y = (rect.y + t * rect.h - self.region.y) / self.cell - 0.5
        x = (rect.x + t * rect.w - self.region.x) / self.cell - 0.5
        where = np.meshgrid(y, x, indexing="ij")
        found: Floats = map_coordinates(self.values, where, order=1, mode="nearest")
        return found


@dataclass(frozen=True, slots=True)
class Leaf:
    """A piece of the region that is one look.

    Parameters
    ----------
    rect : Rect
        What it answers for.
    density : float
        Its mean.
    uniform : bool
        Whether it is the same all over.
    """

    rect: Rect
    density: float
    uniform: bool


def pixel_density(importance: ImportanceMap, level: float, floor: float) -> PixelDensity:
    """Return the sharpness at a level of spending: interest × level, from `floor` to 1."""
    values = np.clip(importance.values * level, floor, 1.0)
    return PixelDensity(importance.region, importance.cell, values)


def partition(
    density: PixelDensity, largest: int, smallest: float, widest: float, step: int
) -> Iterator[Leaf]:
    """Cut a region into pieces whose sizes follow the sharpness.

    Pieces are halved along both sides while they are uneven and worth it.

    Parameters
    ----------
    density : Sharpness
        What to follow.
    largest : int
        Side of pieces, level-0 pixels.
    smallest, widest : float
        Uneven pieces are halved where a side is worth so many level-0 pixels; all are, where it
        is worth more than `widest`. A side's worth is its length by its sharpness per side.
    step : int
        Cuts fall on multiples of this, where that leaves two pieces.
    """
    region = density.region
    ys, xs = (
        edges(start, length, -(-length // largest), step)
        for start, length in ((region.y, region.h), (region.x, region.w))
    )
    for y, y1 in pairwise(ys):
        for x, x1 in pairwise(xs):
            yield from _halve(density, Rect(y, x, y1 - y, x1 - x), smallest, widest, step)


def _halve(
    density: PixelDensity, rect: Rect, smallest: float, widest: float, step: int
) -> Iterator[Leaf]:
    values = density.crop(rect)
    low, high = float(values.min()), float(values.max())
    side = math.sqrt(float(values.mean()))
    enough = smallest if high > MAX_DENSITY_RATIO * side**2 else math.inf
    ny, nx = (
        2 if length >= 2 * step and (length * side >= enough or length * side > widest) else 1
        for length in (rect.h, rect.w)
    )
    if ny * nx > 1:
        ys = edges(rect.y, rect.h, ny, step)
        xs = edges(rect.x, rect.w, nx, step)
        for y, y1 in pairwise(ys):
            for x, x1 in pairwise(xs):
                yield from _halve(density, Rect(y, x, y1 - y, x1 - x), smallest, widest, step)
        return
    yield Leaf(rect, float(values.mean()), high <= 1.25 * low)


def edges(start: int, length: int, n: int, step: int) -> list[int]:
    """Return the edges of `n` about equal parts; inner ones on multiples of `step` if they can."""
    inner = []
    for i in range(1, n):
        at = start + length * i / n
        snapped = round(at / step) * step
        inner.append(snapped if length / n >= 2 * step else math.floor(at))
    return [start, *inner, start + length]
