"""Task-oriented compression: encode the image once, then run heads on the embeddings."""

from __future__ import annotations

import math
from collections.abc import Container, Iterator, Sequence
from itertools import groupby
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from hrviewer.errors import ModelError
from hrviewer.geometry import Patch, Rect
from hrviewer.strategies.base import Params, SpecialValueText, Strategy, VisibleIf
from hrviewer.strategies.protocol import (
    Estimate,
    FeatureRequest,
    ModelInfo,
    PatchRequest,
    PatchResult,
    Plan,
    PlanContext,
    Publish,
)
from hrviewer.strategies.tiling import (
    PatchTotal,
    aggregate,
    batches,
    tile_option,
    tiles,
    total_flops,
)

__all__ = ["Compression", "CompressionParams"]

MAX_SCORE = 80.0
"""Attention scores are clipped here, so that their exponential stays finite."""

MIN_BAND_TILES = 16
"""Tiles encoded between two runs of the head, at least: enough to keep the readers busy."""


class CompressionParams(Params):
    """Parameters of `Compression`."""

    visible_if: ClassVar[VisibleIf] = {"saliency": ("encoder", ("encoder",))}
    special_value_text: ClassVar[SpecialValueText] = {"tile": "the card's"}
    encoder: Literal["encoder", "resizer"] = Field(
        "encoder",
        title="Encoder",
        description="Model that compresses: the encoder, whose embeddings the head reads, or the "
        "resizer, whose smaller image main reads",
    )

    tile: int = Field(
        0,
        ge=0,
        le=8192,
        title="Tile",
        description="Side of an encoded tile, in pixels of the encoder; 0 takes the card's",
    )

    saliency: Literal["head", "embeddings"] = Field(
        "head",
        title="Saliency",
        description="Attribution of the head's prediction, by its attention or, at twice the "
        "cost of the prediction, its gradient; or the norm of the embeddings, free of cost",
    )


class Compression(Strategy):
    """The survey's TOIC: an encoder turns patches into embeddings, and a head reads them.

    All regions share the tiles of the whole image, whose embeddings are cached: another region or
    another head costs inference with the head alone (Tellez et al., *Neural Image Compression for
    Gigapixel Histopathology Image Analysis*, TPAMI 2019). Embeddings and predictions equal those
    of the whole image as one input: a head with a receptive field also gets the embeddings next to
    the ones that it predicts for.
    """

    id: ClassVar[str] = "compression"
    title: ClassVar[str] = "Compression for the task"
    family: ClassVar[str] = "TOIC"
    when: ClassVar[str] = "Many tasks on one image: encode it once, then predict at almost no cost"
    Params: ClassVar[type[Params]] = CompressionParams
    roles: ClassVar[tuple[str, ...]] = ("main", "encoder")

    def answering_role(self, roles: Container[str]) -> str:
        """Return the head, whose task may differ from main's."""
        return "head" if "head" in roles else "main"

    def plan(self, context: PlanContext, params: CompressionParams) -> Plan:
        """Encode one band of tiles after another, and run the head on each."""
        role, head_role = params.encoder, _head_role(context, params.encoder)
        encoder = context.models[role]
        # Without a head the image is still encoded, to train one.
        head = context.models[head_role] if head_role in context.models else None  # noqa: SIM401
        if head is not None:
            _check_head(encoder, head)
        from_head = role == "encoder" and head is not None and params.saliency == "head"
        has_attention = from_head and head is not None and head.card.output.attention
        attribution = from_head and head is not None and head.has_attribution
        scale = context.scale_of(role)
        cell = encoder.stride * scale
        margin = math.ceil(_head_context(head) * cell) if head else 0
        extent = context.region.pad(margin) & context.rect
        tile = tile_option(encoder, params.tile)
        patches = tiles(encoder, extent, scale, tile=tile, extent=context.rect)

        encoded: list[PatchResult] = []
        totals: list[PatchTotal] = []
        width = processed = failed = 0
        top, remaining = context.region.y, context.budget
        for band in bands(patches):
            # The head needs the rows below its last ones, except at the end.
            end = context.region.y1 if band[-1] is patches[-1] else band[-1].core.y1 - margin
            covered = Rect(top, context.region.x, max(0, end - top), context.region.w)
            cost = total_flops(encoder, band, context.rect) + _head_flops(
                head, covered, cell, attribution
            )
            if cost > remaining * (1 + 1e-9):
                break
            for batch in batches(band):
                response = yield PatchRequest(role, batch, target="embeddings")
                encoded += response.results
                if not (has_attention or attribution):
                    for result in response.results:
                        yield _embedding_distance(result)
            remaining = response.remaining
            processed += len(band)
            width = len(encoded[-1].map)
            failed += sum(bool(np.isnan(result.value).any()) for result in encoded[-len(band) :])
            if head is not None and not covered.empty:
                response = yield FeatureRequest(
                    head_role, tuple(encoded), covered, target="output", attribution=attribution
                )
                remaining, top = response.remaining, covered.y1
                totals += PatchTotal.from_results(response.results)
                if has_attention or attribution:
                    for result in response.results:
                        yield _attribution_map(result, has_attention)
                estimate = aggregate(head, totals)
                if estimate is not None:
                    yield Publish("estimate", estimate, context.region)
            # Free the embeddings that the next run of the head does not need.
            encoded = [result for result in encoded if head and result.patch.core.y1 > top - margin]

        if not processed:
            return Estimate(None, note="the budget does not pay for one row of tiles")
        note = _size_note(context, width, cell)
        if processed < len(patches):
            note += (
                f"; the budget ended after {processed} of {len(patches)} tiles: the rest of the "
                "region was not processed"
            )
        if failed:
            note += f"; the encoder failed on {failed} tiles, which are left out"
        if head is None:
            note += "; the model bundle has no head to read them"
        elif from_head and not (has_attention or attribution):
            note += "; the head has no attribution: the saliency is the norm of the embeddings"
        return Estimate(
            aggregate(head, totals) if head else None,
            note=note,
            exhaustive=processed == len(patches) and not failed,
        )


