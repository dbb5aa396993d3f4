"""Uniform downsampling: inference on the whole region, downsampled to fit the budget."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import ClassVar

from pydantic import Field

from hrviewer.errors import BudgetError
from hrviewer.geometry import SCALE_STEPS, Patch, snap_scale
from hrviewer.strategies.base import Params, SpecialValueText, Strategy
from hrviewer.strategies.estimation.aggregation import (
    Aggregation,
    aggregation_field,
    check_aggregation,
)
from hrviewer.strategies.estimation.foreground import Skip, choose_tiles, skip_field
from hrviewer.strategies.estimation.intervals import Interval
from hrviewer.strategies.estimation.tile_sample import TileSample
from hrviewer.strategies.protocol import Estimate, PatchRequest, Plan, PlanContext
from hrviewer.strategies.tiling import (
    PatchTotal,
    activation_map,
    batch_size,
    batches,
    depends_on_tiles,
    overlap_note,
    patch_flops,
    tiles,
    total_flops,
)

__all__ = ["Uniform", "UniformParams"]

TYPICAL_COUNT = 100.0
"""Count by which the errors of scales are compared: they depend on it."""

MAX_INPUT = 2048
"""Regions that are no larger after downsampling, in model pixels per side, are one input."""

TIMED_INPUTS = 1024, 512, 256
"""The same under a limit of seconds: the clock ends a run only between two inputs."""

INPUT_SHARE = 0.05
"""Share of a limit of seconds that one input should take at most, as far as halos allow."""

MAX_TIMED_SHRINK = 8.0
"""Under a limit of seconds a scale is at most so many times that of the same FLOPs without reading:
beyond, a sample of places is a better use of them."""

PLANNED_SHARE = 0.95
"""Share of a limit of seconds that the scale is planned for: the clock should not end the run."""


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
    skip: Skip = skip_field()
    aggregation: Aggregation = aggregation_field()


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
        if depends_on_tiles(context.main):
            context = replace(context, whole=whole)
        patches = self._cut(whole, params.scale)
        if total_flops(whole.main, patches, whole.rect) > whole.budget:
            return context, params  # the given scale is too expensive for the whole, too
        return replace(context, budget=math.inf), params

    def plan(self, context: PlanContext, params: UniformParams) -> Plan:
        """Downsample, run inference on all tiles, aggregate."""
        check_aggregation(context, params.aggregation)
        params = self.choose(context, params)
        patches = self._cut(context, snap_scale(params.scale))
        foreground = yield from choose_tiles(context, patches, params.skip)
        if isinstance(foreground, Estimate):
            return foreground
        # The scale fits the budget, unless it was given: then it may pay for a sample only.
        sample = TileSample(
            context,
            foreground.tiles,
            patch_flops(context.main, foreground.tiles, context.rect),
            foreground.budget,
            aggregation=params.aggregation,
        )
        gain = context.gain(patches[0].scale)
        clipped = [replace(patch, core=patch.core & context.region) for patch in patches]
        # A sample's interval does not cover the error of another scale.
        native = patches[0].scale == snap_scale(context.native_scale)
        totals: list[PatchTotal] = []
        for batch in batches(sample.tiles, batch_size(context)):
            response = yield PatchRequest("main", batch, target="output")
            for total in PatchTotal.from_results(response.results, context.main):
                totals.append(replace(total, value=total.value / gain))
            yield activation_map(totals, clipped, context.main.card)
            if response.stop:
                break
            yield from sample.publish(context.main, totals, with_interval=native)
        estimate = sample.estimate(context.main, totals)
        estimate = foreground.describe(estimate, sample.tiles[: len(totals)])
        scale = patches[0].scale
        note = f"downsampled by {scale:g} per side" if scale > 1 else "not downsampled"
        notes = [note, overlap_note(context.main, patches), estimate.note]
        if context.main.card.detects and not native:
            notes.append(
                "objects are that much smaller than the model expects: those that it misses are "
                "not counted"
            )
        interval = estimate.interval if native else None
        if context.scale_curve is not None and estimate.values is not None and not native:
            interval, note = scale_error(context, estimate, patches[0].scale)
            notes.append(note)
        return replace(
            estimate,
            interval=interval,
            class_intervals=estimate.class_intervals if native else None,
            note="; ".join(filter(None, notes)),
            exhaustive=native and len(totals) == len(foreground.tiles),
        )

    @staticmethod
    def _cut(context: PlanContext, scale: float) -> list[Patch]:
        side = _timed_side(context) if math.isfinite(context.seconds) else MAX_INPUT
        extent = context.tiled_region
        return tiles(context.main, context.region, scale, tile=side, extent=extent)

    def _fit(self, context: PlanContext) -> float:
        """Return the scale of the least error, as far as it is known, that fits the budget.

        Otherwise, and where coarser scales are no better, that is the smallest one.
        """
        smallest = self._smallest(context)
        point = context.scale_curve and context.scale_curve.at(smallest / context.native_scale)
        if not point:
            return smallest
        assert context.scale_curve is not None
        coarser = [each for each in context.scale_curve.points if each.scale > point.scale]
        best = min([point, *coarser], key=lambda each: each.deviation(TYPICAL_COUNT))
        return smallest if best is point else snap_scale(best.scale * context.native_scale)

    def _smallest(self, context: PlanContext) -> float:
        """Return the smallest scale that fits the budget."""
        timed = math.isfinite(context.seconds)  # then reading decides, too
        shrink = math.sqrt(context.once_per_pixel / context.budget)
        affordable = snap_scale(context.native_scale * max(1.0, shrink))
        scale = snap_scale(context.native_scale) if timed else affordable
        while True:
            patches = self._cut(context, scale)
            if self._fits(context, patches, scale):
                return scale
            if timed and scale > MAX_TIMED_SHRINK * affordable:
                return affordable  # reading takes too long at any scale: the clock takes a sample
            if scale > max(context.region.h, context.region.w):
                raise BudgetError(
                    f"a budget of {context.budget:.3g} FLOPs does not pay for a single input of "
                    f"{context.main.card.name!r}; raise the budget"
                )
            # Because of halos the cost falls a little more slowly than the area.
            scale = max(scale + 1 / SCALE_STEPS, snap_scale(scale * 1.01))

    @staticmethod
    def _fits(context: PlanContext, patches: list[Patch], scale: float) -> bool:
        """Return whether the budget pays for a tiling; of seconds, with a margin for the rates."""
        flops = total_flops(context.main, patches, context.rect)
        if math.isfinite(context.seconds):
            return context.expected_seconds(flops, scale) <= PLANNED_SHARE * context.seconds
        return flops <= context.budget


def _timed_side(context: PlanContext) -> int:
    """Return the side of inputs under a limit of seconds, by the measured rate."""
    main, rates = context.main, context.rates
    for side in TIMED_INPUTS:
        flops = main.flops(side + 2 * main.halo, side + 2 * main.halo)
        if rates is None or flops * rates.per_flop <= INPUT_SHARE * context.seconds:
            return side
    return TIMED_INPUTS[-1]


def scale_error(
    context: PlanContext, estimate: Estimate, scale: float
) -> tuple[Interval | None, str]:
    """Return the interval of a corrected estimate, by the curve's error, and a note.

    The error of a sample of places is independent of it. There is no interval where the curve was
    not measured.
    """
    assert context.scale_curve is not None
    assert estimate.values is not None
    shrink = scale / context.native_scale
    point = context.scale_curve.at(shrink)
    if point is None:
        return None, f"not corrected: counts at 1/{shrink:g} were not measured"
    total = float(estimate.values.sum())
    deviation = point.deviation(total)
    below, above = (quantile * deviation for quantile in context.scale_curve.quantiles)
    low, high = estimate.interval or (total, total)
    interval = total - math.hypot(total - low, below), total + math.hypot(high - total, above)
    note = f"corrected by {1 / point.gain:.2f} for the scale 1/{shrink:g}"
    return (max(0.0, interval[0]), interval[1]), note
