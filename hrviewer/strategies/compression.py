"""Task-oriented compression: encode the image once, then run heads on the embeddings."""

from __future__ import annotations

import math
from collections.abc import Container, Generator, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hrviewer.errors import ModelError
from hrviewer.geometry import Patch, Rect
from hrviewer.strategies.base import Params, SpecialValueText, Strategy, VisibleIf
from hrviewer.strategies.estimation.intervals import Interval
from hrviewer.strategies.estimation.stand_in import StandIn
from hrviewer.strategies.estimation.tile_sample import TileSample, affords, scaled_to_region
from hrviewer.strategies.protocol import (
    Estimate,
    FeatureRequest,
    ModelInfo,
    PatchRequest,
    PatchResult,
    Plan,
    PlanContext,
    Publish,
    Request,
    Response,
)
from hrviewer.strategies.tiling import (
    PatchTotal,
    aggregate,
    batches,
    patch_flops,
    tile_option,
    tiles,
    total_flops,
)

__all__ = ["Compression", "CompressionParams"]

Floats = NDArray[np.float64]

MAX_SCORE = 80.0
"""Attention scores are clipped here, so that their exponential stays finite."""

MIN_BAND_TILES = 16
"""Tiles encoded between two runs of the head, at least: enough to keep the readers busy."""


class CompressionParams(Params):
    """Parameters of `Compression`."""

    visible_if: ClassVar[VisibleIf] = {"saliency": ("encoder", ("encoder",))}
    special_value_text: ClassVar[SpecialValueText] = {"tile": "the model's"}
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
        """Encode tiles and run the head on them: in bands, or on a random sample of tiles."""
        coder = _Coder(context, params)
        if coder.affords_all():
            return (yield from _encode_all(coder))
        return (yield from _encode_sample(coder))


