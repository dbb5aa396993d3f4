"""Uniform downsampling: shrink everything until it fits the budget, and look once."""

from __future__ import annotations

import math
from typing import ClassVar

from pydantic import Field

from hrviewer.errors import UserError
from hrviewer.geometry import SCALE_STEPS, Patch, snap_scale
from hrviewer.strategies.base import Params, Strategy, Words
from hrviewer.strategies.protocol import Answer, Look, Plan, Scene
from hrviewer.strategies.tiling import Told, aggregate, response, rounds, tiles, total_flops

__all__ = ["Uniform", "UniformParams"]


ONE_LOOK = 2048
"""What is no larger after shrinking, in network pixels per side, is seen in one look."""


class UniformParams(Params):
    """Parameters of `Uniform`."""

    least: ClassVar[Words] = {"scale": "by the budget"}
    scale: float = Field(
        0.0,
        ge=0,
        le=4096,
        title="Shrink by",
        description="Level-0 pixels per network pixel; 0 shrinks as far as the budget asks",
    )


class Uniform(Strategy):
    """The survey's baseline UD.

    Detail is lost everywhere alike. What does not fit one tile after shrinking is cut into tiles
    with the network's halo, which changes nothing in the answer.
    """

    id: ClassVar[str] = "uniform"
    title: ClassVar[str] = "Uniform downsampling"
    family: ClassVar[str] = "baseline UD"
    when: ClassVar[str] = "A first glance: the whole image, shrunk to the budget"
    Params: ClassVar[type[Params]] = UniformParams
    default_budget: ClassVar[float | None] = 0.1

    def plan(self, scene: Scene, params: UniformParams) -> Plan:
        """Shrink, look at everything, add up."""
        scale = snap_scale(params.scale)
        patches = self._cut(scene, scale) if params.scale else self._fit(scene)
        told: list[Told] = []
        for asked in rounds(patches):
            result = yield Look("main", asked, into="output")
            told += Told.by(result.handles)
            yield response(told, patches)
            if result.stop:
                return Answer(
                    aggregate(scene.main, told),
                    note="the budget ended before the whole region was seen: shrink further",
                )
        note = f"seen at 1/{patches[0].scale:g} per side"
        return Answer(aggregate(scene.main, told), note=note)

    @staticmethod
    def _cut(scene: Scene, scale: float) -> list[Patch]:
        return tiles(scene.main, scene.region, scale, tile=ONE_LOOK)

    def _fit(self, scene: Scene) -> list[Patch]:
        """Return the least shrunk tiling whose FLOPs fit the budget."""
        main = scene.main
        whole = scene.region.area / scene.native**2 * main.flops_per_pixel()
        scale = snap_scale(scene.native * max(1.0, math.sqrt(whole / scene.budget)))
        while True:
            patches = self._cut(scene, scale)
            if total_flops(main, patches, scene.rect) <= scene.budget:
                return patches
            if scale > max(scene.region.h, scene.region.w):
                raise UserError(
                    f"a budget of {scene.budget:.3g} FLOPs does not pay for a single look with "
                    f"{main.card.name!r}; raise the budget"
                )
            # Halos make the cost fall a little slower than the area.
            scale = max(scale + 1 / SCALE_STEPS, snap_scale(scale * 1.01))
