"""Lightweight scanner networks: a small model on every pixel, the main model where needed."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from hrviewer.strategies.base import Params, Strategy
from hrviewer.strategies.estimation.aggregation import check_aggregation
from hrviewer.strategies.estimation.intervals import Interval
from hrviewer.strategies.estimation.shares import (
    ShareEstimate,
    cell_sizes,
    measured_maximum,
    share_estimate,
)
from hrviewer.strategies.estimation.two_phase import RegressionEstimate, TwoPhaseSampler
from hrviewer.strategies.protocol import Estimate, Plan, PlanContext
from hrviewer.strategies.scanner.params import ScannerParams
from hrviewer.strategies.scanner.pilot import (
    FLOOR,
    draw_and_correct,
    flagged_cells,
    flagging_score,
    number_of_samples,
    run_pilot,
)
from hrviewer.strategies.scanner.scan import Scan, run_scan
from hrviewer.strategies.tiling import BATCH_SIZE

__all__ = ["Scanner"]

Floats = NDArray[np.float64]


class Scanner(Strategy):
    """The survey's LSN: a small model runs on every pixel, the main model only where it is flagged.

    A fully convolutional scanner shares the work between overlapping windows (Lin et al.,
    *ScanNet*, WACV 2018). Cells that it flags are measured by ``main``. The others keep its
    prediction, times a factor from measurements of some that are drawn at random, which also give
    the interval; flagged cells are a selection, and would bias the factor.
    """

    id: ClassVar[str] = "scanner"
    title: ClassVar[str] = "Lightweight scanner"
    family: ClassVar[str] = "LSN"
    when: ClassVar[str] = "Evidence that a thumbnail does not show: cheap inference on every pixel"
    Params: ClassVar[type[Params]] = ScannerParams
    roles: ClassVar[tuple[str, ...]] = ("main", "scanner")

    def as_part(
        self, context: PlanContext, whole: PlanContext, params: ScannerParams
    ) -> tuple[PlanContext, ScannerParams]:
        """Return a context in which cells are flagged and corrected as in the whole region."""
        if math.isfinite(whole.budget) or context.main.card.has_shares:
            return context, params
        return replace(context, whole=whole), params

    def plan(self, context: PlanContext, params: ScannerParams) -> Plan:
        """Skip background, scan, measure flagged cells, correct the others."""
        check_aggregation(context, params.aggregation)
        pilot, has_shares = None, context.main.card.has_shares
        if context.whole is not None:
            pilot = yield from run_pilot(context.whole, params)
        scan = yield from run_scan(context, params)
        if isinstance(scan, Estimate):
            return scan
        if not scan.done:
            return Estimate(None, note=scan.sample.note(0, None), coverage=scan.coverage)
        grid, prediction, n = scan.grid, scan.prediction, len(scan.grid.patches)
        if not has_shares:
            yield from scan.publish(prediction.values)

        # Random measurements have priority in the remaining budget: without them the scanner's
        # error is unknown.
        sampler = TwoPhaseSampler(
            context, grid, prediction, scan.remaining, scan.stop, aggregation=params.aggregation
        )
        affordable = 0 if scan.stop else sampler.affordable
        score, sample = flagging_score(prediction, params), 0
        if pilot is None:
            sample = min(number_of_samples(params, n), affordable)
            selected = flagged_cells(prediction, params)[: affordable - sample]
        else:
            selected = pilot.selected(sampler, score)
        later = sampler.later(sample / max(affordable, 1))
        for start in range(0, len(selected), BATCH_SIZE):
            batch = selected[start : start + BATCH_SIZE]
            yield from sampler.measure(batch, score, later=later)
            if not has_shares:
                yield from scan.publish(_cell_values(sampler))
            if sampler.stop:
                break
        if has_shares:
            # Where the scanner failed, its uncertainty is unlimited.
            weights, draws = np.minimum(prediction.spread, 1e6), 0 if sampler.stop else sample
            shares = yield from share_estimate(
                sampler,
                weights,
                draws,
                np.random.default_rng(context.seed),
                FLOOR,
                publish=scan.is_whole and not scan.skipped,
            )
            return _share_estimate(context, scan, sampler, shares)
        if pilot is not None:
            estimate = _estimate(context, scan, sampler, pilot.correct(sampler))
            return replace(estimate, common_error=pilot.common_error(sampler))
        corrected = None
        if sample and len(sampler.unmeasured) and not sampler.stop:
            corrected = yield from draw_and_correct(sampler, sample, publish=scan.is_whole)
        return _estimate(context, scan, sampler, corrected)


def _cell_values(sampler: TwoPhaseSampler, factor: Floats | float = 1.0) -> Floats:
    """Return the value of each cell, ``(n, k)``: measured, or predicted times a factor."""
    values = sampler.prediction.values * factor
    for cell, value in sampler.measured.items():
        if cell not in sampler.lost:
            values[cell] = value
    return values


def _share_estimate(
    context: PlanContext, scan: Scan, sampler: TwoPhaseSampler, shares: ShareEstimate | None
) -> Estimate:
    """Return the shares of the foreground, from all of its tiles or a sample of them."""
    notes = [f"{len(sampler.measured)} of {len(scan.grid.patches)} cells measured"]
    if scan.skipped:
        notes[0] += f", {scan.skipped} tiles of background skipped: shares are of the others"
    if scan.failed:
        notes.append(f"the scanner failed on {scan.failed}")
    if shares is None:
        return Estimate(None, note="; ".join([*notes, "nothing was predicted"]))
    area = scan.sample.area if scan.skipped else None
    if sampler.aggregation == "maximum":
        return replace(measured_maximum(sampler, notes), coverage=scan.coverage, area=area)
    if shares.drawn:
        notes.append(f"{shares.drawn} of them at random, which correct the scanner's predictions")
    size = float(cell_sizes(sampler).sum())
    values = shares.values / size
    intervals = None if shares.intervals is None else shares.intervals / size
    if not scan.is_whole:
        values, intervals = scan.expand_shares(shares.cells / size, values, intervals)
        notes.append(scan.sample.note(scan.done, values))
    unit = 1.0 if context.main.card.averaged else scan.sample.area
    return Estimate(
        values * unit,
        note="; ".join(filter(None, notes)),
        coverage=scan.coverage,
        class_intervals=None if intervals is None else intervals * unit,
        certain=not shares.drawn,
        area=area,
    )


def _estimate(
    context: PlanContext,
    scan: Scan,
    sampler: TwoPhaseSampler,
    corrected: RegressionEstimate | None,
) -> Estimate:
    """Return the estimate for the region, from all tiles or a sample of them."""
    note = [f"{len(sampler.measured)} of {len(scan.grid.patches)} cells measured"]
    if scan.skipped:
        note[0] += f", {scan.skipped} tiles of background skipped"
    if scan.failed:
        note.append(f"the scanner failed on {scan.failed}")
    if corrected is not None:
        factor = f"by a factor of {float(corrected.factor.value.mean()):.2f}"
        if context.whole is None:
            note.append(f"{corrected.drawn} of the others at random, which correct the scanner's "
                        f"counts {factor}")  # fmt: skip
        else:
            note.append(f"the others are corrected {factor}, as in the whole image")
    unmeasured, known = sampler.predicted, float(sampler.measured_total.sum())
    error = sampler.context_error * known
    lost = unmeasured[np.isinf(scan.prediction.spread[unmeasured])]
    interval: Interval | None = None
    if scan.is_whole and not len(lost):
        if corrected is not None:
            values, interval = corrected.values, corrected.interval
        else:
            values = sampler.measured_total + scan.prediction.values[unmeasured].sum(axis=0)
            interval = None if len(unmeasured) else (known - error, known + error)
        return Estimate(values, interval, "; ".join(note), coverage=scan.coverage)
    cells = _cell_values(sampler, 1.0 if corrected is None else corrected.factor.value)
    cells[lost] = np.nan
    if corrected is not None:
        kept = np.setdiff1d(unmeasured, lost)
        interval = corrected.factor.interval(
            known, scan.prediction.values[kept], scan.prediction.spread[kept], sampler.context_error
        )
    elif len(unmeasured) == len(lost):
        interval = known - error, known + error
    found, interval = scan.expand(cells, interval)
    note.append(scan.sample.note(scan.done, found))
    return Estimate(found, interval, "; ".join(filter(None, note)), coverage=scan.coverage)