class _Coder:
    """Encoder, head and tiles of a run, and what was encoded so far."""

    def __init__(self, context: PlanContext, params: CompressionParams) -> None:
        self.context = context
        self.role, self.head_role = params.encoder, _head_role(context, params.encoder)
        encoder = self.encoder = context.models[self.role]
        # Without a head the image is still encoded, to train one.
        has_head = self.head_role in context.models
        head = self.head = context.models[self.head_role] if has_head else None
        if head is not None:
            _check_head(encoder, head)
        self.from_head = self.role == "encoder" and head is not None and params.saliency == "head"
        self.has_attention = self.from_head and head is not None and head.card.output.attention
        self.attribution = self.from_head and head is not None and head.has_attribution
        # Main on a resized image, or a head with main's task, only approximates main.
        main = context.main.card
        self.replaces_main = head is None or (
            (head.card.task, head.card.classes) == (main.task, main.classes)
        )
        scale = context.scale_of(self.role)
        self.cell = encoder.stride * scale
        self.margin = math.ceil(_head_context(head) * self.cell) if head else 0
        extent = context.region.pad(self.margin) & context.rect
        tile = tile_option(encoder, params.tile)
        self.patches = tiles(encoder, extent, scale, tile=tile, extent=context.rect)
        # The resizer's error is that of main on its image.
        role = self.head_role if self.role == "encoder" else self.role
        stands_in = head is not None and self.replaces_main
        self.stand_in = StandIn(context, role) if stands_in else None
        self.totals: list[PatchTotal] = []
        self.width = self.processed = self.failed = 0

    def bands(self) -> Iterator[tuple[tuple[Patch, ...], Rect]]:
        """Yield bands of tiles, and the part of the region that the head covers after each."""
        region, top = self.context.region, self.context.region.y
        for band in bands(self.patches):
            # The head needs the rows below its last ones, except at the end.
            end = region.y1 if band[-1] is self.patches[-1] else band[-1].core.y1 - self.margin
            covered = Rect(top, region.x, max(0, end - top), region.w)
            yield band, covered
            if self.head is not None and not covered.empty:
                top = covered.y1

    def head_flops(self, covered: Rect) -> float:
        """Return the maximum cost of the head on a rectangle."""
        return _head_flops(self.head, covered, self.cell, self.attribution)

    def affords_all(self) -> bool:
        """Whether the budget pays for all tiles."""
        encoding = total_flops(self.encoder, self.patches, self.context.rect)
        return affords(
            self.context, encoding + sum(self.head_flops(covered) for _, covered in self.bands())
        )

    def encode(
        self, batch: Sequence[Patch]
    ) -> Generator[Request, Response, tuple[tuple[PatchResult, ...], bool]]:
        """Encode tiles; return the results, and whether the budget ended."""
        response = yield PatchRequest(self.role, tuple(batch), target="embeddings")
        if not (self.has_attention or self.attribution):
            for result in response.results:
                yield _embedding_distance(result)
        self.processed += len(response.results)
        for result in response.results:
            self.width = max(self.width, len(result.map))
            self.failed += bool(np.isnan(result.value).any())
        return response.results, response.stop

    def predict(
        self, encoded: Sequence[PatchResult], covered: Rect
    ) -> Generator[Request, Response, bool]:
        """Run the head on embeddings; return whether the budget ended."""
        response = yield FeatureRequest(
            self.head_role, tuple(encoded), covered, target="output", attribution=self.attribution
        )
        self.totals += PatchTotal.from_results(
            response.results, self.context.models[self.head_role]
        )
        if self.has_attention or self.attribution:
            for result in response.results:
                yield _attribution_map(result, self.has_attention)
        return response.stop

    def notes(self) -> list[str]:
        """Return notes on the embeddings, failures and a missing head."""
        if not self.processed:
            return ["the budget does not pay for one tile"]
        notes = [_size_note(self.context, self.width, self.cell)]
        if self.failed:
            notes.append(f"the encoder failed on {self.failed} tiles")
        if self.head is None:
            notes.append("the model bundle has no head to read them")
        elif self.from_head and not (self.has_attention or self.attribution):
            notes.append("the head has no attribution: the saliency is the norm of the embeddings")
        if self.stand_in is not None:
            notes.append(self.stand_in.note())
        return notes

    def estimate(self, values: Floats | None, sampled: Interval | None = None) -> Estimate:
        """Return the estimate of what ``main`` would count, from the head's estimate.

        Parameters
        ----------
        values : ndarray, shape (k,), optional
            Estimate of the head for the region.
        sampled : tuple of float, optional
            95 % interval of its sum, if it is from a sample of tiles.
        """
        if values is None or self.head is None or self.stand_in is None:
            return Estimate(values, sampled)
        k = self.head.card.prediction_channels
        found = np.array([total.value for total in self.totals])[:, k : 2 * k]
        known = float(np.nansum([total.value[:k] for total in self.totals]))
        scale = float(values.sum()) / known if known > 0 else 1.0
        # The variance of a sample's predictions is scaled to the region as its count is.
        variance = float(np.nansum(found)) * scale**2 if self.head.card.output.variance else 0.0
        interval = self.stand_in.interval(values, variance, sampled)
        return Estimate(self.stand_in.correct(values), interval)


