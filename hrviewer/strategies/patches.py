"""Cutting into patches: inference on every pixel at native scale, tile by tile."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hrviewer.errors import ParameterError
from hrviewer.geometry import Patch, Rect, snap_scale
from hrviewer.strategies.base import (
    Params,
    SpecialValueText,
    Strategy,
    VisibleIf,
    halo_field,
    tile_field,
)
from hrviewer.strategies.estimation.aggregation import (
    Aggregation,
    aggregation_field,
    check_aggregation,
)
from hrviewer.strategies.estimation.foreground import (
    Skip,
    choose_tiles,
    skip_field,
)
from hrviewer.strategies.estimation.regression import context_error
from hrviewer.strategies.estimation.sampling_grid import SIDES
from hrviewer.strategies.estimation.tile_sample import TileSample
from hrviewer.strategies.protocol import (
    Estimate,
    PatchRequest,
    PatchResult,
    Plan,
    PlanContext,
    Request,
    Response,
)
from hrviewer.strategies.tiling import (
    PatchTotal,
    activation_map,
    alignment_step,
    batch_size,
    batches,
    cell_side,
    depends_on_tiles,
    exhaustive_tile,
    overlap_note,
    patch_flops,
    tile_option,
    tiles,
)

__all__ = ["Patches", "PatchesParams"]

Map = NDArray[np.float32]

ROUNDING_TOLERANCE = 1e-4
"""Difference between back ends, over the largest value, that is due to rounding alone."""

SAMPLE_TILES = 32
"""Tiles of a sample that the budget should pay for."""


class PatchesParams(Params):
    """Parameters of `Patches`."""

    visible_if: ClassVar[VisibleIf] = {"verify": ("mode", ("exact",))}
    special_value_text: ClassVar[SpecialValueText] = {
        "tile": "by the model",
        "halo": "the model's",
        "grid": "tiles",
    }
    tile: int = tile_field(
        "Side of a patch's core, in model pixels; 0 chooses it by the model's halo and memory, so "
        "that halos cost little: every tile gives the same output"
    )
    halo: int = halo_field(
        "Context read around a core, in model pixels; -1 takes the card's, with which the stitched "
        "output equals that of the whole image"
    )
    grid: str = Field(
        "",
        pattern=r"^(\d{1,3}x\d{1,3})?$",
        title="Cut into",
        description="Cut the region into rows x columns instead, such as 2x2; without halo unless "
        "one is given or measured",
    )
    mode: Literal["tiles", "exact"] = Field(
        "tiles",
        title="Mode",
        description="exact equals inference on the whole image at once, for any image size: the "
        "receptive field is measured instead of taken from the card, and models whose tiles cannot "
        "be stitched exactly are refused",
    )
    verify: int = Field(
        2,
        ge=0,
        le=64,
        title="Verify tiles",
        description="For exact, number of tiles that are processed once more with more than twice "
        "the context, to measure the difference",
    )
    skip: Skip = skip_field()
    aggregation: Aggregation = aggregation_field()


class Patches(Strategy):
    """The survey's baseline CIP.

    With the card's halo the stitched output equals the model's output on the whole image; without
    halo it shows the error of cutting. In mode ``exact`` the halo is measured and the equality is
    verified: the forward half of streaming (Pinckaers, van Ginneken and Litjens,
    *Streaming Convolutional Neural Networks for End-to-End Learning With Multi-Megapixel Images*,
    TPAMI 2020).
    """

    id: ClassVar[str] = "patches"
    title: ClassVar[str] = "Cutting into patches"
    family: ClassVar[str] = "baseline CIP"
    when: ClassVar[str] = "The exhaustive prediction: every pixel at full resolution, at full cost"
    Params: ClassVar[type[Params]] = PatchesParams

    def choose(self, context: PlanContext, params: PatchesParams) -> PatchesParams:
        """Return the parameters with the side of tiles."""
        if params.tile or params.grid or context.main.card.input.fixed:
            return params
        halo = _halo(context, params)
        scale = snap_scale(context.native_scale)
        large = exhaustive_tile(context.main, context.region, scale, halo=halo)
        return _with_tile(context, params, large, halo)

    def as_part(
        self, context: PlanContext, whole: PlanContext, params: PatchesParams
    ) -> tuple[PlanContext, PatchesParams]:
        """Return small tiles, which fill a view step by step, where every tile gives the same.

        Otherwise the part gets the tiles of the whole region that meet it.
        """
        if depends_on_tiles(context.main):
            return replace(context, whole=whole), self.choose(whole, params)
        if params.tile or params.grid:
            return context, params
        small = context.main.card.input.tile
        return context, _with_tile(context, params, small, _halo(context, params))

    def plan(self, context: PlanContext, params: PatchesParams) -> Plan:
        """Cut, run inference on every tile, aggregate."""
        check_aggregation(context, params.aggregation)
        params = self.choose(context, params)
        halo = _halo(context, params)
        cut = _cut(context, params, halo)
        foreground = yield from choose_tiles(context, cut, params.skip)
        if isinstance(foreground, Estimate):
            return foreground
        sample = TileSample(
            context,
            foreground.tiles,
            patch_flops(context.main, foreground.tiles, context.rect),
            foreground.budget,
            aggregation=params.aggregation,
        )
        patches, within = sample.tiles, context.region
        clipped = [replace(each, core=each.core & within) for each in cut]
        exact = params.mode == "exact"
        references = _tiles_to_verify(context, patches, params.verify) if exact else {}
        totals: list[PatchTotal] = []
        for batch in batches(patches, batch_size(context)):
            response = yield PatchRequest("main", batch, target="output")
            for index, result in enumerate(response.results, len(totals)):
                if index in references:
                    references[index] = result.map
            totals += PatchTotal.from_results(response.results, context.main)
            yield activation_map(totals, clipped, context.main.card)
            if response.stop:
                error = context_error(patches[0].halo, context.main.halo)
                estimate = sample.estimate(context.main, totals)
                return foreground.describe(_widened(estimate, error), patches[: len(totals)])
            yield from sample.publish(context.main, totals)
        enough = len(cut) == 1 or patches[0].halo >= context.main.context
        estimate = replace(sample.estimate(context.main, totals), exhaustive=enough)
        estimate = foreground.describe(estimate, patches)
        if not exact:
            notes = estimate.note, overlap_note(context.main, patches)
            return replace(estimate, note="; ".join(filter(None, notes)))
        note = f"exact, with {patches[0].halo} pixels of context, as measured"
        note += yield from _verify(context, patches, references)
        return replace(estimate, note=note)


def _widened(estimate: Estimate, error: float) -> Estimate:
    """Return an estimate with an interval that allows for a relative error of the values."""
    if estimate.interval is None or estimate.values is None or not error:
        return estimate
    margin = error * float(estimate.values.sum())
    low, high = estimate.interval
    return replace(estimate, interval=(max(0.0, low - margin), high + margin))


def _sample_side(context: PlanContext, halo: int) -> int:
    """Return the largest side of tiles of which the budget pays for enough.

    Counts cluster, so that the error of a sample depends little on the side of its tiles.
    """
    card = context.main.card.input
    sides = [n for n in SIDES if n <= card.tile and n % context.main.card.step == 0] or [card.tile]
    flops = {n: context.main.flops(n + 2 * halo, n + 2 * halo) for n in sides}
    return next((n for n in sides if context.budget >= SAMPLE_TILES * flops[n]), sides[-1])


def _with_tile(
    context: PlanContext, params: PatchesParams, tile: int, halo: int | None
) -> PatchesParams:
    """Return the parameters with a tile; a smaller one if the budget pays only for a sample."""
    patches = _cut(context, params.model_copy(update={"tile": tile}), halo)
    sample = TileSample(context, patches, patch_flops(context.main, patches, context.rect))
    if sample.whole or params.mode == "exact":
        return params.model_copy(update={"tile": tile})
    # A sample needs many places more than exact values: less context pays for twice as many.
    enough = context.main.context if halo is None else halo
    side = _sample_side(context, enough)
    return params.model_copy(update={"tile": side, "halo": enough})


def _halo(context: PlanContext, params: PatchesParams) -> int | None:
    """Return the context to read, in model pixels; None for the card's, or a grid's."""
    if params.mode == "tiles":
        card = context.main.card.input
        one_input = (
            card.fixed and max(context.shape) <= snap_scale(context.native_scale) * card.tile
        )
        if params.halo < 0 and one_input and context.tiled_region == context.rect:
            return 0  # there is nothing around the image
        return None if params.halo < 0 else params.halo
    if params.halo >= 0:
        raise ParameterError("mode=exact measures the halo that it needs: leave halo out")
    return context.main.measure_halo()


def _cut(context: PlanContext, params: PatchesParams, halo: int | None) -> list[Patch]:
    scale = snap_scale(context.native_scale)
    tile = tile_option(context.main, params.tile)
    if not params.grid:
        return tiles(
            context.main,
            context.region,
            scale,
            tile=tile,
            halo=halo,
            extent=context.tiled_region,
        )
    if tile:
        raise ParameterError("grid and tile both cut the region: give one of them")
    rows, columns = map(int, params.grid.split("x"))
    region, step = context.tiled_region, alignment_step(context.main, scale)

    def lines(start: int, length: int, n: int) -> list[int]:
        inner = (round((start + length * i / n) / step) * step for i in range(1, n))
        return [start, *(at for at in inner if start < at < start + length), start + length]

    ys, xs = lines(region.y, region.h, rows), lines(region.x, region.w, columns)
    if context.main.card.input.fixed:
        h, w = (max(b - a for a, b in pairwise(edges)) for edges in (ys, xs))
        if max(h, w) > cell_side(context.main, scale, halo=halo or 0):
            raise ParameterError(
                f"{context.main.card.name} takes {context.main.card.input.tile} pixels a side "
                f"only, but grid={params.grid} makes parts of {h} × {w}: leave grid out"
            )
    return [
        Patch(Rect(y, x, y1 - y, x1 - x), scale, halo or 0)
        for y, y1 in pairwise(ys)
        for x, x1 in pairwise(xs)
        if not (Rect(y, x, y1 - y, x1 - x) & context.region).empty
    ]


# Verification of mode ``exact``.


def _tiles_to_verify(
    context: PlanContext, patches: Sequence[Patch], n: int
) -> dict[int, Map | None]:
    """Return tiles to verify: the last one, whose size may be odd, and random ones."""
    if not n or len(patches) == 1:
        return {}
    rng = np.random.default_rng(context.seed)
    some = rng.permutation(len(patches) - 1)[: n - 1]
    return dict.fromkeys([len(patches) - 1, *map(int, some)])


def _verify(
    context: PlanContext, patches: Sequence[Patch], references: dict[int, Map | None]
) -> Generator[Request, Response, str]:
    """Process tiles again with more context and another offset; return a note on the difference.

    An input that begins one period earlier than twice the context is aligned differently with the
    model's strides: with too small a context or period the predictions would not agree.
    """
    if not references:
        return ""
    halo = 2 * patches[0].halo + context.main.period
    wider = tuple(replace(patches[index], halo=halo) for index in references)
    response = yield PatchRequest("main", wider)
    if response.stop:
        return "; the budget ended before this was verified"
    difference = max(map(_difference, references.values(), response.results))
    note = (
        f"; {len(references)} tiles verified with {halo} pixels differ by at most "
        f"{difference:.1e} of their largest value"
    )
    if difference > ROUNDING_TOLERANCE:
        note += ", more than by rounding: the output is not exact"
    return note


def _difference(one: Map | None, other: PatchResult) -> float:
    """Return the largest difference of two maps over the largest value."""
    if one is None or one.shape != other.map.shape:
        return math.inf
    difference = float(np.abs(one - other.map).max()) / (float(np.abs(one).max()) or 1.0)
    return difference if math.isfinite(difference) else math.inf
