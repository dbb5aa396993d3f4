"""The overview of a region that importance is taken from: a scout's map, or a prior map."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hrviewer.errors import ParameterError
from hrviewer.geometry import Rect, snap_scale
from hrviewer.strategies.estimation.coarse_pass import scout_predicts_counts
from hrviewer.strategies.estimation.tile_sample import sample_squares
from hrviewer.strategies.nonuniform.importance import (
    ImportanceMap,
    kernel_density,
    prior_importance,
    scout_importance,
)
from hrviewer.strategies.protocol import (
    PatchRequest,
    PatchResult,
    PlanContext,
    Request,
    Response,
)
from hrviewer.strategies.tiling import batches, tiles, total_flops

__all__ = [
    "ImportanceSource",
    "Overview",
    "choose_overview",
    "map_importance",
    "overview_flops",
    "sample_regions",
]

MAX_MAP_CELLS = 2048
"""Maximum number of cells along the longer side of an importance map."""

SCOUT_SHARE, COUNTING_SHARE = 0.25, 0.5
"""Maximum fraction of the budget that the importance map may cost; that of a scout that counts,
whose prediction is kept where nothing better is known."""

SAMPLE_SIDE, SAMPLES = 1024, 32
"""Side of the squares, in model pixels, and their number, that stand for a large region."""

ImportanceSource = Literal[
    "auto", "scout", "gradient", "entropy", "foreground", "saliency", "density"
]


@dataclass(frozen=True)
class Overview:
    """The source of a region's importance.

    Attributes
    ----------
    source : str
        The scout, a built-in model, or a prior map.
    role : str
        Role of the model; empty for a prior map.
    scale : float
        Scale of its input; 0 where the budget does not pay for it.
    trained_scale : float
        The scale of the scout's training; 0 for anything else.
    """

    source: ImportanceSource
    role: str = ""
    scale: float = 0.0
    trained_scale: float = 0.0

    @property
    def note(self) -> str:
        """A note where a scout does not run at the scale of its training."""
        if not self.trained_scale or self.scale == self.trained_scale:
            return ""
        if not self.scale:
            return "the budget does not pay for the scout: importance is the same everywhere"
        ratio = self.scale / self.trained_scale
        return f"the scout ran at 1/{ratio:g} of the size of its training, as the budget allows"


def choose_overview(context: PlanContext, source: ImportanceSource) -> Overview:
    """Return the source of importance, and the scale of its model's input.

    A scout gets the scale of its training. Built-in models have none: they get a thumbnail of some
    hundred cells per side. The scale is doubled until the budget pays for it.
    """
    priors = context.priors
    if source == "auto":
        given: list[ImportanceSource] = ["saliency", "density"]
        source = next((name for name in given if name in priors), "scout")
    if source in ("saliency", "density"):
        if source not in priors:
            raise ParameterError(
                f"importance={source} needs a prior map {source!r}, and none is given: "
                "add one, or choose another importance"
            )
        return Overview(source)
    role = "scout" if source == "scout" else f"@{source}"
    model, side = context.models[role], max(context.region.h, context.region.w)
    scale = trained = context.scale_of(role)
    if model.card.task == "saliency":
        trained = 0.0
        thumbnail = side / 256 / model.stride if model.stride > 4 else side / 1024
        scale = max(thumbnail, min(8 * scale, side / 256), side / MAX_MAP_CELLS)
        scale = 2.0 ** max(0, math.floor(math.log2(scale)))
    most = COUNTING_SHARE if role == "scout" and scout_predicts_counts(context) else SCOUT_SHARE
    while scale * model.stride <= side / 2:
        patches = tiles(model, context.region, snap_scale(scale))
        if total_flops(model, patches, context.rect) <= most * context.budget:
            return Overview(source, role, snap_scale(scale), trained)
        scale, most = 2 * scale, SCOUT_SHARE
    return Overview(source, role, 0.0, trained)


def map_importance(
    context: PlanContext, overview: Overview, regions: Sequence[Rect], bandwidth: float
) -> Generator[Request, Response, tuple[list[ImportanceMap] | None, float]]:
    """Return the importance over regions, not normalized, and the remaining budget.

    Parameters
    ----------
    context : PlanContext
        Its region is the one that `overview` was chosen for.
    overview : Overview
        The source of importance.
    regions : sequence of Rect
        The regions to map.
    bandwidth : float
        Smoothing of an earlier run's density, level-0 pixels.

    Returns
    -------
    maps : list of ImportanceMap or None
        None if the budget ended.
    remaining : float
        FLOPs left.
    """
    side = max(context.region.h, context.region.w)
    if not overview.role:
        cell = max(16, math.ceil(side / MAX_MAP_CELLS / 16) * 16)
        cell = min(cell, max(1, side // 16))
        priors = [
            prior_importance(context.priors[overview.source], context.rect, region, cell)
            for region in regions
        ]
        if overview.source == "density":
            priors = [kernel_density(prior, bandwidth) for prior in priors]
        return priors, context.budget
    if not overview.scale:
        even = np.ones((1, 1))
        flat = [ImportanceMap(region, max(region.h, region.w), even) for region in regions]
        return flat, context.budget
    model, remaining = context.models[overview.role], context.budget
    step = round(model.stride * overview.scale)
    cell = max(1, step * max(1, -(-side // (MAX_MAP_CELLS * step))))
    maps: list[ImportanceMap] = []
    for region in regions:
        results: list[PatchResult] = []
        for batch in batches(tiles(model, region, overview.scale)):
            response = yield PatchRequest(overview.role, batch)
            results += response.results
            remaining = response.remaining
            if response.stop:
                return None, remaining
        maps.append(scout_importance(model, results, region, cell))
    return maps, remaining


def overview_flops(context: PlanContext, overview: Overview, regions: Sequence[Rect]) -> float:
    """Return the FLOPs of mapping the importance over regions."""
    if not overview.scale:
        return 0.0
    model = context.models[overview.role]
    patches = [patch for region in regions for patch in tiles(model, region, overview.scale)]
    return total_flops(model, patches, context.rect)


def sample_regions(context: PlanContext, overview: Overview) -> list[Rect]:
    """Return squares that stand for a region: a stratified random sample of a large one.

    A prior map needs no sample.
    """
    side = round(SAMPLE_SIDE * context.native_scale)
    if not overview.scale:
        return [context.region]
    return sample_squares(context.region, side, SAMPLES, context.seed)
