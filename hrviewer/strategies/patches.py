"""Cutting into patches: look at every pixel at native scale, tile by tile."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import replace
from itertools import pairwise
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hrviewer.errors import HrviewerError
from hrviewer.geometry import Patch, Rect, snap_scale
from hrviewer.strategies.base import (
    Params,
    SpecialValueText,
    Strategy,
    VisibleIf,
    halo_field,
    tile_field,
)
from hrviewer.strategies.protocol import (
    Estimate,
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
    activation_map,
    aggregate,
    alignment_step,
    batches,
    tiles,
)

__all__ = ["Patches", "PatchesParams"]

Map = NDArray[np.float32]

ROUNDING_TOLERANCE = 1e-4
"""Part of the largest value by which back ends may differ in their arithmetic alone."""


class PatchesParams(Params):
    """Parameters of `Patches`."""

    visible_if: ClassVar[VisibleIf] = {"verify": ("mode", ("exact",))}
    special_value_text: ClassVar[SpecialValueText] = {
        "tile": "the card's",
        "halo": "the card's",
        "grid": "tiles",
    }
    tile: int = tile_field(
        "Side of what a patch answers for, in network pixels; 0 takes the card's"
    )
    halo: int = halo_field(
        "Context read around it, in network pixels; -1 takes the card's, which makes tiles agree "
        "with the whole image"
    )
    grid: str = Field(
        "",
        pattern=r"^(\d{1,3}x\d{1,3})?$",
        title="Cut into",
        description="Cut the region into rows x columns instead, as 2x2, without halo unless one "
        "is given or measured",
    )
    mode: Literal["tiles", "exact"] = Field(
        "tiles",
        title="Mode",
        description="exact equals one look at the whole image, however large: how far the network "
        "sees is measured, whatever its card says, and what cannot be joined exactly is refused",
    )
    verify: int = Field(
        2,
        ge=0,
        le=64,
        title="Look again at",
        description="For exact, how many tiles are seen once more with more than twice the "
        "context, to say how far the answer is from one look at everything",
    )


class Patches(Strategy):
    """The survey's baseline CIP.

    With the card's halo the stitched output equals the network's output on the whole image; with
    none it shows what cutting costs. In mode ``exact`` the halo is measured and the equality is
    put to the test: the forward half of streaming (Pinckaers, van Ginneken and Litjens,
    *Streaming Convolutional Neural Networks for End-to-End Learning With Multi-Megapixel Images*,
    TPAMI 2020).
    """

    id: ClassVar[str] = "patches"
    title: ClassVar[str] = "Cutting into patches"
    family: ClassVar[str] = "baseline CIP"
    when: ClassVar[str] = "The full answer: every pixel at full resolution, at full price"
    Params: ClassVar[type[Params]] = PatchesParams

    def plan(self, context: PlanContext, params: PatchesParams) -> Plan:
        """Cut, look at every tile, add up."""
        halo = _halo(context, params)
        patches = _cut(context, params, halo)
        exact = params.mode == "exact"
        doubted = _tiles_to_verify(context, patches, params.verify) if exact else {}
        told: list[PatchTotal] = []
        for asked in batches(patches):
            result = yield PatchRequest("main", asked, target="output")
            for place, handle in enumerate(result.results, len(told)):
                if place in doubted:
                    doubted[place] = handle.map
            told += PatchTotal.from_results(result.results)
            yield activation_map(told, patches)
            estimate = aggregate(context.main, told)
            if result.stop:
                return Estimate(
                    estimate,
                    note=f"the budget ended after {len(told)} of {len(patches)} patches: "
                    "the rest of the region was not seen",
                )
            if estimate is not None:
                yield Publish("estimate", estimate, context.region)
        note = ""
        if exact:
            note = f"exact, with {patches[0].halo} pixels of context, as measured"
            note += yield from _verify(context, patches, doubted)
        return Estimate(aggregate(context.main, told), note=note)


def _halo(scene: PlanContext, params: PatchesParams) -> int | None:
    """Return the context to read, network pixels; None for the card's, or a grid's."""
    if params.mode == "tiles":
        return None if params.halo < 0 else params.halo
    if params.halo >= 0:
        raise HrviewerError("mode=exact measures the halo that it needs: leave halo out")
    return scene.main.measure_halo()


def _cut(scene: PlanContext, params: PatchesParams, halo: int | None) -> list[Patch]:
    scale = snap_scale(scene.native_scale)
    if not params.grid:
        return tiles(scene.main, scene.region, scale, tile=params.tile or None, halo=halo)
    rows, columns = map(int, params.grid.split("x"))
    region, step = scene.region, alignment_step(scene.main, scale)

    def lines(start: int, length: int, n: int) -> list[int]:
        inner = (round((start + length * i / n) / step) * step for i in range(1, n))
        return [start, *(at for at in inner if start < at < start + length), start + length]

    ys, xs = lines(region.y, region.h, rows), lines(region.x, region.w, columns)
    return [
        Patch(Rect(y, x, y1 - y, x1 - x), scale, halo or 0)
        for y, y1 in pairwise(ys)
        for x, x1 in pairwise(xs)
        if y1 > y and x1 > x
    ]


# Is it exact?


def _tiles_to_verify(scene: PlanContext, patches: list[Patch], n: int) -> dict[int, Map | None]:
    """Return tiles to look at again: the last, where the image may end oddly, and random ones."""
    if not n or len(patches) == 1:
        return {}
    rng = np.random.default_rng(scene.seed)
    some = rng.permutation(len(patches) - 1)[: n - 1]
    return dict.fromkeys([len(patches) - 1, *map(int, some)])


def _verify(
    scene: PlanContext, patches: list[Patch], told: dict[int, Map | None]
) -> Generator[Request, Response, str]:
    """Look at tiles again with more context, and from elsewhere; say by how much they differ.

    What begins one period earlier than twice the context would meets the network's strides
    otherwise: were the context or the period too small, the answers would not agree.
    """
    if not told:
        return ""
    halo = 2 * patches[0].halo + scene.main.period
    wider = tuple(replace(patches[place], halo=halo) for place in told)
    result = yield PatchRequest("main", wider)
    if result.stop:
        return "; the budget ended before that was put to the test"
    off = max(map(_difference, told.values(), result.results))
    said = (
        f"; {len(told)} tiles seen again, with {halo}, differ by at most {off:.1e} of the largest "
        "value there"
    )
    return said if off <= ROUNDING_TOLERANCE else f"{said}, more than by rounding: it is not exact"


def _difference(one: Map | None, other: PatchResult) -> float:
    """Return the largest difference of two maps over the largest value."""
    if one is None or one.shape != other.map.shape:
        return math.inf
    off = float(np.abs(one - other.map).max()) / (float(np.abs(one).max()) or 1.0)
    return off if math.isfinite(off) else math.inf
