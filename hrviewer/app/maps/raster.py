"""Rasters over an image, and their coarser levels for screens that show less."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hrviewer.app.maps.colour_scale import ColourScale
from hrviewer.engine.canvas import MapKind
from hrviewer.geometry import Rect
from hrviewer.units import nice_ceiling

__all__ = [
    "COST_QUANTITIES",
    "MAPS",
    "OUTLINES",
    "PATCH_QUANTITIES",
    "CostQuantity",
    "MapName",
    "PyramidRaster",
    "cell_areas",
    "cell_slices",
    "coarsen",
    "empty_levels",
    "empty_raster",
]

MapName = Literal["output", "saliency", "patches", "cost"]
MAPS: tuple[MapName, ...] = ("output", "saliency", "patches", "cost")


@dataclass(frozen=True)
class CostQuantity:
    """A quantity that the cost map can show.

    Parameters
    ----------
    unit : str
        Unit in the legend.
    parts : tuple of str
        Attributes of `Cost` that add up to it.
    per_pixel : float
        Units per image pixel that one of these is.
    """

    unit: str
    parts: tuple[str, ...]
    per_pixel: float = 1.0


COST_QUANTITIES: dict[str, CostQuantity] = {
    "FLOPs": CostQuantity("FLOP per pixel", ("flops",)),
    "time": CostQuantity("ms per megapixel", ("read_s", "prepare_s", "infer_s", "post_s"), 1e9),
    "bytes": CostQuantity("bytes per pixel", ("bytes",)),
}
"""Quantities of the cost map, by name."""

OUTLINES = "outlines"

PATCH_QUANTITIES = {OUTLINES: "processed patches", "order": "order of patches", "score": "score"}
"""Legends of the map of patches: outlines only, or cores coloured by a quantity."""


@dataclass(eq=False)
class PyramidRaster:
    """A map with its coarser levels.

    Parameters
    ----------
    levels : list of ndarray of float32, shape (rows, columns)
        The map, then its means over 2 × 2, 4 × 4, … cells, for a screen that shows less; NaN
        where there is no prediction.
    cell : float
        Side of the finest level's cells, level-0 pixels.
    unit : str
        Unit of the values in the legend.
    scale : ColourScale
        Values at the ends of the colours; shared by the rasters of a quantity on an image.
    changed : bool
        Whether it changed since it was displayed.
    categories : tuple of str
        Classes, if values are numbers of classes plus a half: none is a mean of others.
    """

    levels: list[NDArray[np.float32]]
    cell: float
    unit: str
    scale: ColourScale = field(default_factory=ColourScale)
    changed: bool = False
    categories: tuple[str, ...] = ()
    _top: float = 0.0

    @property
    def values(self) -> NDArray[np.float32]:
        """The finest level."""
        return self.levels[0]

    @property
    def limits(self) -> tuple[float, float]:
        """Values at the ends of the colours."""
        return self.scale.limits

    @property
    def is_clipped(self) -> bool:
        """Whether there were values above the scale when it was compared with them last."""
        return self._top > self.limits[1]

    def level_for(self, side: float) -> int:
        """Return the finest level whose cells are not smaller than `side` level-0 pixels."""
        wanted = math.ceil(math.log2(max(side / self.cell, 1.0)) - 1e-9)
        return min(wanted, len(self.levels) - 1)

    def autoscale(self, level: int = 0) -> bool:
        """Let the limits follow a level's values, in round steps; return whether they moved."""
        values = self.levels[level]
        step = max(1, math.isqrt(values.size // 250_000))
        some = values[::step, ::step]
        some = some[np.isfinite(some) & (some > 0)]
        if not some.size:
            return False
        self._top = nice_ceiling(float(np.percentile(some, 99.5)))
        return self.scale.follow((0.0, self._top))

    def update_coarser(self, rect: Rect) -> None:
        """Bring the coarser levels up to date inside a rectangle of level-0 pixels."""
        for i in range(1, len(self.levels)):
            rows, columns = cell_slices(rect, self.cell * 2**i)
            part = self.levels[i - 1][
                2 * rows.start : 2 * rows.stop, 2 * columns.start : 2 * columns.stop
            ]
            target = self.levels[i][rows, columns]
            if self.categories:
                target[:] = part[::2, ::2]
                continue
            target[:] = coarsen(part[None], 2, "intensity")[0][: target.shape[0], : target.shape[1]]


def empty_raster(shape: Sequence[int]) -> NDArray[np.float32]:
    """Return a raster of NaN."""
    return np.full(tuple(shape), np.nan, np.float32)


def empty_levels(shape: Sequence[int]) -> list[NDArray[np.float32]]:
    """Return rasters of NaN, each half the size of the one before, down to a few cells."""
    levels = [empty_raster(shape)]
    while max(levels[-1].shape) > 32:
        levels.append(empty_raster([-(-n // 2) for n in levels[-1].shape]))
    return levels


def cell_slices(rect: Rect, cell: float) -> tuple[slice, slice]:
    """Return the cells that a rectangle touches."""
    return (
        slice(max(0, math.floor(rect.y / cell + 1e-9)), math.ceil(rect.y1 / cell - 1e-9)),
        slice(max(0, math.floor(rect.x / cell + 1e-9)), math.ceil(rect.x1 / cell - 1e-9)),
    )


def cell_areas(
    image: Rect, cell: float, shape: Sequence[int], first: Sequence[int] = (0, 0)
) -> NDArray[np.float32]:
    """Return the number of image pixels in each cell; the image's border cuts the last ones.

    Parameters
    ----------
    image : Rect
        The whole image.
    cell : float
        Side of a cell, level-0 pixels.
    shape : sequence of int
        Rows and columns.
    first : sequence of int
        Row and column of the first one.
    """
    sides = [
        np.diff(np.minimum(np.arange(start, start + n + 1) * cell, length)).astype(np.float32)
        for start, n, length in zip(first, shape, (image.h, image.w), strict=True)
    ]
    areas: NDArray[np.float32] = np.multiply.outer(*sides)
    return areas


def coarsen(values: NDArray[np.floating], n: int, kind: MapKind) -> NDArray[np.float32]:
    """Join cells, n × n, keeping the sum or the mean; NaN where none of them has a value."""
    if n == 1:
        return np.asarray(values, np.float32)
    _, rows, columns = values.shape
    grown = np.pad(
        values, ((0, 0), (0, -rows % n), (0, -columns % n)), constant_values=np.float32(np.nan)
    )
    known = np.isfinite(grown)
    total = sum_blocks(np.where(known, grown, np.float32(0)), n)
    count = sum_blocks(known.astype(np.float32), n)
    joined = total if kind == "mass" else total / np.maximum(count, 1)
    return np.where(count > 0, joined, np.float32(np.nan)).astype(np.float32)


def sum_blocks(values: NDArray[np.floating], n: int) -> NDArray[np.floating]:
    """Return the sums of n × n blocks, many times as fast as `sum` over short axes."""
    rows = functools.reduce(np.add, (values[:, i::n] for i in range(n)))
    return functools.reduce(np.add, (rows[:, :, i::n] for i in range(n)))
