"""A check of tokens' predictions by ``main``, on cells drawn at random.

Predictions are summed in cells; ``main`` measures some, which give the ratio of both counts, and
the interval. The estimate stays the sum of all tokens, as in every part of the region, unless the
measurements refute the ratio of other images: then the tokens are biased on this one.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from hrviewer.geometry import Rect
from hrviewer.models.accuracy import ASSUMED_ERROR
from hrviewer.strategies.estimation.sampling_grid import MAX_CELLS, build_grid
from hrviewer.strategies.estimation.two_phase import (
    CoarsePrediction,
    RegressionEstimate,
    TwoPhaseSampler,
    regression_estimate,
)
from hrviewer.strategies.protocol import PatchResult, PlanContext, Request, Response
from hrviewer.strategies.transformer.tokens import COARSEST

__all__ = ["TokenCheck"]

Floats = NDArray[np.float64]

MIN_CELLS, PLACES_PER_CELL = 4, 16
"""Measured cells on a small image: one in 16, but at least four."""

BUDGET_SHARE = 0.3
"""Share of the budget that measurements may take."""

FLOOR = 0.1
"""Fraction of the draws that is distributed evenly, since any prediction may be wrong."""


class TokenCheck:
    """Sums of tokens' predictions in cells, and measurements of some of them.

    Parameters
    ----------
    context : PlanContext
        Properties of the image and the models.
    most : int
        Largest number of measurements.
    remaining : float
        FLOPs left in the budget.

    Attributes
    ----------
    draws : int
        Number of measurements.
    cost : float
        Their FLOPs, at most.
    """

    def __init__(self, context: PlanContext, most: int, remaining: float) -> None:
        tile, pixels = context.main.card.input.tile, context.region.area / context.native_scale**2
        side = min(COARSEST, tile)
        while side < tile and pixels / side**2 > MAX_CELLS:
            side *= 2
        self._context, self._grid = context, build_grid(context, min(side, tile), remaining)
        n = len(self._grid.patches)
        wanted = min(most, max(MIN_CELLS, n // PLACES_PER_CELL), n)
        affordable = remaining * BUDGET_SHARE / self._grid.max_cost
        self.draws = int(min(wanted, affordable))
        self.cost = self.draws * self._grid.max_cost
        self._sums = np.zeros((n, context.models["transformer"].card.output_channels))

    def replace(self, replaced: Mapping[Rect, Floats], results: Sequence[PatchResult]) -> None:
        """Put predictions, of which none failed, in place of earlier ones."""
        self._add([*replaced], -np.array([*replaced.values()]))
        self._add([r.patch.core for r in results], np.array([r.value for r in results]))

    def _add(self, rects: Sequence[Rect], values: Floats) -> None:
        if not rects:
            return
        # A token that extends beyond the region is centred elsewhere.
        inside = [rect & self._context.region for rect in rects]
        row, column = (
            (np.searchsorted(edges, [start + length // 2 for start, length in spans], "right") - 1)
            for edges, spans in (
                (self._grid.ys, [(rect.y, rect.h) for rect in inside]),
                (self._grid.xs, [(rect.x, rect.w) for rect in inside]),
            )
        )
        np.add.at(self._sums, row * self._grid.shape[1] + column, values[:, : self._sums.shape[1]])

    def measure(self, remaining: float) -> Generator[Request, Response, RegressionEstimate | None]:
        """Measure cells, and return the corrected estimate; None if the budget ended before."""
        context, k = self._context, self._context.main.card.prediction_channels
        variance = self._sums[:, k : 2 * k].sum(axis=1) if self._sums.shape[1] >= 2 * k else (
            self._sums.sum(axis=1)
        )  # fmt: skip
        prediction = CoarsePrediction(
            self._sums[:, :k],
            np.sqrt(np.maximum(variance, 0)),
            error=context.prediction_error("transformer") or ASSUMED_ERROR,
        )
        sampler = TwoPhaseSampler(context, self._grid, prediction, remaining, target=None)
        weights = np.maximum(prediction.priority, 0)
        rng = np.random.default_rng(context.seed)
        draws = min(self.draws, sampler.affordable)
        return (
            yield from regression_estimate(
                sampler, weights, draws, rng, FLOOR, publish=False, refutable=True
            )
        )
