"""The policy: an importance map, the allocation of the budget, then patches and warps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np

from hrviewer.errors import BudgetError
from hrviewer.geometry import Rect, snap_scale
from hrviewer.strategies.base import Params, Strategy
from hrviewer.strategies.nonuniform.allocation import Leaf, PixelDensity, partition, pixel_density
from hrviewer.strategies.nonuniform.importance import ImportanceMap
from hrviewer.strategies.nonuniform.leaf_requests import (
    canvas_shape,
    corrected,
    for_region,
    leaf_flops,
    leaf_note,
    plan_leaf,
    run_leaves,
    with_context,
)
from hrviewer.strategies.nonuniform.overview import (
    choose_overview,
    map_importance,
    overview_flops,
    sample_regions,
)
from hrviewer.strategies.nonuniform.params import NonUniformParams
from hrviewer.strategies.nonuniform.refinement_plan import refine, refines
from hrviewer.strategies.protocol import (
    Estimate,
    PatchResult,
    Plan,
    PlanContext,
    Publish,
)
from hrviewer.strategies.tiling import (
    aggregate,
    alignment_step,
)

__all__ = ["NonUniform", "NonUniformParams"]

MIN_SIDE = 128
"""Leaves with fewer model pixels per side are not halved: context would cost too much."""

MAX_SIDE = 1024
"""Maximum model pixels per side of a leaf, which bounds the memory of inference."""


class NonUniform(Strategy):
    """The survey's NUD: a small canvas with most pixels in the important places.

    The budget of pixels is allocated by importance. The region is partitioned into leaves whose
    sizes follow the allocation: uniform ones become patches at the allocated scale, the others
    warps of *Learning to Zoom*, limited so that nothing is magnified beyond full resolution. Where
    a scout counts, its prediction stays wherever no leaf improves on it (`refinement_plan`).
    """

    id: ClassVar[str] = "nonuniform"
    title: ClassVar[str] = "Non-uniform downsampling"
    family: ClassVar[str] = "NUD"
    when: ClassVar[str] = (
        "Important places are few: keep them at full resolution, downsample the rest"
    )
    Params: ClassVar[type[Params]] = NonUniformParams
    default_budget: ClassVar[float | None] = 0.1
    default_tiles: ClassVar[float] = 0.5
    priors: ClassVar[tuple[str, ...]] = ("saliency", "density")

    def as_part(
        self, context: PlanContext, whole: PlanContext, params: NonUniformParams
    ) -> tuple[PlanContext, NonUniformParams]:
        """Return a context in which pixels are allocated as in the whole region.

        At any cost: where all important places are in one part, so is the budget.
        """
        return replace(context, budget=math.inf, whole=whole), params

    def plan(self, context: PlanContext, params: NonUniformParams) -> Plan:
        """Map the importance, allocate the budget, run inference, aggregate."""
        # In a part of a region, pixels are allocated as in the region.
        whole = context.whole or context
        overview = choose_overview(whole, params.importance)
        if refines(whole, overview):
            return (yield from refine(context, params, overview))
        regions = [whole.region] if context.whole is None else sample_regions(whole, overview)
        bandwidth = params.bandwidth * context.native_scale
        maps, remaining = yield from map_importance(context, overview, regions, bandwidth)
        if maps is None:
            return Estimate(
                None, note="the budget ended before the importance map was complete: raise it"
            )
        top = max(float(each.values.max(initial=0.0)) for each in maps)
        if context.whole is not None:
            share = sum(region.area for region in regions) / whole.region.area
            remaining = whole.budget * share - overview_flops(whole, overview, regions)
        scaled = [each.scaled(top, params.contrast) for each in maps]
        level, floor = self._allocate(whole, params, scaled, remaining)
        if regions != [whole.region]:
            maps, _ = yield from map_importance(context, overview, [context.region], bandwidth)
            assert maps is not None  # a part has no budget
        importance = maps[0].scaled(top, params.contrast)
        yield Publish("saliency", importance.values.astype(np.float32), importance.rect)
        density = pixel_density(importance, level, floor)
        planned = [
            plan_leaf(context, params, density, leaf)
            for leaf in self._partition(context, params, density, context.region)
        ]
        factors = {each.core: each.factor for each in planned}

        def publish(results: Sequence[PatchResult]) -> Publish | None:
            estimate = for_region(context, corrected(context.main, results, factors))
            return None if estimate is None else Publish("estimate", estimate, context.region)

        leaves = yield from run_leaves(planned, publish, remaining)
        results, stop = leaves.results, leaves.stop
        notes = [leaf_note(planned)]
        if stop:
            notes = ["the budget ended before the whole region was processed"]
        raw, values = (
            aggregate(context.main, each)
            for each in (results, corrected(context.main, results, factors))
        )
        if raw is not None and values is not None and raw.sum() and {*factors.values()} != {1.0}:
            ratio = float(values.sum() / raw.sum())
            notes.append(f"corrected by {ratio:.2f} for the scales of its parts")
        note = "; ".join(filter(None, [*notes, overview.note]))
        if context.main.card.has_shares:
            values = for_region(context, corrected(context.main, results, factors))
        return Estimate(values, note=note)

    # The allocation.

    def _allocate(
        self,
        context: PlanContext,
        params: NonUniformParams,
        maps: Sequence[ImportanceMap],
        remaining: float,
    ) -> tuple[float, float]:
        """Return the greatest level and floor that the remaining FLOPs pay for.

        See `pixel_density`. The maps cover the region, or squares that stand for it with their
        share of the budget.
        """

        def cost(level: float, floor: float) -> float:
            densities = [pixel_density(each, level, floor) for each in maps]
            return sum(
                leaf_flops(context, params, leaf)
                for density in densities
                for leaf in self._partition(context, params, density, density.region)
            )

        aim = remaining
        while True:
            level, floor = self._level_and_floor(context, params, maps, aim)
            if cost(level, floor) <= remaining * (1 + 1e-9):
                return level, floor
            # The exact cost is known only once the sizes are.
            aim *= 0.97
            if aim < remaining / 100:
                raise BudgetError(
                    f"a budget of {context.budget:.3g} FLOPs does not pay for a single input of "
                    f"{context.main.card.name!r}; raise the budget"
                )

    def _level_and_floor(
        self,
        context: PlanContext,
        params: NonUniformParams,
        maps: Sequence[ImportanceMap],
        remaining: float,
    ) -> tuple[float, float]:
        """Return the greatest level and floor that cost about `remaining` FLOPs."""
        main, native = context.main, context.native_scale
        per_pixel, area = main.flops_per_pixel(), sum(each.region.area for each in maps)
        floor = min(1 / params.coarsest**2, remaining / (per_pixel * area / native**2) / 4)

        def fits_budget(level: float, floor: float) -> bool:
            pixels = 0
            for density in (pixel_density(each, level, floor) for each in maps):
                for leaf in self._partition(context, params, density, density.region):
                    scale = native / math.sqrt(leaf.density)
                    pixels += math.prod(
                        canvas_shape(main, with_context(context, leaf, scale, params), scale)
                    )
            return pixels * per_pixel <= remaining

        while not fits_budget(0.0, floor) and floor * area > 1:
            floor /= 2
        level = largest_affordable(lambda level: fits_budget(level, floor), floor, 1e3 / floor)
        # Once all important places are at full resolution, the rest gets what remains.
        floor = largest_affordable(lambda floor: fits_budget(level, floor), floor, 1.0)
        return level, floor

    @staticmethod
    def _partition(
        context: PlanContext, params: NonUniformParams, density: PixelDensity, region: Rect
    ) -> list[Leaf]:
        native, card = context.native_scale, context.main.card.input
        step = alignment_step(context.main, snap_scale(native))
        side, smallest, widest = params.largest, float(MIN_SIDE), MAX_SIDE
        if card.fixed:
            # All canvases have the same size: more important leaves are smaller.
            widest = max(1, card.tile - 2 * params.context)
            side, smallest = math.ceil(card.tile * params.coarsest), math.inf
        side = max(step, round(side * native))
        return list(partition(density, side, smallest * native, widest * native, step, region))


def largest_affordable(fits_budget: Callable[[float], bool], low: float, high: float) -> float:
    """Return the greatest value that fits the budget, within 1 %; `low` if none does."""
    if fits_budget(high):
        return high
    while high > 1.01 * low:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if fits_budget(middle) else (low, middle)
    return low
