"""Which cells a scanner flags in a region, and by which factor it corrects the others.

A cell of a live view is too small to decide either: it takes both from the whole image, or from
squares that stand for a large one.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hrviewer.geometry import Rect
from hrviewer.strategies.estimation.regression import CalibrationFactor
from hrviewer.strategies.estimation.tile_sample import sample_squares
from hrviewer.strategies.estimation.two_phase import (
    CoarsePrediction,
    RegressionEstimate,
    TwoPhaseSampler,
    regression_estimate,
)
from hrviewer.strategies.protocol import PlanContext, Request, Response
from hrviewer.strategies.scanner.params import ScannerParams
from hrviewer.strategies.scanner.scan import MIN_SAMPLES, PLACES_PER_SAMPLE, Scan, run_scan

__all__ = [
    "ScannerPilot",
    "draw_and_correct",
    "flagged_cells",
    "flagging_score",
    "number_of_samples",
    "run_pilot",
]

Floats = NDArray[np.float64]

FLOOR = 0.1
"""Fraction of the random measurements that is drawn evenly, since any scanner may be wrong."""

SQUARE_SIDE, SQUARES = 1024, 16
"""Side of the squares, in model pixels, and their number, that stand for a large image."""


def flagging_score(prediction: CoarsePrediction, params: ScannerParams) -> Floats:
    """Return the score of each cell, the highest of which are flagged, ``(n,)``."""
    by_doubt = params.flag == "uncertainty"
    return prediction.spread if by_doubt else prediction.values.sum(axis=1)


def flagged_cells(prediction: CoarsePrediction, params: ScannerParams) -> NDArray[np.intp]:
    """Return the cells of a region that are flagged, the highest score first."""
    score = flagging_score(prediction, params)
    count = min(round(params.share * len(score)), int(np.count_nonzero(prediction.spread)))
    return np.argsort(-score, kind="stable")[:count]


def number_of_samples(params: ScannerParams, n: int) -> int:
    """Return how many of `n` cells are drawn at random."""
    return min(params.sample, max(MIN_SAMPLES, n // PLACES_PER_SAMPLE)) if params.sample else 0


def draw_and_correct(
    sampler: TwoPhaseSampler, sample: int, *, publish: bool
) -> Generator[Request, Response, RegressionEstimate | None]:
    """Draw cells that were not measured, and correct the predictions of the others."""
    # Where the scanner failed there is no prediction, and its uncertainty is unlimited.
    spread = np.minimum(sampler.prediction.spread, 1e6)
    sampler.prediction = replace(sampler.prediction, spread=spread)
    rng = np.random.default_rng(sampler.context.seed)
    return (yield from regression_estimate(sampler, spread, sample, rng, FLOOR, publish=publish))


@dataclass(frozen=True)
class ScannerPilot:
    """What the parts of a region have in common.

    Attributes
    ----------
    least : float
        Least score of a flagged cell.
    drawn : frozenset of Rect
        Cells that were drawn at random.
    factor : CalibrationFactor, optional
        The factor that corrects the predictions of the others.
    """

    least: float = math.inf
    drawn: frozenset[Rect] = frozenset()
    factor: CalibrationFactor | None = None

    def selected(self, sampler: TwoPhaseSampler, score: Floats) -> NDArray[np.intp]:
        """Return the cells of a part that are measured: flagged, or drawn."""
        drawn = [patch.core in self.drawn for patch in sampler.grid.patches]
        flagged = (score >= self.least) & (sampler.prediction.spread > 0)
        order = np.argsort(-score, kind="stable")
        return np.asarray(order[(flagged | drawn)[order]])

    def correct(self, sampler: TwoPhaseSampler) -> RegressionEstimate | None:
        """Return the estimate for a part from its measurements and the factor."""
        if self.factor is None or not len(sampler.predicted):
            return None
        rest, known = sampler.predicted, sampler.measured_total
        values, spread = sampler.prediction.values[rest], sampler.prediction.spread[rest]
        spread = np.minimum(spread, 1e6)
        interval = self.factor.interval(float(known.sum()), values, spread, sampler.context_error)
        cores = [sampler.grid.patches[cell].core for cell in sampler.measured]
        drawn = sum(core in self.drawn for core in cores)
        total = known + self.factor.value * values.sum(axis=0)
        return RegressionEstimate(total, interval, drawn, self.factor)

    def common_error(self, sampler: TwoPhaseSampler) -> float:
        """Return the part of an interval's half-width that is due to the factor."""
        if self.factor is None:
            return 0.0
        rest = sampler.prediction.values[sampler.predicted].sum(axis=0)
        low, high = self.factor.error.quantiles
        return (high - low) / 2 * float((rest * self.factor.deviation).sum())


def run_pilot(
    whole: PlanContext, params: ScannerParams
) -> Generator[Request, Response, ScannerPilot]:
    """Scan a region, or squares that stand for it, and measure cells drawn at random.

    Every part of the region makes the same requests, so that they are computed once.
    """
    side = round(SQUARE_SIDE * whole.native_scale)
    scans: list[Scan] = []
    for square in sample_squares(whole.region, side, SQUARES, whole.seed):
        scan = yield from run_scan(replace(whole, region=square), params, paint=False)
        if isinstance(scan, Scan):
            scans.append(scan)
    if not scans:
        return ScannerPilot()
    predictions = [scan.prediction for scan in scans]
    prediction = replace(
        predictions[0],
        values=np.concatenate([each.values for each in predictions]),
        spread=np.concatenate([each.spread for each in predictions]),
    )
    cells = tuple(cell for scan in scans for cell in scan.grid.patches)
    grid = replace(scans[0].grid, patches=cells, max_cost=max(scan.grid.max_cost for scan in scans))
    sampler = TwoPhaseSampler(whole, grid, prediction, target=None)
    flagged = flagged_cells(prediction, params)
    least = float(flagging_score(prediction, params)[flagged].min(initial=math.inf))
    sample = min(number_of_samples(params, len(cells)), len(cells) - len(flagged))
    # Flagged cells are not drawn, as if they had been measured.
    sampler.measured = {int(cell): prediction.values[cell] for cell in flagged}
    corrected = yield from draw_and_correct(sampler, sample, publish=False)
    drawn = [*sampler.measured][len(flagged) :]
    factor = None if corrected is None else corrected.factor
    return ScannerPilot(least, frozenset(cells[cell].core for cell in drawn), factor)
