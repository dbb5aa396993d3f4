"""Cutting a region into patches, and adding up what they said."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from hrviewer.geometry import Patch, Rect
from hrviewer.models.attention_pooling import combine_parts
from hrviewer.strategies.protocol import ModelInfo, PatchResult, Publish

__all__ = [
    "BATCH_SIZE",
    "PatchTotal",
    "activation_map",
    "aggregate",
    "alignment_step",
    "batches",
    "cell_side",
    "input_rect",
    "input_shape",
    "tiles",
    "total_flops",
]

BATCH_SIZE = 256
"""Patches asked for at once: what a killed run loses at most."""


def alignment_step(model: ModelInfo, scale: float) -> int:
    """Return the step, in level-0 pixels, to which a look's corner must be aligned.

    On it tiles meet as if the whole image had been one input: it is a whole number of output
    cells, of the network's required multiple, of its period, and of level-0 pixels.
    """
    fraction = Fraction(scale).limit_denominator(4096)
    card = model.card.input
    step = math.lcm(model.stride, card.multiple_of, model.period, fraction.denominator)
    return int(step * fraction)


def tiles(
    model: ModelInfo,
    region: Rect,
    scale: float,
    *,
    tile: int | None = None,
    halo: int | None = None,
    extent: Rect | None = None,
) -> list[Patch]:
    """Cut `region` into patches, in reading order.

    Parameters
    ----------
    model : Role
        The network that will look.
    region : Rect
        What to cover, in level-0 pixels.
    scale : float
        Level-0 pixels per network pixel.
    tile, halo : int, optional
        Side of the cores and context around them, in network pixels; the card's by default. A
        network of fixed size takes its tile with the halo inside.
    extent : Rect, optional
        What is cut, if not the region itself: its tiles are the same for every region.

    Returns
    -------
    list of Patch
        Cores on the image's lattice, cut at the border of what is cut; those that meet the region.
    """
    halo = model.halo if halo is None else halo
    step, cell = alignment_step(model, scale), cell_side(model, scale, tile=tile, halo=halo)
    extent = extent or region
    ys, xs = (
        tile_edges(start, start + length, step, cell, fixed=model.card.input.fixed)
        for start, length in ((extent.y, extent.h), (extent.x, extent.w))
    )
    return [
        Patch(Rect(y, x, y1 - y, x1 - x), scale, halo)
        for y, y1 in pairwise(ys)
        if y < region.y1 and y1 > region.y
        for x, x1 in pairwise(xs)
        if x < region.x1 and x1 > region.x
    ]


def cell_side(
    model: ModelInfo, scale: float, *, tile: int | None = None, halo: int | None = None
) -> int:
    """Return the side, in level-0 pixels, of a whole core that `tiles` cuts."""
    card = model.card.input
    side = tile or card.tile
    if card.fixed:
        side = card.tile - 2 * (model.halo if halo is None else halo)
    step = alignment_step(model, scale)
    return max(step, round(side * scale / step) * step)


def tile_edges(start: int, end: int, step: int, cell: int, *, fixed: bool = False) -> list[int]:
    """Return where to cut ``[start, end)`` so that tiles meet the image's lattice.

    The lattice starts at the image's corner, wherever the region does. A sliver at the end, too
    thin for an output cell, goes with the tile before it (a network of fixed size cannot take it).
    """
    aligned = start // step * step
    inner = list(range(aligned + cell, end, cell))
    if inner and end - inner[-1] < step and not fixed:
        inner.pop()
    return [start, *inner, end]


def batches(patches: Sequence[Patch], size: int = BATCH_SIZE) -> Iterator[tuple[Patch, ...]]:
    """Split patches into rounds of at most `size`."""
    return (tuple(patches[i : i + size]) for i in range(0, len(patches), size))


def total_flops(model: ModelInfo, patches: Sequence[Patch], image: Rect) -> float:
    """Return the nominal FLOPs of looking at all of `patches`."""
    return sum(model.flops(*input_shape(model, patch, image)) for patch in patches)


def input_rect(model: ModelInfo, patch: Patch, image: Rect) -> Rect:
    """Return what must be read for a patch: core and halo, grown to the lattice.

    At the image's border it ends there, unless the network's size is fixed, or it fills up no
    border itself (a margin): then what lies beyond is reflected.
    """
    card = model.card.input
    if card.fixed:
        side = round(card.tile * patch.scale)
        return Rect(patch.core.y - patch.margin, patch.core.x - patch.margin, side, side)
    step = alignment_step(model, patch.scale)
    want = patch.rect
    y, x = want.y // step * step, want.x // step * step
    y1, x1 = -(-want.y1 // step) * step, -(-want.x1 // step) * step
    whole = Rect(y, x, y1 - y, x1 - x)
    return whole if model.card.output.margin else whole & image


def input_shape(model: ModelInfo, patch: Patch, image: Rect) -> tuple[int, int]:
    """Return a patch's input, ``(h, w)`` in network pixels."""
    if model.card.input.fixed:
        return model.card.input.tile, model.card.input.tile
    rect = input_rect(model, patch, image)
    return math.ceil(rect.h / patch.scale - 1e-9), math.ceil(rect.w / patch.scale - 1e-9)


