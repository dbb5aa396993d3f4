"""Uniform downsampling: inference on the whole region, downsampled to fit the budget."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import ClassVar

from pydantic import Field

from hrviewer.errors import BudgetError
from hrviewer.geometry import SCALE_STEPS, Patch, snap_scale
from hrviewer.strategies.base import Params, SpecialValueText, Strategy
from hrviewer.strategies.protocol import Estimate, PatchRequest, Plan, PlanContext
from hrviewer.strategies.tiling import (
    PatchTotal,
    activation_map,
    aggregate,
    batches,
    overlap_note,
    tiles,
    total_flops,
)

__all__ = ["Uniform", "UniformParams"]

MAX_INPUT = 2048
"""Regions that are no larger after downsampling, in model pixels per side, are one input."""


class UniformParams(Params):
    """Parameters of `Uniform`."""

    special_value_text: ClassVar[SpecialValueText] = {"scale": "by the budget"}
    scale: float = Field(
        0.0,
        ge=0,
        le=4096,
        title="Downsampling",
        description="Level-0 pixels per model pixel; 0 downsamples as far as the budget requires",
    )


class Uniform(Strategy):
    """The survey's baseline UD.

    Detail is lost equally everywhere. A region that does not fit one input after downsampling is
    cut into tiles with the model's halo, which does not change the prediction.
    """

    id: ClassVar[str] = "uniform"
    title: ClassVar[str] = "Uniform downsampling"
    family: ClassVar[str] = "baseline UD"
    when: ClassVar[str] = "A quick overview: the whole image, downsampled to the budget"
    Params: ClassVar[type[Params]] = UniformParams
    default_budget: ClassVar[float | None] = 0.1

    def choose(self, context: PlanContext, params: UniformParams) -> UniformParams:
        """Return the parameters with the scale that the budget pays for."""
        if params.scale:
            return params
        return params.model_copy(update={"scale": self._fit(context)})

    def as_part(
        self, context: PlanContext, whole: PlanContext, params: UniformParams
    ) -> tuple[PlanContext, UniformParams]:
        """Return the scale of the whole region, at any cost of the part's halos."""
        params = self.choose(whole, params)
        patches = self._cut(whole, params.scale)
        if total_flops(whole.main, patches, whole.rect) > whole.budget:
            return context, params  # the given scale is too expensive for the whole, too
        return replace(context, budget=math.inf), params

    def plan(self, context: PlanContext, params: UniformParams) -> Plan:
        """Downsample, run inference on all tiles, aggregate."""
        params = self.choose(context, params)
        patches = self._cut(context, snap_scale(params.scale))
        totals: list[PatchTotal] = []
        for batch in batches(patches):
            response = yield PatchRequest("main", batch, target="output")
            totals += PatchTotal.from_results(response.results)
            yield activation_map(totals, patches)
            if response.stop:
                return Estimate(
                    aggregate(context.main, totals),
                    note="the budget ended before the whole region was processed: raise scale",
                )
        note = f"downsampled by {patches[0].scale:g} per side"
        note = "; ".join(filter(None, [note, overlap_note(context.main, patches)]))
        native = patches[0].scale == snap_scale(context.native_scale)
        return Estimate(aggregate(context.main, totals), note=note, exhaustive=native)

    @staticmethod
    def _cut(context: PlanContext, scale: float) -> list[Patch]:
        return tiles(context.main, context.region, scale, tile=MAX_INPUT)

    def _fit(self, context: PlanContext) -> float:
        """Return the smallest scale whose FLOPs fit the budget."""
        main = context.main
        shrink = math.sqrt(context.once_per_pixel / context.budget)
        scale = snap_scale(context.native_scale * max(1.0, shrink))
        while True:
            patches = self._cut(context, scale)
            if total_flops(main, patches, context.rect) <= context.budget:
                return scale
            if scale > max(context.region.h, context.region.w):
                raise BudgetError(
                    f"a budget of {context.budget:.3g} FLOPs does not pay for a single input of "
                    f"{main.card.name!r}; raise the budget"
                )
            # Because of halos the cost falls a little more slowly than the area.
            scale = max(scale + 1 / SCALE_STEPS, snap_scale(scale * 1.01))
