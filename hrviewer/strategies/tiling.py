"""Cutting a region into patches, and aggregating their predictions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from hrviewer.errors import ParameterError
from hrviewer.geometry import Patch, Rect
from hrviewer.models import ModelCard
from hrviewer.models.attention_pooling import combine_parts
from hrviewer.objects import DetectedObjects, MergeSettings, count_classes, merge_objects
from hrviewer.strategies.protocol import ModelInfo, PatchResult, PlanContext, Publish

__all__ = [
    "BATCH_SIZE",
    "PatchTotal",
    "activation_map",
    "aggregate",
    "alignment_step",
    "batch_size",
    "batches",
    "cell_side",
    "depends_on_tiles",
    "exhaustive_tile",
    "input_rect",
    "input_shape",
    "overlap_note",
    "tile_option",
    "tiles",
    "total_flops",
]

BATCH_SIZE = 256
"""Patches per request: a killed run loses at most so many results."""

TIMED_BATCH = 32
"""The same under a limit of seconds: the results of a request are stitched when it ends."""

INPUT_MEMORY = 288 << 20
"""Bytes that inference on one input may take, where its size is free to choose."""

HALO_SHARE = 0.2
"""Cost of halos, over that of cores, below which larger tiles are not worth their memory."""


def alignment_step(model: ModelInfo, scale: float) -> int:
    """Return the step, in level-0 pixels, to which a patch's corner must be aligned.

    Aligned tiles are stitched as if the whole image had been one input: the step is a multiple of
    the output cells, of the model's required multiple, of its period, and of level-0 pixels. An
    input of a fixed size has the required multiple wherever it begins.
    """
    fraction = Fraction(scale).limit_denominator(4096)
    card = model.card.input
    size = 1 if card.fixed else math.lcm(card.multiple_of, model.period)
    return int(math.lcm(model.stride, size, fraction.denominator) * fraction)


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
    model : ModelInfo
        The model that will run on the patches.
    region : Rect
        The rectangle to cover, in level-0 pixels.
    scale : float
        Level-0 pixels per model pixel.
    tile, halo : int, optional
        Side of the cores and context around them, in model pixels; the card's by default. A
        model of fixed input size takes its tile with the halo inside.
    extent : Rect, optional
        The rectangle to cut, if not the region itself: its tiles are the same for every region.

    Returns
    -------
    list of Patch
        Patches whose cores meet the region, on the image's lattice, cut at the extent's border.
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
    """Return the side, in level-0 pixels, of a full core as cut by `tiles`.

    Raises
    ------
    ParameterError
        If the halo leaves nothing of an input of a fixed size.
    """
    card, step = model.card.input, alignment_step(model, scale)
    if not card.fixed:
        return max(step, round((tile or card.tile) * scale / step) * step)
    halo = model.halo if halo is None else halo
    margin, side = math.ceil(halo * scale), round(card.tile * scale)
    aligned = (side - 2 * (-(-margin // step) * step)) // step * step
    # Cores off the lattice, where none fits on it, as of a model with one prediction per tile.
    core = aligned if aligned > 0 else side - 2 * margin
    if core < 1:
        raise ParameterError(
            f"{model.card.name} takes {card.tile} pixels a side only, of which a halo of {halo} "
            f"leaves nothing: choose a halo below {card.tile // 2}"
        )
    return core


def depends_on_tiles(model: ModelInfo) -> bool:
    """Return whether predictions depend on how a region is cut into tiles.

    Those of a detector do, and of a model of a fixed input size: other tiles show it another part
    of an object.
    """
    return model.card.detects or model.card.input.fixed


def tile_option(model: ModelInfo, tile: int) -> int | None:
    """Return a strategy's parameter ``tile`` as `tiles` takes it: None for 0, the card's.

    Raises
    ------
    ParameterError
        If the model's input size is fixed, so that the parameter would have no effect.
    """
    if tile and model.card.input.fixed:
        side = model.card.input.tile
        advice = (
            f"for cores of {tile}, choose halo={(side - tile) // 2}"
            if tile < side
            else "leave tile out"
        )
        raise ParameterError(f"{model.card.name} takes {side} pixels a side only: {advice}")
    return tile or None


def exhaustive_tile(
    model: ModelInfo, region: Rect, scale: float, *, halo: int | None = None
) -> int:
    """Return the side of tiles with which every pixel of a region is processed at little cost.

    Halos are processed again for every tile, so large tiles cost less in all. The side follows from
    the model's halo and its memory per pixel, never from a measurement of time: a run has the same
    tiles on every device. Tiles are evenly distributed over the region's longer side.

    Parameters
    ----------
    model : ModelInfo
        The model that will run on the tiles.
    region : Rect
        The rectangle to cover, in level-0 pixels.
    scale : float
        Level-0 pixels per model pixel.
    halo : int, optional
        Context around a tile, in model pixels; the card's by default.

    Returns
    -------
    int
        Side of a core in model pixels. It is the card's for a model of fixed input size, without a
        halo, with one prediction per tile, or whose cost grows faster than the area.
    """
    card, halo = model.card, model.halo if halo is None else halo
    side = card.input.tile
    if card.input.fixed or not halo or model.stride >= side:
        return side
    step = math.lcm(model.stride, card.input.multiple_of, model.period)
    affordable = int(math.sqrt(INPUT_MEMORY / model.bytes_per_pixel())) - 2 * halo
    largest = min(affordable, math.ceil(2 * halo / (math.sqrt(1 + HALO_SHARE) - 1)))
    largest = largest // step * step
    if largest <= side:
        return side
    length = max(region.h, region.w) / scale
    even = math.ceil(length / math.ceil(length / largest) / step) * step
    costs = [model.flops(n + 2 * halo, n + 2 * halo) / n**2 for n in (side, even)]
    return even if even > side and costs[1] < costs[0] else side


def tile_edges(start: int, end: int, step: int, cell: int, *, fixed: bool = False) -> list[int]:
    """Return the edges of tiles in ``[start, end)``, on the image's lattice.

    The lattice starts at the image's corner for all regions. A sliver at the end, too thin for an
    output cell, is added to the tile before it (unless the model's input size is fixed).
    """
    lattice = cell if cell % step else step
    inner = list(range(start // lattice * lattice + cell, end, cell))
    if inner and end - inner[-1] < step and not fixed:
        inner.pop()
    return [start, *inner, end]


def batch_size(context: PlanContext) -> int:
    """Return the number of patches per request."""
    return TIMED_BATCH if math.isfinite(context.seconds) else BATCH_SIZE


def batches(patches: Sequence[Patch], size: int = BATCH_SIZE) -> Iterator[tuple[Patch, ...]]:
    """Split patches into batches of at most `size`."""
    return (tuple(patches[i : i + size]) for i in range(0, len(patches), size))


def patch_flops(model: ModelInfo, patches: Sequence[Patch], image: Rect) -> list[float]:
    """Return the nominal FLOPs of inference on each of `patches`."""
    return [model.flops(*input_shape(model, patch, image)) for patch in patches]


def total_flops(model: ModelInfo, patches: Sequence[Patch], image: Rect) -> float:
    """Return the nominal FLOPs of inference on all of `patches`."""
    return sum(patch_flops(model, patches, image))


def input_rect(model: ModelInfo, patch: Patch, image: Rect) -> Rect:
    """Return the rectangle to read for a patch: core and halo, grown to the lattice.

    It ends at the image's border, unless the model's input size is fixed or its output has a
    margin (no padding inside): then the image is continued, as the card's letterbox says.
    """
    card, wanted = model.card.input, patch.rect
    step = alignment_step(model, patch.scale)
    if card.fixed:
        side = round(card.tile * patch.scale)
        y, x = (
            aligned if (aligned := start // step * step) + side >= end else start
            for start, end in ((wanted.y, wanted.y1), (wanted.x, wanted.x1))
        )
        return Rect(y, x, side, side)
    y, x = wanted.y // step * step, wanted.x // step * step
    y1, x1 = -(-wanted.y1 // step) * step, -(-wanted.x1 // step) * step
    grown = Rect(y, x, y1 - y, x1 - x)
    return grown if model.card.output.margin else grown & image


def input_shape(model: ModelInfo, patch: Patch, image: Rect) -> tuple[int, int]:
    """Return the size of a patch's input, ``(h, w)`` in model pixels."""
    if model.card.input.fixed:
        return model.card.input.tile, model.card.input.tile
    rect = input_rect(model, patch, image)
    return math.ceil(rect.h / patch.scale - 1e-9), math.ceil(rect.w / patch.scale - 1e-9)


@dataclass(frozen=True, slots=True)
class PatchTotal:
    """The part of a result that a total needs: its map may be freed once it is painted."""

    patch: Patch
    value: NDArray[np.float64]
    objects: DetectedObjects | None = None

    @classmethod
    def from_results(cls, results: Iterable[PatchResult], model: ModelInfo) -> list[PatchTotal]:
        """Return the totals of a model's results; of a detector with the objects of the cores."""
        settings = model.card.merge_settings
        return [
            cls(result.patch, result.value, found_objects(result, settings)) for result in results
        ]


def aggregate(
    model: ModelInfo, results: Sequence[PatchResult | PatchTotal]
) -> NDArray[np.float64] | None:
    """Aggregate the predictions of patches that do not overlap.

    Counts and areas are summed; probabilities are averaged by area, or by the model's attention
    weights. Objects that two neighbouring patches detected count once. Failed patches are left out.

    Returns
    -------
    ndarray of float, shape (k,), or None
        None for embeddings, and if no patch has a valid prediction.
    """
    if model.card.task in ("embedding", "saliency") or not results:
        return None
    values = np.stack([result.value[: model.card.output_channels] for result in results])
    valid = ~np.isnan(values).any(axis=1)
    if not valid.any():
        return None
    if model.card.output.attention:
        return combine_parts(values[valid])
    values = values[:, : model.card.prediction_channels]
    if model.card.averaged:
        areas = np.array([result.patch.core.area for result in results], float)
        return np.average(values[valid], axis=0, weights=areas[valid])
    settings = model.card.merge_settings
    found = [found_objects(results[int(i)], settings) for i in np.flatnonzero(valid)]
    objects = [part for part in found if part is not None]
    if objects:
        together = DetectedObjects.concatenate(objects)
        return count_classes(together.take(merge_objects(together, settings)), values.shape[1])
    # fsum: identical bits for any order of the patches.
    return np.array([math.fsum(column) for column in values[valid].T])


def overlap_note(model: ModelInfo, patches: Sequence[Patch]) -> str:
    """Return a note on the overlap of a detector's tiles; empty for other models."""
    if not model.card.detects or len(patches) < 2:
        return ""
    pixels = round(2 * patches[0].halo)
    if not pixels:
        return "tiles do not overlap (halo=0): objects on their borders may be missed or cut"
    return f"neighbouring tiles share {pixels} px: objects on their borders are whole in one"


def found_objects(
    result: PatchResult | PatchTotal, settings: MergeSettings
) -> DetectedObjects | None:
    """Return the objects with their center in a patch's core; None if the model is no detector."""
    objects = result.objects
    if objects is None or isinstance(result, PatchTotal):
        return objects
    return objects.take(merge_objects(objects, settings))


def activation_map(
    results: Sequence[PatchResult | PatchTotal],
    patches: Sequence[Patch],
    card: ModelCard | None = None,
) -> Publish:
    """Publish the strength of the prediction as a map with one cell per patch.

    Parameters
    ----------
    results : sequence of PatchResult
        Results so far.
    patches : sequence of Patch
        The complete tiling, in reading order.
    card : ModelCard, optional
        Card of the model. Of classes that exclude one another, whose predictions sum to what is
        known, the strength is that of all but the most likely one: how uncertain the model is. Of
        labels it is the highest probability, of quantities the first one, otherwise the sum over
        classes per level-0 pixel.
    """
    cell = max(max(patch.core.h, patch.core.w) for patch in patches)
    # A region may cut the first tile; the tile after it starts where a full one would have ended.
    y, x = patches[0].core.y1 - cell, patches[0].core.x1 - cell
    if len(patches) == 1:
        y, x = patches[0].core.y, patches[0].core.x
    rows = -(-(patches[-1].core.y1 - y) // cell)
    columns = -(-(patches[-1].core.x1 - x) // cell)
    grid = np.full((rows, columns), np.nan)
    for result in results:
        cy, cx = result.patch.core.center
        strength = _strength(result.value, result.patch.core.area, card)
        grid[int(cy - y) // cell, int(cx - x) // cell] = strength
    return Publish("saliency", grid, Rect(y, x, rows * cell, columns * cell))


def _strength(value: NDArray[np.float64], area: int, card: ModelCard | None) -> float:
    """Return the strength of a patch's prediction; see `activation_map`."""
    if card is None or card.output.attention or not card.has_shares:
        return float(value.sum()) / area
    if card.task == "regression":
        return float(value[0])
    if card.task == "multi-label":
        return float(value.max())
    total = float(value.sum())
    return 1 - float(value.max()) / total if total else math.nan