@dataclass(frozen=True, slots=True)
class PatchTotal:
    """What of a look a total needs; its map, once it is painted, may go."""

    patch: Patch
    value: NDArray[np.float64]

    @classmethod
    def from_results(cls, results: Iterable[PatchResult]) -> list[PatchTotal]:
        """Return what looks told."""
        return [cls(handle.patch, handle.value) for handle in results]


def aggregate(
    model: ModelInfo, results: Sequence[PatchResult | PatchTotal]
) -> NDArray[np.float64] | None:
    """Add up what patches that do not overlap said.

    Counts and areas are summed, probabilities averaged by area, or by attention where that is
    told; failed patches are left out.

    Returns
    -------
    ndarray of float, shape (k,), or None
        None for embeddings and where nothing was seen.
    """
    if model.card.task in ("embedding", "saliency") or not results:
        return None
    values = np.stack([handle.value[: model.card.output_channels] for handle in results])
    seen = ~np.isnan(values).any(axis=1)
    if not seen.any():
        return None
    if model.card.output.attention:
        return combine_parts(values[seen])
    values = values[:, : model.card.prediction_channels]
    if model.card.task == "classification":
        areas = np.array([handle.patch.core.area for handle in results], float)
        return np.average(values[seen], axis=0, weights=areas[seen])
    # fsum: the same to the last bit whatever the order of the patches.
    return np.array([math.fsum(column) for column in values[seen].T])


def activation_map(
    results: Sequence[PatchResult | PatchTotal], patches: Sequence[Patch]
) -> Publish:
    """Show how strongly the network answered, per level-0 pixel, one cell per patch.

    Parameters
    ----------
    results : sequence of Handle
        What was seen so far.
    patches : sequence of Patch
        The whole tiling, in reading order.
    """
    cell = max(max(patch.core.h, patch.core.w) for patch in patches)
    # A region may cut the first tile; the tile after it starts where a whole one would have ended.
    y, x = patches[0].core.y1 - cell, patches[0].core.x1 - cell
    if len(patches) == 1:
        y, x = patches[0].core.y, patches[0].core.x
    rows = -(-(patches[-1].core.y1 - y) // cell)
    columns = -(-(patches[-1].core.x1 - x) // cell)
    grid = np.full((rows, columns), np.nan)
    for handle in results:
        cy, cx = handle.patch.core.center
        grid[int(cy - y) // cell, int(cx - x) // cell] = handle.value.sum() / handle.patch.core.area
    return Publish("saliency", grid, Rect(y, x, rows * cell, columns * cell))
