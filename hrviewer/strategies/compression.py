"""Task-oriented compression: encode the image once; every question after that is nearly free."""

from __future__ import annotations

import math
from collections.abc import Container, Iterator, Sequence
from itertools import groupby
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from hrviewer.errors import HrviewerError
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
from hrviewer.strategies.tiling import PatchTotal, aggregate, batches, tiles, total_flops

__all__ = ["Compression", "CompressionParams"]

MAX_SCORE = 80.0
"""The score beyond which attention is shown as no more: it must stay finite."""

MIN_BAND_TILES = 16
"""Tiles encoded between one thought and the next, at least: enough to keep readers busy."""


class CompressionParams(Params):
    """Parameters of `Compression`."""

    visible_if: ClassVar[VisibleIf] = {"saliency": ("encoder", ("encoder",))}
    special_value_text: ClassVar[SpecialValueText] = {"tile": "the card's"}
    encoder: Literal["encoder", "resizer"] = Field(
        "encoder",
        title="Encoder",
        description="What compresses: the encoder, whose codes the head reads; or the resizer, "
        "whose smaller picture main reads",
    )

    tile: int = Field(
        0,
        ge=0,
        le=8192,
        title="Tile",
        description="Side of what one look encodes, in pixels of the encoder; 0 takes the card's",
    )

    saliency: Literal["head", "embeddings"] = Field(
        "head",
        title="Saliency",
        description="What mattered to the head, by its attention or, for twice what its answer "
        "costs, its gradient; or how far codes are from the usual one, which costs nothing",
    )


class Compression(Strategy):
    """The survey's TOIC: an encoder makes of every patch a grid of codes, a head reads them.

    Tiles are those of the whole image, whatever the region, and their codes are kept. Whoever
    asks again, elsewhere or with another head, pays for the head alone (Tellez et al., *Neural
    Image Compression for Gigapixel Histopathology Image Analysis*, TPAMI 2019). Codes and answer
    are those of the whole image as one input: a head that looks around itself is given the codes
    next to what it answers for, too.
    """

    id: ClassVar[str] = "compression"
    title: ClassVar[str] = "Compression for the task"
    family: ClassVar[str] = "TOIC"
    when: ClassVar[str] = "Many questions about one image: encode it once, ask for next to nothing"
    Params: ClassVar[type[Params]] = CompressionParams
    roles: ClassVar[tuple[str, ...]] = ("main", "encoder")

    def answering_role(self, roles: Container[str]) -> str:
        """Return the head, whose question may be another one than main's."""
        return "head" if "head" in roles else "main"

    def plan(self, context: PlanContext, params: CompressionParams) -> Plan:
        """Encode a band of tiles, think about what is known by then, go on."""
        codes, reads = params.encoder, _head_role(context, params.encoder)
        encoder = context.models[codes]
        # A pack without a head is still encoded, to fit one; asking for it would be an error.
        head = context.models[reads] if reads in context.models else None  # noqa: SIM401
        if head is not None:
            _check_head(encoder, head)
        asked_head = codes == "encoder" and head is not None and params.saliency == "head"
        attends = asked_head and head is not None and head.card.output.attention
        explain = asked_head and head is not None and head.has_attribution
        scale = context.scale_of(codes)
        cell = encoder.stride * scale
        reach = math.ceil(_head_context(head) * cell) if head else 0
        around = context.region.pad(reach) & context.rect
        patches = tiles(encoder, around, scale, tile=params.tile or None, extent=context.rect)

        held: list[PatchResult] = []
        thoughts: list[PatchTotal] = []
        width = looked = failed = 0
        top, left = context.region.y, context.budget
        for band in bands(patches):
            # The rows next to its last ones are not known yet, unless there are none.
            end = context.region.y1 if band[-1] is patches[-1] else band[-1].core.y1 - reach
            where = Rect(top, context.region.x, max(0, end - top), context.region.w)
            cost = total_flops(encoder, band, context.rect) + _head_flops(
                head, where, cell, explain
            )
            if cost > left * (1 + 1e-9):
                break
            for asked in batches(band):
                result = yield PatchRequest(codes, asked, target="embeddings")
                held += result.results
                if not (attends or explain):
                    for handle in result.results:
                        yield _embedding_distance(handle)
            left = result.remaining
            looked += len(band)
            width = len(held[-1].map)
            failed += sum(bool(np.isnan(handle.value).any()) for handle in held[-len(band) :])
            if head is not None and not where.empty:
                result = yield FeatureRequest(
                    reads, tuple(held), where, target="output", attribution=explain
                )
                left, top = result.remaining, where.y1
                thoughts += PatchTotal.from_results(result.results)
                if attends or explain:
                    for handle in result.results:
                        yield _attribution_map(handle, attends)
                estimate = aggregate(head, thoughts)
                if estimate is not None:
                    yield Publish("estimate", estimate, context.region)
            # What the next thought does not need is let go.
            held = [handle for handle in held if head and handle.patch.core.y1 > top - reach]

        if not looked:
            return Estimate(None, note="the budget does not pay for one row of tiles")
        note = _size_note(context, width, cell)
        if looked < len(patches):
            note += (
                f"; the budget ended after {looked} of {len(patches)} tiles: the rest of the "
                "region was not seen"
            )
        if failed:
            note += f"; the encoder failed on {failed} tiles, of which nothing is said"
        if head is None:
            note += "; the pack has no head to read them"
        elif asked_head and not (attends or explain):
            note += "; the head cannot say what mattered: saliency is how unusual codes are"
        return Estimate(aggregate(head, thoughts) if head else None, note=note)


