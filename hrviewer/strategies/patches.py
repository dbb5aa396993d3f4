"""Cutting into patches: look at every pixel at native scale, tile by tile."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

from pydantic import Field

from hrviewer.geometry import Patch, Rect, snap_scale
from hrviewer.strategies.base import Params, Strategy
from hrviewer.strategies.protocol import Answer, Handle, Look, Plan, Scene, Show
from hrviewer.strategies.tiling import aggregate, response, rounds, tiles

__all__ = ["Patches", "PatchesParams"]


class PatchesParams(Params):
    """Parameters of `Patches`."""

    tile: int = Field(
        0,
        ge=0,
        le=8192,
        title="Tile",
        description="Side of what a patch answers for, in network pixels; 0 takes the card's",
    )
    halo: int = Field(
        -1,
        ge=-1,
        le=2048,
        title="Halo",
        description="Context read around it, in network pixels; -1 takes the card's, which makes "
        "tiles agree with the whole image",
    )
    grid: str = Field(
        "",
        pattern=r"^(\d{1,3}x\d{1,3})?$",
        title="Cut into",
        description="Cut the region into rows x columns instead, as 2x2, without halo unless one "
        "is given",
    )


class Patches(Strategy):
    """The survey's baseline CIP.

    With the card's halo the stitched output equals the network's output on the whole image; with
    none it shows what cutting costs.
    """

    id: ClassVar[str] = "patches"
    title: ClassVar[str] = "Cutting into patches"
    family: ClassVar[str] = "baseline CIP"
    when: ClassVar[str] = "The full answer: every pixel at full resolution, at full price"
    Params: ClassVar[type[Params]] = PatchesParams

    def plan(self, scene: Scene, params: PatchesParams) -> Plan:
        """Cut, look at every tile, add up."""
        patches = self._cut(scene, params)
        handles: list[Handle] = []
        for asked in rounds(patches):
            result = yield Look("main", asked, into="output")
            handles += result.handles
            yield response(handles, patches)
            estimate = aggregate(scene.main, handles)
            if result.stop:
                return Answer(
                    estimate,
                    note=f"the budget ended after {len(handles)} of {len(patches)} patches: "
                    "the rest of the region was not seen",
                )
            if estimate is not None:
                yield Show("estimate", estimate, scene.region)
        return Answer(aggregate(scene.main, handles))

    @staticmethod
    def _cut(scene: Scene, params: PatchesParams) -> list[Patch]:
        scale = snap_scale(scene.native)
        if not params.grid:
            return tiles(
                scene.main,
                scene.region,
                scale,
                tile=params.tile or None,
                halo=None if params.halo < 0 else params.halo,
            )
        rows, columns = map(int, params.grid.split("x"))
        region = scene.region
        ys = [region.y + region.h * i // rows for i in range(rows + 1)]
        xs = [region.x + region.w * i // columns for i in range(columns + 1)]
        return [
            Patch(Rect(y, x, y1 - y, x1 - x), scale, max(0, params.halo))
            for y, y1 in pairwise(ys)
            for x, x1 in pairwise(xs)
            if y1 > y and x1 > x
        ]
