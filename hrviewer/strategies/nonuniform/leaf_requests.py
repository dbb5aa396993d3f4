"""The requests for leaves of the partition: even patches, and warps; and their results."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

from hrviewer.geometry import SCALE_STEPS, Patch, Rect, snap_scale
from hrviewer.strategies.estimation.tile_sample import scaled_to_region
from hrviewer.strategies.nonuniform.allocation import Leaf, PixelDensity
from hrviewer.strategies.nonuniform.grid_sampler import (
    NODES,
    grid_from_saliency,
    limit_magnification,
)
from hrviewer.strategies.nonuniform.params import NonUniformParams
from hrviewer.strategies.protocol import (
    ModelInfo,
    PatchRequest,
    PatchResult,
    PlanContext,
    Publish,
    Request,
    Response,
    WarpRequest,
)
from hrviewer.strategies.tiling import PatchTotal, aggregate, batches, input_shape

__all__ = [
    "LeafResults",
    "PlannedRequest",
    "canvas_shape",
    "corrected",
    "for_region",
    "leaf_flops",
    "leaf_note",
    "plan_leaf",
    "run_leaves",
    "warp_factor",
    "with_context",
]


@dataclass(frozen=True, eq=False)
class PlannedRequest:
    """The request for a leaf: a patch, or a warp.

    Attributes
    ----------
    request
        The patch or the warp.
    core
        The leaf.
    importance
        Mean pixel density.
    factor
        Corrects counts for the scale.
    reduction
        Mean reduction per side, from native scale.
    """

    request: Patch | WarpRequest
    core: Rect
    importance: float
    factor: float
    reduction: float


def _patch(context: PlanContext, params: NonUniformParams, leaf: Leaf) -> Patch | None:
    """Return the patch for a leaf of uniform density; None if the leaf is warped."""
    card = context.main.card.input
    scale = snap_scale(context.native_scale / math.sqrt(leaf.density))
    fits = max(leaf.rect.h, leaf.rect.w) / scale + 2 * params.context <= card.tile
    if not leaf.uniform or (card.fixed and not fits):
        return None
    return Patch(leaf.rect, scale, leaf_halo(leaf, scale, params))


def leaf_flops(context: PlanContext, params: NonUniformParams, leaf: Leaf) -> float:
    """Return the FLOPs of a leaf."""
    main, patch = context.main, _patch(context, params, leaf)
    if patch is not None:
        return main.flops(*input_shape(main, patch, context.rect))
    scale = context.native_scale / math.sqrt(leaf.density)
    return main.flops(*canvas_shape(main, with_context(context, leaf, scale, params), scale))


def plan_leaf(
    context: PlanContext, params: NonUniformParams, density: PixelDensity, leaf: Leaf
) -> PlannedRequest:
    """Return the request for a leaf; a warp follows the density around it."""
    main, native = context.main, context.native_scale
    patch = _patch(context, params, leaf)
    if patch is not None:
        return PlannedRequest(
            patch, leaf.rect, leaf.density, 1 / context.gain(patch.scale), patch.scale / native
        )
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
    return PlannedRequest(warp, leaf.rect, leaf.density, factor, scale / native)


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


def leaf_note(planned: Sequence[PlannedRequest]) -> str:
    """Return how many patches and warps there are."""
    patches = sum(isinstance(each.request, Patch) for each in planned)
    return f"{patches} patches and {len(planned) - patches} warps"


@dataclass(frozen=True)
class LeafResults:
    """Results of leaves.

    Attributes
    ----------
    results
        As far as the budget lasted.
    stop
        Whether it ended before the last one.
    remaining
        FLOPs left.
    """

    results: Sequence[PatchResult]
    stop: bool
    remaining: float


def run_leaves(
    planned: Sequence[PlannedRequest],
    publish: Callable[[Sequence[PatchResult]], Publish | None],
    remaining: float,
) -> Generator[Request, Response, LeafResults]:
    """Run ``main`` on patches, then on warps, the most important first.

    Parameters
    ----------
    planned
        The requests.
    publish
        Returns the intermediate estimate after a warp, from the results so far.
    remaining
        FLOPs left in the budget.
    """
    results: list[PatchResult] = []
    patches = tuple(each.request for each in planned if isinstance(each.request, Patch))
    requests: list[Request] = [
        PatchRequest("main", batch, target="output") for batch in batches(patches)
    ]
    by_importance = sorted(planned, key=lambda each: -each.importance)
    warps = [each.request for each in by_importance if isinstance(each.request, WarpRequest)]
    requests += [
        replace(warp, following=following) for warp, following in zip_longest(warps, warps[1:])
    ]
    for request in requests:
        response = yield request
        results += response.results
        remaining = response.remaining
        if response.stop:
            return LeafResults(results, True, remaining)
        estimate = publish(results) if isinstance(request, WarpRequest) else None
        if estimate is not None:
            yield estimate
    return LeafResults(results, False, remaining)