def bands(patches: Sequence[Patch]) -> Iterator[tuple[Patch, ...]]:
    """Yield whole rows of tiles, joined until there are `MIN_BAND_TILES` tiles."""
    band: tuple[Patch, ...] = ()
    for _, row in groupby(patches, lambda patch: patch.core.y):
        band += tuple(row)
        if len(band) >= MIN_BAND_TILES:
            yield band
            band = ()
    if band:
        yield band


def _head_role(context: PlanContext, encoder: str) -> str:
    """Return the role of the model that reads the embeddings.

    Raises
    ------
    ModelError
        If the bundle has no such encoder, or main cannot read its output.
    """
    if encoder == "encoder":
        return "head"
    if encoder not in context.models:
        raise ModelError(f"the model bundle has no {encoder}: choose encoder=encoder, or train one")
    main = context.main.card
    if main.input.fixed:
        raise ModelError(f"{main.name} has a fixed input size: choose encoder=encoder")
    if "head" in context.models:
        head = context.models["head"].card
        if (head.task, head.classes) != (main.task, main.classes):
            raise ModelError(
                f"{head.name} has another task than {main.name}, which reads the resized image: "
                "choose encoder=encoder, or a model bundle without that head"
            )
    return "main"


def _head_context(head: ModelInfo) -> int:
    """Return the cells of context that a head needs.

    With a period, its input begins up to a period earlier.
    """
    return head.halo + (head.period if head.period > 1 else 0)


def _check_head(encoder: ModelInfo, head: ModelInfo) -> None:
    """Refuse a head that cannot read these embeddings, before any cost arises."""
    expected, given = head.card.input.channel_count, encoder.card.output.width
    if expected != given:
        raise ModelError(
            f"{head.card.name} takes embeddings of {expected} values, not {given} as "
            f"{encoder.card.name} gives: choose the head that was trained on them"
        )


def _head_flops(head: ModelInfo | None, covered: Rect, cell: float, attribution: bool) -> float:
    """Return the maximum cost of the head on a rectangle."""
    if head is None or covered.empty:
        return 0.0
    context_cells = 1 + 2 * _head_context(head)
    rows, columns = (math.ceil(side / cell) + context_cells for side in (covered.h, covered.w))
    return head.flops(rows, columns) * (3 if attribution else 1)


def _embedding_distance(result: PatchResult) -> Publish:
    """Publish the norm of embeddings: their distance from the mean, which encoders put at 0."""
    distance = np.sqrt((result.map.astype(np.float32) ** 2).mean(axis=0))
    y, x, h, w = map(round, result.box)
    return Publish("saliency", distance, Rect(y, x, h, w))


def _attribution_map(result: PatchResult, has_attention: bool) -> Publish:
    """Publish the head's attribution: its gradient, or the attention weight of each cell.

    A weight is the exponential of the score. It is not normalized, since the sum of all weights is
    known only at the end; the colour scale does not depend on it.
    """
    last = result.map[-1]
    y, x, h, w = map(round, result.box)
    return Publish(
        "saliency", np.exp(np.minimum(last, MAX_SCORE)) if has_attention else last, Rect(y, x, h, w)
    )


def _size_note(context: PlanContext, width: int, cell: float) -> str:
    """Return a note on the size of the embeddings relative to the image."""
    per_pixel = 2 * width / cell**2
    total = per_pixel * context.region.area
    return (
        f"embeddings of {width} numbers per {cell:g} × {cell:g} pixels: {total / 1e6:.3g} MB in "
        f"half precision, 1/{context.pixel_bytes / per_pixel:.3g} of the image's pixels"
    )
