"""Uniform downsampling: shrink everything until it fits the budget, and look once."""

from __future__ import annotations

import math
from typing import ClassVar

from pydantic import Field

from hrviewer.errors import HrviewerError
from hrviewer.geometry import SCALE_STEPS, Patch, snap_scale
from hrviewer.strategies.base import Params, SpecialValueText, Strategy
from hrviewer.strategies.protocol import Estimate, PatchRequest, Plan, PlanContext
from hrviewer.strategies.tiling import (
    PatchTotal,
    activation_map,
    aggregate,
    batches,
    tiles,
    total_flops,
)

__all__ = ["Uniform", "UniformParams"]


MAX_INPUT = 2048
"""What is no larger after shrinking, in network pixels per side, is seen in one look."""


class UniformParams(Params):
    """Parameters of `Uniform`."""

    special_value_text: ClassVar[SpecialValueText] = {"scale": "by the budget"}
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

    def plan(self, context: PlanContext, params: UniformParams) -> Plan:
        """Shrink, look at everything, add up."""
        scale = snap_scale(params.scale)
        patches = self._cut(context, scale) if params.scale else self._fit(context)
        told: list[PatchTotal] = []
        for asked in batches(patches):
            result = yield PatchRequest("main", asked, target="output")
            told += PatchTotal.from_results(result.results)
            yield activation_map(told, patches)
            if result.stop:
                return Estimate(
                    aggregate(context.main, told),
                    note="the budget ended before the whole region was seen: shrink further",
                )
        note = f"seen at 1/{patches[0].scale:g} per side"
        return Estimate(aggregate(context.main, told), note=note)

    @staticmethod
    def _cut(context: PlanContext, scale: float) -> list[Patch]:
        return tiles(context.main, context.region, scale, tile=MAX_INPUT)

    def _fit(self, context: PlanContext) -> list[Patch]:
        """Return the least shrunk tiling whose FLOPs fit the budget."""
        main = context.main
        whole = context.region.area / context.native_scale**2 * main.flops_per_pixel()
        scale = snap_scale(context.native_scale * max(1.0, math.sqrt(whole / context.budget)))
        while True:
            patches = self._cut(context, scale)
            if total_flops(main, patches, context.rect) <= context.budget:
                return patches
            if scale > max(context.region.h, context.region.w):
                raise HrviewerError(
                    f"a budget of {context.budget:.3g} FLOPs does not pay for a single look with "
                    f"{main.card.name!r}; raise the budget"
                )
            # Halos make the cost fall a little slower than the area.
            scale = max(scale + 1 / SCALE_STEPS, snap_scale(scale * 1.01))