def _encode_all(coder: _Coder) -> Plan:
    """Encode one band of tiles after another, and run the head on each."""
    context, head, margin = coder.context, coder.head, coder.margin
    encoded: list[PatchResult] = []
    lost: list[Rect] = []
    top, stop = context.region.y, False
    for band, covered in coder.bands():
        for batch in batches(band):
            results, stop = yield from coder.encode(batch)
            encoded += results
            lost += [r.patch.core & context.region for r in results if np.isnan(r.value).any()]
            if stop:
                break
        if stop:
            break
        if head is not None and not covered.empty:
            stop = yield from coder.predict(encoded, covered)
            if stop:
                break
            top = covered.y1
            estimate = coder.estimate(_scaled(coder, top, lost))
            if estimate.values is not None:
                yield Publish("estimate", estimate.values, context.region)
        # Free the embeddings that the next run of the head does not need.
        encoded = [result for result in encoded if head and result.patch.core.y1 > top - margin]
    whole = coder.processed == len(coder.patches) and not stop
    notes = coder.notes()
    if not whole:
        notes.append(f"{coder.processed} of {len(coder.patches)} tiles were processed")
    estimate = coder.estimate(_scaled(coder, top, lost))
    return replace(
        estimate,
        interval=estimate.interval if whole and not coder.failed else None,
        note="; ".join(notes),
        exhaustive=whole and not coder.failed and not coder.replaces_main,
    )


def _scaled(coder: _Coder, top: int, lost: Sequence[Rect]) -> NDArray[np.float64] | None:
    """Return the estimate for the region from the rows above `top`, without the lost tiles."""
    if coder.head is None:
        return None
    region, values = coder.context.region, aggregate(coder.head, coder.totals)
    covered = (top - region.y) * region.w - sum(rect.area for rect in lost)
    if covered == region.area:
        return values
    return scaled_to_region(coder.head, values, covered, region)


def _encode_sample(coder: _Coder) -> Plan:
    """Encode a random sample of tiles, and run the head inside each.

    A head with context is run on the part of a tile that has its context in the tile.
    """
    context, head, region = coder.context, coder.head, coder.context.region
    patches = [patch for patch in coder.patches if not (patch.core & region).empty]
    flops = patch_flops(coder.encoder, patches, context.rect)
    costs = [c + coder.head_flops(p.core) for c, p in zip(flops, patches, strict=True)]
    sample = TileSample(context, patches, costs)
    todo = sample.tiles if math.isfinite(context.seconds) else sample.tiles[: sample.planned]
    totals: list[PatchTotal] = []
    for batch in batches(todo, MIN_BAND_TILES):
        results, stop = yield from coder.encode(batch)
        for result in results:
            if head is None or stop:
                break
            covered = _without_border(result.patch.core, coder.margin, context.rect) & region
            if covered.empty or np.isnan(result.value).any():
                missing = np.full(head.card.output_channels, np.nan)
                totals.append(PatchTotal(result.patch, missing))
                continue
            stop = yield from coder.predict([result], covered)
            if not stop:
                share = (
                    1.0 if head.card.averaged else covered.area / (result.patch.core & region).area
                )
                totals.append(PatchTotal(result.patch, coder.totals[-1].value / share))
        estimate = _sample_estimate(coder, sample, totals)
        if estimate.values is not None:
            yield Publish("estimate", estimate.values, region, estimate.interval)
        if stop:
            break
    notes = coder.notes()
    if head is None:
        return Estimate(None, note="; ".join([*notes, sample.note(coder.processed, None)]))
    estimate = _sample_estimate(coder, sample, totals)
    return replace(estimate, note="; ".join(filter(None, [*notes, estimate.note])))


def _sample_estimate(coder: _Coder, sample: TileSample, totals: Sequence[PatchTotal]) -> Estimate:
    """Return the estimate for the region from the tiles so far."""
    if coder.head is None:
        return Estimate(None)
    found = sample.estimate(coder.head, totals)
    estimate = coder.estimate(found.values, found.interval)
    # Without an interval of the sample, the head's error is not all.
    return replace(estimate, interval=found.interval and estimate.interval, note=found.note)


def _without_border(core: Rect, margin: int, image: Rect) -> Rect:
    """Return a rectangle without a margin, except along the image's border."""
    y, x = (0 if start == 0 else start + margin for start in (core.y, core.x))
    y1, x1 = (
        end if end == last else end - margin
        for end, last in ((core.y1, image.y1), (core.x1, image.x1))
    )
    return Rect(y, x, max(0, y1 - y), max(0, x1 - x))


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
