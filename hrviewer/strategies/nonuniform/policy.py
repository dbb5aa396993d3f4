"""The policy: an importance map, the allocation of the budget, then patches and warps."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from hrviewer.errors import BudgetError, ParameterError
from hrviewer.geometry import Patch, Rect, snap_scale
from hrviewer.strategies.base import Params, Strategy, VisibleIf
from hrviewer.strategies.nonuniform.allocation import Leaf, PixelDensity, partition, pixel_density
from hrviewer.strategies.nonuniform.grid_sampler import (
    FWHM,
    NODES,
    grid_from_saliency,
    limit_magnification,
)
from hrviewer.strategies.nonuniform.importance import (
    ImportanceMap,
    kernel_density,
    prior_importance,
    scout_importance,
)
from hrviewer.strategies.protocol import (
    Estimate,
    ModelInfo,
    PatchRequest,
    PatchResult,
    Plan,
    PlanContext,
    Publish,
    Request,
    Response,
    WarpRequest,
)
from hrviewer.strategies.tiling import (
    aggregate,
    alignment_step,
    batches,
    input_shape,
    tiles,
    total_flops,
)

__all__ = ["NonUniform", "NonUniformParams"]

MAX_MAP_CELLS = 2048
"""Maximum number of cells along the longer side of an importance map."""

SCOUT_SHARE = 0.25
"""Maximum fraction of the budget that the importance map may cost."""

MIN_SIDE = 128
"""Leaves with fewer model pixels per side are not halved: context would cost too much."""

MAX_SIDE = 1024
"""Maximum model pixels per side of a leaf, which bounds the memory of inference."""

ImportanceSource = Literal[
    "auto", "scout", "gradient", "entropy", "foreground", "saliency", "density"
]


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
    flops: float
    importance: float


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

    def plan(self, context: PlanContext, params: NonUniformParams) -> Plan:
        """Map the importance, allocate the budget, run inference, aggregate."""
        importance, remaining = yield from self._importance(context, params)
        if importance is None:
            return Estimate(
                None, note="the budget ended before the importance map was complete: raise it"
            )
        importance = replace(importance, values=importance.values**params.contrast)
        yield Publish("saliency", importance.values.astype(np.float32), importance.rect)
        requests = self._plan_requests(context, params, importance, remaining)
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
            estimate = aggregate(context.main, results)
            if estimate is not None:
                yield Publish("estimate", estimate, context.region)
        note = f"{len(patches)} patches and {len(warps)} warps"
        if stop:
            note = "the budget ended before the whole region was processed"
        return Estimate(aggregate(context.main, results), note=note)

    # The importance map.

    def _importance(
        self, context: PlanContext, params: NonUniformParams
    ) -> Generator[Request, Response, tuple[ImportanceMap | None, float]]:
        """Return the importance map and the remaining budget."""
        region, priors = context.region, context.priors
        source = params.importance
        if source == "auto":
            source = next((name for name in ("saliency", "density") if name in priors), "scout")
        if source in ("saliency", "density"):
            if source not in priors:
                raise ParameterError(
                    f"importance={source} needs a prior map {source!r}, and none is given: "
                    "add one, or choose another importance"
                )
            cell = max(16, math.ceil(max(region.h, region.w) / MAX_MAP_CELLS / 16) * 16)
            cell = min(cell, max(1, max(region.h, region.w) // 16))
            prior = prior_importance(priors[source], context.rect, region, cell)
            if source == "density":
                prior = kernel_density(prior, params.bandwidth * context.native_scale)
            return prior, context.budget
        name = "scout" if source == "scout" else f"@{source}"
        model = context.models[name]
        patches = overview_patches(context, name, model)
        results: list[PatchResult] = []
        remaining = context.budget
        for batch in batches(patches):
            response = yield PatchRequest(name, batch)
            results += response.results
            remaining = response.remaining
            if response.stop:
                return None, remaining
        if not patches:
            return ImportanceMap(region, max(region.h, region.w), np.ones((1, 1))), remaining
        step = round(model.stride * patches[0].scale)
        cell = step * max(1, -(-max(region.h, region.w) // (MAX_MAP_CELLS * step)))
        return scout_importance(model, results, region, max(1, cell)), remaining

    # The allocation.

    def _plan_requests(
        self,
        context: PlanContext,
        params: NonUniformParams,
        importance: ImportanceMap,
        remaining: float,
    ) -> list[PlannedRequest]:
        """Return the requests of the greatest pixel density that the remaining FLOPs pay for."""
        aim = remaining
        while True:
            density = self._allocate(context, params, importance, aim)
            leaves = self._partition(context, params, density)
            requests = [self._plan_leaf(context, params, density, leaf) for leaf in leaves]
            if sum(planned.flops for planned in requests) <= remaining * (1 + 1e-9):
                return requests
            # The exact cost is known only once the sizes are.
            aim *= 0.97
            if aim < remaining / 100:
                raise BudgetError(
                    f"a budget of {context.budget:.3g} FLOPs does not pay for a single input of "
                    f"{context.main.card.name!r}; raise the budget"
                )

    def _allocate(
        self,
        context: PlanContext,
        params: NonUniformParams,
        importance: ImportanceMap,
        remaining: float,
    ) -> PixelDensity:
        """Return the greatest pixel density that costs about `remaining` FLOPs."""
        main, native = context.main, context.native_scale
        per_pixel = main.flops_per_pixel()
        floor = min(1 / params.coarsest**2, remaining / context.once_per_pixel / 4)

        def fits_budget(level: float, floor: float) -> bool:
            pixels = 0
            for leaf in self._partition(context, params, pixel_density(importance, level, floor)):
                scale = native / math.sqrt(leaf.density)
                pixels += math.prod(
                    canvas_shape(main, with_context(context, leaf, scale, params), scale)
                )
            return pixels * per_pixel <= remaining

        while not fits_budget(0.0, floor) and floor * context.region.area > 1:
            floor /= 2
        level = largest_affordable(lambda level: fits_budget(level, floor), floor, 1e3 / floor)
        # Once all important places are at full resolution, the rest gets what remains.
        floor = largest_affordable(lambda floor: fits_budget(level, floor), floor, 1.0)
        return pixel_density(importance, level, floor)

    @staticmethod
    def _partition(
        context: PlanContext, params: NonUniformParams, density: PixelDensity
    ) -> list[Leaf]:
        native, card = context.native_scale, context.main.card.input
        step = alignment_step(context.main, snap_scale(native))
        side, smallest, widest = params.largest, float(MIN_SIDE), MAX_SIDE
        if card.fixed:
            # All canvases have the same size: more important leaves are smaller.
            widest = max(1, card.tile - 2 * params.context)
            side, smallest = math.ceil(card.tile * params.coarsest), math.inf
        side = max(step, round(side * native))
        return list(partition(density, side, smallest * native, widest * native, step))

    @staticmethod
    def _plan_leaf(
        context: PlanContext, params: NonUniformParams, density: PixelDensity, leaf: Leaf
    ) -> PlannedRequest:
        main, native = context.main, context.native_scale
        importance = leaf.density
        scale = snap_scale(native / math.sqrt(leaf.density))
        fits = max(leaf.rect.h, leaf.rect.w) / scale + 2 * params.context <= main.card.input.tile
        if leaf.uniform and (fits or not main.card.input.fixed):
            patch = Patch(leaf.rect, scale, leaf_halo(leaf, scale, params))
            cost = main.flops(*input_shape(main, patch, context.rect))
            return PlannedRequest(patch, cost, importance)
        scale = native / math.sqrt(leaf.density)
        rect = with_context(context, leaf, scale, params)
        shape = canvas_shape(main, rect, scale)
        g = params.nodes
        width = params.width * (g - 1) / (NODES - 1)
        grid = grid_from_saliency(density.at_nodes(rect, g), width, separable=params.separable)
        full_resolution = min(rect.h / native / shape[0], rect.w / native / shape[1])
        grid = limit_magnification(grid, max(1.0, full_resolution))
        warp = WarpRequest("main", rect, grid, shape, target="output", core=leaf.rect)
        return PlannedRequest(warp, main.flops(*shape), importance)


def largest_affordable(fits_budget: Callable[[float], bool], low: float, high: float) -> float:
    """Return the greatest value that fits the budget, within 1 %; `low` if none does."""
    if fits_budget(high):
        return high
    while high > 1.01 * low:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if fits_budget(middle) else (low, middle)
    return low


def overview_patches(context: PlanContext, name: str, model: ModelInfo) -> list[Patch]:
    """Return the patches for the importance map, at the scale of the model's training.

    Built-in models have no such scale: they get a thumbnail of some hundred cells per side. The
    scale is doubled until the budget pays for it; without an affordable scale there are none.
    """
    side = max(context.region.h, context.region.w)
    scale = context.scale_of(name)
    if model.card.task == "saliency":
        thumbnail = side / 256 / model.stride if model.stride > 4 else side / 1024
        scale = max(thumbnail, min(8 * scale, side / 256), side / MAX_MAP_CELLS)
        scale = 2.0 ** max(0, math.floor(math.log2(scale)))
    while scale * model.stride <= side / 2:
        patches = tiles(model, context.region, snap_scale(scale))
        if total_flops(model, patches, context.rect) <= SCOUT_SHARE * context.budget:
            return patches
        scale *= 2
    return []


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
