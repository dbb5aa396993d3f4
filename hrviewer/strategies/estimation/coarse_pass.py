"""The coarse pass: cheap inference on the whole region, and its prediction for each cell."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hrviewer.geometry import snap_scale
from hrviewer.models.accuracy import ASSUMED_ERROR
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

ASSUMED_SCOUT_ERROR = ASSUMED_ERROR.model_copy(
    update={
        "ratio_deviation": 0.6,
        "data": "assumed: predicted variances are right, and the ratio is 1 ± 0.6",
    }
)
"""Error of a scout whose card has none for images of this kind. On real sections of tissue, which
their scouts had not learned from, the ratio was from 0.5 to 2."""

SCOUT_DOWNSAMPLE = 8.0
"""Downsampling of the scout's input if its card gives none."""


@dataclass(frozen=True)
class CoarsePass:
    """The results of cheap inference on the whole region.

    Attributes
    ----------
    results : tuple of PatchResult
        Results in reading order.
    remaining : float
        FLOPs left in the budget.
    stop : bool
        Whether the budget ended.
    """

    results: tuple[PatchResult, ...]
    remaining: float
    stop: bool

    @property
    def failed(self) -> int:
        """Number of results that failed."""
        return sum(bool(np.isnan(result.value).any()) for result in self.results)

    @property
    def lost(self) -> float:
        """Area of the failed results, level-0 pixels."""
        return float(sum(r.patch.core.area for r in self.results if np.isnan(r.value).any()))


def scout_predicts_counts(context: PlanContext) -> bool:
    """Return whether the scout predicts the same counts as main, at a scale of its training."""
    main, card = context.main.card, context.models["scout"].card
    has_scale = card.input.downsample > 1
    return card.task == main.task == "density" and card.classes == main.classes and has_scale


def scout_scale(context: PlanContext, shrink: float = 0.0) -> float:
    """Return the scale of the scout's input; `shrink`, if not 0, overrides the card."""
    if shrink or context.models["scout"].card.input.downsample == 1:
        return snap_scale(context.native_scale * (shrink or SCOUT_DOWNSAMPLE))
    return context.scale_of("scout")


def run_over_region(
    context: PlanContext, role: str, scale: float, target: Target | None = None
) -> Generator[Request, Response, CoarsePass]:
    """Run a role's model on the whole region, as far as the budget allows."""
    results: list[PatchResult] = []
    response = Response(remaining=context.budget)
    for batch in batches(tiles(context.models[role], context.region, scale)):
        response = yield PatchRequest(role, batch, target=target)
        results += response.results
        if response.stop:
            break
    return CoarsePass(tuple(results), response.remaining, response.stop)


def run_scout(context: PlanContext, shrink: float) -> Generator[Request, Response, CoarsePass]:
    """Run the scout on the whole region."""
    target: Target = "output" if scout_predicts_counts(context) else "saliency"
    return (yield from run_over_region(context, "scout", scout_scale(context, shrink), target))


def fill_lost(coarse: CoarsePass, grid: SamplingGrid, sums: Floats) -> Floats:
    """Return sums in cells where failed results have the mean density of the others."""
    lost = np.zeros(sums.shape[1], bool)
    for result in coarse.results:
        if np.isnan(result.value).any():
            lost[grid.cells_meeting(result.patch.core)] = True
    density = sums[:, ~lost].sum(axis=1) / max(float(grid.areas[~lost].sum()), 1.0)
    return np.where(lost, np.outer(density, grid.areas), sums)


def predict_cells(context: PlanContext, coarse: CoarsePass, grid: SamplingGrid) -> CoarsePrediction:
    """Return the scout's prediction for each cell of a grid."""
    k = context.main.card.prediction_channels
    sums = resample_onto(coarse.results, grid.ys, grid.xs, context.rect)
    sums = sums.reshape(len(sums), -1)
    if coarse.failed:
        sums = fill_lost(coarse, grid, sums)
    if scout_predicts_counts(context):
        values = sums[:k].T
        variance = sums[k : 2 * k].sum(axis=0) if len(sums) >= 2 * k else values.sum(axis=1)
        error = context.prediction_error("scout") or ASSUMED_SCOUT_ERROR
        return CoarsePrediction(values, np.sqrt(np.maximum(variance, 0)), True, error)
    score = np.maximum(sums.mean(axis=0), 0)
    if context.main.card.has_shares:
        return CoarsePrediction(np.full((len(score), k), np.nan), score, calibrated=False)
    return CoarsePrediction(np.repeat(score[:, None], k, axis=1), score, calibrated=False)
