"""The policy: what is of interest, how the budget is shared, which looks and warps follow."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from hrviewer.errors import HrviewerError
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
"""Cells along the longer side of a map of interest, at most."""

SCOUT_SHARE = 0.25
"""Part of the budget that finding out what is of interest may take."""


MIN_SIDE = 128
"""Pieces seen with fewer pixels per side are not halved: context would cost too much."""

MAX_SIDE = 1024
"""Network pixels per side of a piece, at most: what bounds the memory of a look."""

ImportanceSource = Literal[
    "auto", "scout", "gradient", "entropy", "foreground", "saliency", "density"
]


class NonUniformParams(Params):
    """Parameters of `NonUniform`."""

    visible_if: ClassVar[VisibleIf] = {"bandwidth": ("importance", ("auto", "density"))}
    importance: ImportanceSource = Field(
        "auto",
        title="Interest",
        description="What says where to look closely: the pack's scout; how steep, varied or "
        "unlike the background the image is; what was drawn; what an earlier run saw. auto takes "
        "what was drawn, else what was seen, else the scout",
    )
    contrast: float = Field(
        1.0,
        gt=0,
        le=8,
        title="Contrast",
        description="The interest's exponent: more spends the budget on fewer places",
    )
    coarsest: float = Field(
        8.0,
        ge=1,
        le=64,
        title="Shrink by at most",
        description="How much, per side, what is of no interest is shrunk; more where the budget "
        "asks for it",
    )
    largest: int = Field(
        2048,
        ge=128,
        le=16384,
        title="Largest warp",
        description="Side of what one warp covers, at most, in network pixels at full resolution",
    )
    context: int = Field(
        16,
        ge=0,
        le=512,
        title="Context",
        description="Network pixels seen around each piece, at its own scale; a small one has less",
    )
    nodes: int = Field(NODES, ge=3, le=129, title="Nodes", description="Of a warp's grid, per side")
    width: float = Field(
        FWHM,
        gt=0.5,
        le=64,
        title="Kernel width",
        description="How far interest draws samples: full width at half maximum, in nodes of a "
        "grid of 31",
    )
    separable: bool = Field(
        False, title="Separable", description="Warp rows and columns apart, as FOVEA does"
    )
    bandwidth: float = Field(
        48.0,
        gt=0,
        le=4096,
        title="Bandwidth",
        description="How far what an earlier run saw raises the interest, in network pixels at "
        "full resolution",
    )


@dataclass(frozen=True, eq=False)
class PlannedRequest:
    """A leaf as it will be looked at: an even look, or a warp."""

    request: Patch | WarpRequest
    flops: float
    importance: float


class NonUniform(Strategy):
    """The survey's NUD: a small canvas that spends its pixels where they matter.

    The budget of pixels is shared by interest. The region is cut into pieces whose sizes follow
    it: even ones are plain looks at the scale that they deserve, the others warps of *Learning to
    Zoom*, relaxed so that nothing is magnified beyond full resolution.
    """

    id: ClassVar[str] = "nonuniform"
    title: ClassVar[str] = "Non-uniform downsampling"
    family: ClassVar[str] = "NUD"
    when: ClassVar[str] = "What matters is in few places: keep it sharp, shrink the rest"
    Params: ClassVar[type[Params]] = NonUniformParams
    default_budget: ClassVar[float | None] = 0.1
    priors: ClassVar[tuple[str, ...]] = ("saliency", "density")

    def plan(self, context: PlanContext, params: NonUniformParams) -> Plan:
        """Find out what is of interest, share the budget, look, add up."""
        found, left = yield from self._importance(context, params)
        if found is None:
            return Estimate(None, note="the budget ended before anything was looked at closely")
        found = replace(found, values=found.values**params.contrast)
        yield Publish("saliency", found.values.astype(np.float32), found.rect)
        pieces = self._plan_requests(context, params, found, left)
        handles: list[PatchResult] = []
        even = tuple(piece.request for piece in pieces if isinstance(piece.request, Patch))
        stop = False
        for asked in batches(even):
            result = yield PatchRequest("main", asked, target="output")
            handles += result.results
            stop = result.stop
            if stop:
                break
        # What matters most first: a run that is stopped has seen that.
        warps = [piece for piece in pieces if isinstance(piece.request, WarpRequest)]
        for piece in [] if stop else sorted(warps, key=lambda piece: -piece.importance):
            assert isinstance(piece.request, WarpRequest)
            result = yield piece.request
            handles += result.results
            stop = result.stop
            if stop:
                break
            estimate = aggregate(context.main, handles)
            if estimate is not None:
                yield Publish("estimate", estimate, context.region)
        note = f"{len(even)} even looks and {len(warps)} warps"
        if stop:
            note = "the budget ended before the whole region was seen"
        return Estimate(aggregate(context.main, handles), note=note)

    # What is of interest.

    def _importance(
        self, scene: PlanContext, params: NonUniformParams
    ) -> Generator[Request, Response, tuple[ImportanceMap | None, float]]:
        """Return the map, and what is left of the budget."""
        region, priors = scene.region, scene.priors
        source = params.importance
        if source == "auto":
            source = next((name for name in ("saliency", "density") if name in priors), "scout")
        if source in ("saliency", "density"):
            if source not in priors:
                raise HrviewerError(
                    f"importance={source} needs a prior map {source!r}, and none is given: "
                    "add one, or choose another importance"
                )
            cell = max(16, math.ceil(max(region.h, region.w) / MAX_MAP_CELLS / 16) * 16)
            cell = min(cell, max(1, max(region.h, region.w) // 16))
            prior = prior_importance(priors[source], scene.rect, region, cell)
            if source == "density":
                prior = kernel_density(prior, params.bandwidth * scene.native_scale)
            return prior, scene.budget
        name = "scout" if source == "scout" else f"@{source}"
        role = scene.models[name]
        patches = overview_patches(scene, name, role)
        handles: list[PatchResult] = []
        left = scene.budget
        for asked in batches(patches):
            result = yield PatchRequest(name, asked)
            handles += result.results
            left = result.remaining
            if result.stop:
                return None, left
        if not patches:
            return ImportanceMap(region, max(region.h, region.w), np.ones((1, 1))), left
        step = round(role.stride * patches[0].scale)
        cell = step * max(1, -(-max(region.h, region.w) // (MAX_MAP_CELLS * step)))
        return scout_importance(role, handles, region, max(1, cell)), left

    # How the budget is shared.

    def _plan_requests(
        self, scene: PlanContext, params: NonUniformParams, found: ImportanceMap, left: float
    ) -> list[PlannedRequest]:
        """Return the sharpest looks that `left` FLOPs pay for."""
        aim = left
        while True:
            sharp = self._allocate(scene, params, found, aim)
            leaves = self._partition(scene, params, sharp)
            pieces = [self._plan_leaf(scene, params, sharp, leaf) for leaf in leaves]
            if sum(piece.flops for piece in pieces) <= left * (1 + 1e-9):
                return pieces
            # What a look costs is known exactly only once its size is.
            aim *= 0.97
            if aim < left / 100:
                raise HrviewerError(
                    f"a budget of {scene.budget:.3g} FLOPs does not pay for a single look with "
                    f"{scene.main.card.name!r}; raise the budget"
                )

    def _allocate(
        self, scene: PlanContext, params: NonUniformParams, found: ImportanceMap, left: float
    ) -> PixelDensity:
        """Return the greatest sharpness that costs about `left` FLOPs."""
        main, native = scene.main, scene.native_scale
        per_pixel = main.flops_per_pixel()
        whole = scene.region.area / native**2 * per_pixel
        floor = min(1 / params.coarsest**2, left / whole / 4)

        def pays(level: float, floor: float) -> bool:
            pixels = 0
            for leaf in self._partition(scene, params, pixel_density(found, level, floor)):
                scale = native / math.sqrt(leaf.density)
                pixels += math.prod(
                    canvas_shape(main, with_context(scene, leaf, scale, params), scale)
                )
            return pixels * per_pixel <= left

        while not pays(0.0, floor) and floor * scene.region.area > 1:
            floor /= 2
        level = largest_affordable(lambda level: pays(level, floor), floor, 1e3 / floor)
        # Once all that is of interest is as sharp as can be, the rest has what is left.
        floor = largest_affordable(lambda floor: pays(level, floor), floor, 1.0)
        return pixel_density(found, level, floor)

    @staticmethod
    def _partition(scene: PlanContext, params: NonUniformParams, sharp: PixelDensity) -> list[Leaf]:
        native, card = scene.native_scale, scene.main.card.input
        step = alignment_step(scene.main, snap_scale(native))
        side, smallest, widest = params.largest, float(MIN_SIDE), MAX_SIDE
        if card.fixed:
            # Every canvas has the same size: the more interest, the smaller the piece.
            widest = max(1, card.tile - 2 * params.context)
            side, smallest = math.ceil(card.tile * params.coarsest), math.inf
        side = max(step, round(side * native))
        return list(partition(sharp, side, smallest * native, widest * native, step))

    @staticmethod
    def _plan_leaf(
        scene: PlanContext, params: NonUniformParams, sharp: PixelDensity, leaf: Leaf
    ) -> PlannedRequest:
        main, native = scene.main, scene.native_scale
        interest = leaf.density
        scale = snap_scale(native / math.sqrt(leaf.density))
        fits = max(leaf.rect.h, leaf.rect.w) / scale + 2 * params.context <= main.card.input.tile
        if leaf.uniform and (fits or not main.card.input.fixed):
            patch = Patch(leaf.rect, scale, leaf_halo(leaf, scale, params))
            cost = main.flops(*input_shape(main, patch, scene.rect))
            return PlannedRequest(patch, cost, interest)
        scale = native / math.sqrt(leaf.density)
        rect = with_context(scene, leaf, scale, params)
        shape = canvas_shape(main, rect, scale)
        g = params.nodes
        width = params.width * (g - 1) / (NODES - 1)
        grid = grid_from_saliency(sharp.at_nodes(rect, g), width, separable=params.separable)
        closest = min(rect.h / native / shape[0], rect.w / native / shape[1])
        grid = limit_magnification(grid, max(1.0, closest))
        warp = WarpRequest("main", rect, grid, shape, target="output", core=leaf.rect)
        return PlannedRequest(warp, main.flops(*shape), interest)


def largest_affordable(pays: Callable[[float], bool], low: float, high: float) -> float:
    """Return the greatest amount that is paid for, within a hundredth; `low` if none is."""
    if pays(high):
        return high
    while high > 1.01 * low:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if pays(middle) else (low, middle)
    return low


def overview_patches(context: PlanContext, name: str, model: ModelInfo) -> list[Patch]:
    """Return the looks that say what is of interest, at the scale that the role is meant for.

    A built-in role has no such scale: it sees a thumbnail of some hundred cells per side. Where
    the budget does not pay for that, the role sees less; none, where it cannot see anything.
    """
    side = max(context.region.h, context.region.w)
    scale = context.scale_of(name)
    if model.card.task == "saliency":
        wanted = side / 256 / model.stride if model.stride > 4 else side / 1024
        scale = max(wanted, min(8 * scale, side / 256), side / MAX_MAP_CELLS)
        scale = 2.0 ** max(0, math.floor(math.log2(scale)))
    while scale * model.stride <= side / 2:
        patches = tiles(model, context.region, snap_scale(scale))
        if total_flops(model, patches, context.rect) <= SCOUT_SHARE * context.budget:
            return patches
        scale *= 2
    return []


def with_context(context: PlanContext, leaf: Leaf, scale: float, params: NonUniformParams) -> Rect:
    """Return a leaf and its context, at the scale at which it will be seen."""
    return leaf.rect.pad(math.ceil(leaf_halo(leaf, scale, params) * scale)) & context.rect


def leaf_halo(leaf: Leaf, scale: float, params: NonUniformParams) -> int:
    """Return the context in network pixels; a small piece can afford a quarter of its side."""
    return min(params.context, math.ceil(max(leaf.rect.h, leaf.rect.w) / scale / 4))


def canvas_shape(model: ModelInfo, rect: Rect, scale: float) -> tuple[int, int]:
    """Return the canvas that a rectangle is sampled onto, ``(h, w)`` in network pixels."""
    card = model.card
    if card.input.fixed:
        return card.input.tile, card.input.tile
    step = math.lcm(model.stride, card.input.multiple_of)
    h, w = (max(1, round(side / scale / step)) * step for side in (rect.h, rect.w))
    return h, w