def bands(patches: Sequence[Patch]) -> Iterator[tuple[Patch, ...]]:
    """Yield whole rows of tiles, as many together as make `ABREAST` tiles."""
    band: tuple[Patch, ...] = ()
    for _, row in groupby(patches, lambda patch: patch.core.y):
        band += tuple(row)
        if len(band) >= MIN_BAND_TILES:
            yield band
            band = ()
    if band:
        yield band


def _head_role(scene: PlanContext, encoder: str) -> str:
    """Return who reads what is encoded.

    Raises
    ------
    UserError
        Where the pack has no such encoder, or main cannot read it.
    """
    if encoder == "encoder":
        return "head"
    if encoder not in scene.models:
        raise HrviewerError(f"the pack has no {encoder}: choose encoder=encoder, or teach it one")
    main = scene.main.card
    if main.input.fixed:
        raise HrviewerError(f"{main.name} takes pictures of one size only: choose encoder=encoder")
    if "head" in scene.models:
        head = scene.models["head"].card
        if (head.task, head.classes) != (main.task, main.classes):
            raise HrviewerError(
                f"{head.name} answers another question than {main.name}, which reads what is "
                "resized: choose encoder=encoder, or a pack without that head"
            )
    return "main"


def _head_context(head: ModelInfo) -> int:
    """Return the codes next to what it answers for that a head may need.

    One that may not begin everywhere begins up to its period earlier.
    """
    return head.halo + (head.period if head.period > 1 else 0)


def _check_head(encoder: ModelInfo, head: ModelInfo) -> None:
    """Refuse a head that cannot read these codes, before anything is spent."""
    takes, gives = head.card.input.channel_count, encoder.card.output.width
    if takes != gives:
        raise HrviewerError(
            f"{head.card.name} takes codes of {takes} values, not {gives} as {encoder.card.name} "
            "gives: choose the head that was made for it"
        )


def _head_flops(head: ModelInfo | None, where: Rect, cell: float, explain: bool) -> float:
    """Return what thinking about `where` costs at most."""
    if head is None or where.empty:
        return 0.0
    more = 1 + 2 * _head_context(head)
    rows, columns = (math.ceil(side / cell) + more for side in (where.h, where.w))
    return head.flops(rows, columns) * (3 if explain else 1)


def _embedding_distance(handle: PatchResult) -> Publish:
    """Show how far codes are from the usual one, which an encoder's last layer puts at 0."""
    away = np.sqrt((handle.map.astype(np.float32) ** 2).mean(axis=0))
    y, x, h, w = map(round, handle.box)
    return Publish("saliency", away, Rect(y, x, h, w))


def _attribution_map(handle: PatchResult, attends: bool) -> Publish:
    """Show what mattered to the head: what it was led by, or the weight of each place.

    A weight is the exponential of the score. What it is of all weights is known at the end only,
    and of every cell of a view never; but its colour does not depend on what all are divided by.
    """
    last = handle.map[-1]
    y, x, h, w = map(round, handle.box)
    return Publish(
        "saliency", np.exp(np.minimum(last, MAX_SCORE)) if attends else last, Rect(y, x, h, w)
    )


def _size_note(scene: PlanContext, width: int, cell: float) -> str:
    """Return how much room codes take, and how much the image."""
    per_pixel = 2 * width / cell**2
    total = per_pixel * scene.region.area
    return (
        f"codes of {width} numbers for every {cell:g} × {cell:g} pixels: {total / 1e6:.3g} MB in "
        f"half precision, 1/{scene.pixel_bytes / per_pixel:.3g} of the image's pixels"
    )
