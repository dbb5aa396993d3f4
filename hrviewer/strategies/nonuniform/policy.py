"""The policy: an importance map, the allocation of the budget, then patches and warps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hrviewer.errors import BudgetError
from hrviewer.geometry import SCALE_STEPS, Patch, Rect, snap_scale
from hrviewer.strategies.base import Params, Strategy, VisibleIf
from hrviewer.strategies.estimation.tile_sample import scaled_to_region
from hrviewer.strategies.nonuniform.allocation import Leaf, PixelDensity, partition, pixel_density
from hrviewer.strategies.nonuniform.grid_sampler import (
    FWHM,
    NODES,
    grid_from_saliency,
    limit_magnification,
)
from hrviewer.strategies.nonuniform.importance import ImportanceMap
from hrviewer.strategies.nonuniform.overview import (
    ImportanceSource,
    choose_overview,
    map_importance,
    overview_flops,
    sample_regions,
)
from hrviewer.strategies.protocol import (
    Estimate,
    ModelInfo,
    PatchRequest,
    PatchResult,
    Plan,
    PlanContext,
    Publish,
    WarpRequest,
)
from hrviewer.strategies.tiling import (
    PatchTotal,
    aggregate,
    alignment_step,
    batches,
    input_shape,
)

__all__ = ["NonUniform", "NonUniformParams"]

MIN_SIDE = 128
"""Leaves with fewer model pixels per side are not halved: context would cost too much."""

MAX_SIDE = 1024
"""Maximum model pixels per side of a leaf, which bounds the memory of inference."""


class NonUniformParams(Params):
    """Parameters of `NonUniform`."""

    visible_if: ClassVar[VisibleIf] = {"bandwidth": ("importance", ("auto", "density"))}
    importance: ImportanceSource = Field(
        "auto",
        title="Importance",
        description="Source of the importance map: the scout; the image's gradient, entropy or "
        "foreground; the prior map saliency (drawn) or density (output of an earlier run). auto "
        "takes saliency if given, else density if given, else the scout",
    )
    contrast: float = Field(
        1.0,
        gt=0,
        le=8,
        title="Contrast",
        description="Exponent of the importance: more spends the budget on fewer places",
    )
    coarsest: float = Field(
        8.0,
        ge=1,
        le=64,
        title="Maximum downsampling",
        description="Downsampling factor per side of unimportant areas; more if the budget "
        "requires it",
    )
    largest: int = Field(
        2048,
        ge=128,
        le=16384,
        title="Largest warp",
        description="Maximum side of a warp, in model pixels at full resolution",
    )
    context: int = Field(
        16,
        ge=0,
        le=512,
        title="Context",
        description="Context around each patch or warp, in model pixels; less around small ones",
    )
    nodes: int = Field(
        NODES, ge=3, le=129, title="Nodes", description="Nodes of a warp's grid, per side"
    )
    width: float = Field(
        FWHM,
        gt=0.5,
        le=64,
        title="Kernel width",
        description="Width of the kernel by which importance attracts samples: full width at half "
        "maximum, in nodes of a grid of 31",
    )
    separable: bool = Field(
        False, title="Separable", description="Warp rows and columns separately, as FOVEA does"
    )
    bandwidth: float = Field(
        48.0,
        gt=0,
        le=4096,
        title="Bandwidth",
        description="Smoothing of the prior map density: standard deviation of the Gaussian, in "
        "model pixels at full resolution",
    )


@dataclass(frozen=True, eq=False)
class PlannedRequest:
    """The request for a leaf: a patch, or a warp."""

    request: Patch | WarpRequest
    core: Rect
    importance: float
    factor: float


class NonUniform(Strategy):
    """The survey's NUD: a small canvas with most pixels in the important places.

    The budget of pixels is allocated by importance. The region is partitioned into leaves whose
    sizes follow the allocation: uniform ones become patches at the allocated scale, the others
    warps of *Learning to Zoom*, limited so that nothing is magnified beyond full resolution.
    """

    id: ClassVar[str] = "nonuniform"
    title: ClassVar[str] = "Non-uniform downsampling"
    family: ClassVar[str] = "NUD"
    when: ClassVar[str] = (
        "Important places are few: keep them at full resolution, downsample the rest"
    )
    Params: ClassVar[type[Params]] = NonUniformParams
    default_budget: ClassVar[float | None] = 0.1
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
        requests = [
            self._plan_leaf(context, params, density, leaf)
            for leaf in self._partition(context, params, density, context.region)
        ]
        factors = {planned.core: planned.factor for planned in requests}
        results: list[PatchResult] = []
        patches = tuple(
            planned.request for planned in requests if isinstance(planned.request, Patch)
        )
        stop = False
        for batch in batches(patches):
            response = yield PatchRequest("main", batch, target="output")
            results += response.results
            stop = response.stop
            if stop:
                break
        # The most important first, in case the run is stopped.
        warps = [planned for planned in requests if isinstance(planned.request, WarpRequest)]
        for planned in [] if stop else sorted(warps, key=lambda planned: -planned.importance):
            assert isinstance(planned.request, WarpRequest)
            response = yield planned.request
            results += response.results
            stop = response.stop
            if stop:
                break
            estimate = for_region(context, corrected(context.main, results, factors))
            if estimate is not None:
                yield Publish("estimate", estimate, context.region)
        notes = [f"{len(patches)} patches and {len(warps)} warps"]
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
                self._leaf_flops(context, params, leaf)
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

    @staticmethod
    def _patch(context: PlanContext, params: NonUniformParams, leaf: Leaf) -> Patch | None:
        """Return the patch for a leaf of uniform density; None if the leaf is warped."""
        card = context.main.card.input
        scale = snap_scale(context.native_scale / math.sqrt(leaf.density))
        fits = max(leaf.rect.h, leaf.rect.w) / scale + 2 * params.context <= card.tile
        if not leaf.uniform or (card.fixed and not fits):
            return None
        return Patch(leaf.rect, scale, leaf_halo(leaf, scale, params))

    def _leaf_flops(self, context: PlanContext, params: NonUniformParams, leaf: Leaf) -> float:
        """Return the FLOPs of a leaf."""
        main, patch = context.main, self._patch(context, params, leaf)
        if patch is not None:
            return main.flops(*input_shape(main, patch, context.rect))
        scale = context.native_scale / math.sqrt(leaf.density)
        return main.flops(*canvas_shape(main, with_context(context, leaf, scale, params), scale))

    def _plan_leaf(
        self, context: PlanContext, params: NonUniformParams, density: PixelDensity, leaf: Leaf
    ) -> PlannedRequest:
        main, native = context.main, context.native_scale
        patch = self._patch(context, params, leaf)
        if patch is not None:
            return PlannedRequest(patch, leaf.rect, leaf.density, 1 / context.gain(patch.scale))
        scale = native / math.sqrt(leaf.density)
        rect = with_context(context, leaf, scale, params)
        shape = canvas_shape(main, rect, scale)
        g = params.nodes
        width = params.width * (g - 1) / (NODES - 1)
        grid = grid_from_saliency(density.at_nodes(rect, g), width, separable=params.separable)
        full_resolution = min(rect.h / native / shape[0], rect.w / native / shape[1])
        grid = limit_magnification(grid, max(1.0, full_resolution))
        warp = WarpRequest("main", rect, grid, shape, target="output", core=leaf.rect)
        factor = warp_factor(context, density.crop(leaf.rect))
        return PlannedRequest(warp, leaf.rect, leaf.density, factor)


def largest_affordable(fits_budget: Callable[[float], bool], low: float, high: float) -> float:
    """Return the greatest value that fits the budget, within 1 %; `low` if none does."""
    if fits_budget(high):
        return high
    while high > 1.01 * low:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if fits_budget(middle) else (low, middle)
    return low


def warp_factor(context: PlanContext, density: NDArray[np.float64]) -> float:
    """Return the factor that corrects counts of a warp for its scales.

    Objects are taken to be where pixels are: both follow the importance.
    """
    scales = context.native_scale / np.sqrt(density)
    steps = np.unique(np.round(np.log2(scales) * SCALE_STEPS)) / SCALE_STEPS
    gains = [context.gain(float(2**step)) for step in steps]
    at = np.round(np.log2(scales) * SCALE_STEPS) / SCALE_STEPS
    inverse = 1 / np.array(gains)[np.searchsorted(steps, at)]
    return float((density * inverse).sum() / density.sum())


def corrected(
    model: ModelInfo, results: Sequence[PatchResult], factors: Mapping[Rect, float]
) -> list[PatchTotal]:
    """Return the totals of a model's results, times the factor of each core."""
    return [
        replace(total, value=total.value * factors[total.patch.core])
        for total in PatchTotal.from_results(results, model)
    ]


