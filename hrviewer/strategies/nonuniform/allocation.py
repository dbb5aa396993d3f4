"""Allocation of a budget of pixels: the pixel density of each place, and a partition into leaves.

*Pixel density* is model pixels per pixel at native scale, by area: 1 is full resolution, 1/64 is
an eighth per side. It is proportional to the importance, between a floor and 1.
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
"""Maximum density in a warp, over its mean; leaves with a larger ratio are split."""


@dataclass(frozen=True, eq=False)
class PixelDensity:
    """The pixel density of each cell of a region."""

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
        """Return the density at ``g × g`` nodes that span a rectangle."""
        from scipy.ndimage import map_coordinates  # slow to import, and every command loads this

        t = np.linspace(0, 1, g)
        y = (rect.y + t * rect.h - self.region.y) / self.cell - 0.5
        x = (rect.x + t * rect.w - self.region.x) / self.cell - 0.5
        positions = np.meshgrid(y, x, indexing="ij")
        values: Floats = map_coordinates(self.values, positions, order=1, mode="nearest")
        return values


@dataclass(frozen=True, slots=True)
class Leaf:
    """A leaf of the partition: one input of the model.

    Parameters
    ----------
    rect : Rect
        The core, level-0 pixels.
    density : float
        Mean pixel density.
    uniform : bool
        Whether the density is uniform.
    """

    rect: Rect
    density: float
    uniform: bool


def pixel_density(importance: ImportanceMap, level: float, floor: float) -> PixelDensity:
    """Return the pixel density for a level of spending: importance × level, `floor` to 1."""
    values = np.clip(importance.values * level, floor, 1.0)
    return PixelDensity(importance.region, importance.cell, values)


def partition(
    density: PixelDensity,
    largest: int,
    smallest: float,
    widest: float,
    step: int,
    region: Rect | None = None,
) -> Iterator[Leaf]:
    """Cut a region into leaves whose sizes follow the pixel density.

    Leaves are halved along both sides while their density is not uniform and they are large enough.

    Parameters
    ----------
    density : PixelDensity
        The pixel density.
    largest : int
        Largest side of a leaf, level-0 pixels.
    smallest, widest : float
        Non-uniform leaves are halved if a side's effective length is at least `smallest`, all
        leaves if it is more than `widest`. The effective length is the length in level-0 pixels
        times the density per side.
    step : int
        Cuts are at multiples of this, if that leaves two leaves.
    region : Rect, optional
        The region to cut, within that of `density`; all of it by default.
    """
    region = region or density.region
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
    """Return the edges of `n` nearly equal parts, at multiples of `step` if possible."""
    inner = []
    for i in range(1, n):
        position = start + length * i / n
        snapped = round(position / step) * step
        inner.append(snapped if length / n >= 2 * step else math.floor(position))
    return [start, *inner, start + length]
