"""The cheap look everywhere: what it guesses each leaf holds, and how unsure it is."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hrviewer.geometry import snap_scale
from hrviewer.strategies.estimation.sampling_grid import SamplingGrid, resample_onto
from hrviewer.strategies.estimation.two_phase import CoarsePrediction
from hrviewer.strategies.protocol import (
    PatchRequest,
    PatchResult,
    PlanContext,
    Request,
    Response,
    Target,
)
from hrviewer.strategies.tiling import batches, tiles

__all__ = [
    "CoarsePass",
    "predict_cells",
    "run_over_region",
    "run_scout",
    "scout_predicts_counts",
    "scout_scale",
]

Floats = NDArray[np.float64]

SCOUT_DOWNSAMPLE = 8.0
"""How much a scout's picture is shrunk where its card does not say."""


@dataclass(frozen=True)
class CoarsePass:
    """What a cheap look everywhere gave.

    Attributes
    ----------
    results : tuple of Handle
        In reading order.
    remaining : float
        FLOPs that are left.
    stop : bool
        Whether the budget ended.
    """

    results: tuple[PatchResult, ...]
    remaining: float
    stop: bool


def scout_predicts_counts(context: PlanContext) -> bool:
    """Tell whether the scout answers the question itself, at a scale that it was taught at."""
    main, card = context.main.card, context.models["scout"].card
    taught = card.input.downsample > 1
    return card.task == main.task == "density" and card.classes == main.classes and taught


def scout_scale(context: PlanContext, shrink: float = 0.0) -> float:
    """Return the scale at which the scout sees the image; `shrink` is the person's, if not 0."""
    if shrink or context.models["scout"].card.input.downsample == 1:
        return snap_scale(context.native_scale * (shrink or SCOUT_DOWNSAMPLE))
    return context.scale_of("scout")


def run_over_region(
    context: PlanContext, role: str, scale: float, target: Target | None = None
) -> Generator[Request, Response, CoarsePass]:
    """Look at the whole region with a role, as far as the budget goes."""
    handles: list[PatchResult] = []
    result = Response(remaining=context.budget)
    for asked in batches(tiles(context.models[role], context.region, scale)):
        result = yield PatchRequest(role, asked, target=target)
        handles += result.results
        if result.stop:
            break
    return CoarsePass(tuple(handles), result.remaining, result.stop)


def run_scout(context: PlanContext, shrink: float) -> Generator[Request, Response, CoarsePass]:
    """Look at the whole region with the scout."""
    into: Target = "output" if scout_predicts_counts(context) else "saliency"
    return (yield from run_over_region(context, "scout", scout_scale(context, shrink), into))


def predict_cells(context: PlanContext, coarse: CoarsePass, grid: SamplingGrid) -> CoarsePrediction:
    """Return what the scout says of each leaf."""
    k = context.main.card.prediction_channels
    sums = resample_onto(coarse.results, grid.ys, grid.xs, context.rect)
    sums = sums.reshape(len(sums), -1)
    if scout_predicts_counts(context):
        values = sums[:k].T
        variance = sums[k : 2 * k].sum(axis=0) if len(sums) >= 2 * k else values.sum(axis=1)
        return CoarsePrediction(values, np.sqrt(np.maximum(variance, 0)), calibrated=True)
    score = np.maximum(sums.mean(axis=0), 0)
    return CoarsePrediction(np.repeat(score[:, None], k, axis=1), score, calibrated=False)