def for_region(context: PlanContext, totals: Sequence[PatchTotal]) -> NDArray[np.float64] | None:
    """Return the aggregate of results; shares are those of the part that they cover.

    They are None if that is less than half of the region.
    """
    values = aggregate(context.main, totals)
    valid = [total for total in totals if np.isfinite(total.value).all()]
    covered = float(sum((total.patch.core & context.region).area for total in valid))
    if not context.main.card.has_shares or covered == context.region.area:
        return values
    return scaled_to_region(context.main, values, covered, context.region)


def with_context(context: PlanContext, leaf: Leaf, scale: float, params: NonUniformParams) -> Rect:
    """Return a leaf's rectangle with its context, at a scale."""
    return leaf.rect.pad(math.ceil(leaf_halo(leaf, scale, params) * scale)) & context.rect


def leaf_halo(leaf: Leaf, scale: float, params: NonUniformParams) -> int:
    """Return the context in model pixels, for a small leaf at most a quarter of its side."""
    return min(params.context, math.ceil(max(leaf.rect.h, leaf.rect.w) / scale / 4))


def canvas_shape(model: ModelInfo, rect: Rect, scale: float) -> tuple[int, int]:
    """Return the size of the canvas for a rectangle, ``(h, w)`` in model pixels."""
    card = model.card
    if card.input.fixed:
        return card.input.tile, card.input.tile
    step = math.lcm(model.stride, card.input.multiple_of)
    h, w = (max(1, round(side / scale / step)) * step for side in (rect.h, rect.w))
    return h, w
