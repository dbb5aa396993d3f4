"""Selective zooming and skipping.

The scout makes a cheap prediction for the whole region. `main` then measures the cells that the
method selects. The other cells keep the scout's prediction, corrected by measurements of cells
drawn at random: by a regression if other cells were selected (`estimation.regression`), without
bias if all were drawn (`estimation.sampling.SamplingEstimator`), and as a ratio if shares or means
are estimated (`estimation.shares`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from hrviewer.errors import ModelError, ParameterError
from hrviewer.geometry import snap_scale
from hrviewer.strategies.base import Params, Strategy
from hrviewer.strategies.estimation.aggregation import check_aggregation
from hrviewer.strategies.estimation.coarse_pass import predict_cells, run_scout
from hrviewer.strategies.estimation.foreground import find_foreground, skips_background
from hrviewer.strategies.estimation.intervals import Interval
from hrviewer.strategies.estimation.sampling import SamplingEstimator
from hrviewer.strategies.estimation.sampling_grid import (
    affordable_cells,
    build_grid,
    upper_bounds,
)
from hrviewer.strategies.estimation.shares import (
    cell_sizes,
    measured_maximum,
    share_estimate,
)
from hrviewer.strategies.estimation.two_phase import (
    TwoPhaseSampler,
    batch_size,
    regression_estimate,
)
from hrviewer.strategies.protocol import Estimate, Plan, PlanContext, Publish
from hrviewer.strategies.tiling import tile_option, tiles, total_flops
from hrviewer.strategies.zoom.params import ZoomParams
from hrviewer.strategies.zoom.selection import SELECTORS

__all__ = ["Zoom"]

NARROW = 32
"""Patches below which the half-width of an interval is usually more than 20 % of the count."""

MAX_LOST = 0.5
"""Part of the region without a prediction, or of the measurements that failed, above which there
is no estimate, or no interval."""

Floats = NDArray[np.float64]


class Zoom(Strategy):
    """The survey's SZS: a coarse pass on the thumbnail, full resolution only where it pays."""

    id: ClassVar[str] = "zoom"
    title: ClassVar[str] = "Selective zooming and skipping"
    family: ClassVar[str] = "SZS"
    when: ClassVar[str] = (
        "Mostly empty images: a coarse pass everywhere, full resolution where it pays"
    )
    Params: ClassVar[type[Params]] = ZoomParams
    roles: ClassVar[tuple[str, ...]] = ("main", "scout")
    default_budget: ClassVar[float | None] = 0.1
    default_tiles: ClassVar[float] = 0.5

    def choose(self, context: PlanContext, params: ZoomParams) -> ZoomParams:
        """Return the parameters with the share of random draws, and how evenly they are drawn.

        The intervals of shares and means rest on these alone. The scout only ranks cells then, and
        a large floor keeps the draws' weights even.
        """
        automatic = 0.5 if context.main.card.has_shares else 0.1
        share = params.share if params.share >= 0 else automatic
        return params.model_copy(update={"share": share, "floor": params.floor or automatic})

    def advice(self, context: PlanContext, params: ZoomParams) -> str:
        """Return a note where the budget pays for too few patches for a narrow interval."""
        main, tile = context.main, context.main.card.input.tile
        if context.budget >= NARROW * main.flops(tile, tile) or main.card.has_shares:
            return ""
        cost = total_flops(
            main, tiles(main, context.region, snap_scale(context.native_scale)), context.rect
        )
        grid = build_grid(context, tile_option(main, params.tile) or 0, context.budget)
        patches = affordable_cells(grid, context.budget)
        if patches >= min(NARROW, len(grid.patches)) or context.budget >= cost:
            return ""
        return (
            f"the budget pays for {patches} patches at most, too few for a count within 20 %: "
            f"patches measures everything for {cost / context.budget:.1f} times as much"
        )

    def plan(self, context: PlanContext, params: ZoomParams) -> Plan:
        """Run the scout, measure selected cells, estimate the total."""
        if context.main.card.task in ("embedding", "saliency"):
            raise ModelError(
                f"{context.main.card.name!r} has no output that can be summed; zoom needs a "
                "model that counts, segments or classifies: choose another strategy"
            )
        if params.method == "policy" and "policy" not in context.models:
            raise ModelError(
                "method=policy needs a model of the role 'policy', which the model bundle lacks: "
                "choose another method, or a bundle that has it"
            )
        unused = [name for name in ("replace", "strata", "width") if getattr(params, name)]
        if context.main.card.has_shares and unused:
            raise ParameterError(
                f"{', '.join(unused)} is for counts; {context.main.card.name!r} gives shares or "
                "means: leave it out"
            )
        check_aggregation(context, params.aggregation)
        params = self.choose(context, params)
        tile = tile_option(context.main, params.tile)
        skips = skips_background(context.main.card, params.skip)
        coarse = yield from run_scout(context, params.shrink)
        if coarse.stop:  # the rest of the region has no prediction at all
            return Estimate(None, note="the budget ended during the coarse pass: raise it")
        if coarse.lost > MAX_LOST * context.region.area:
            note = f"the scout failed on {coarse.failed:,} of {len(coarse.results):,} tiles"
            return Estimate(None, note=f"{note}: too little for an estimate", coverage=0.0)
        grid = build_grid(context, tile or 0, coarse.remaining, params.halo)
        prediction = predict_cells(context, coarse, grid)
        region = context.region
        rng = np.random.default_rng([context.seed, region.y, region.x, region.h, region.w])
        remaining, excluded = coarse.remaining, None
        if skips:
            found = yield from find_foreground(context, grid.patches)
            if found is None:
                return Estimate(None, note="the budget ended during the coarse pass: raise it")
            excluded, remaining = ~found[0], found[1]
            prediction.spread[excluded] = 0
            if excluded.all():
                note = f"all {len(excluded):,} cells are background"
                return Estimate(None, note=note, coverage=1.0)
        sampler = TwoPhaseSampler(
            context,
            grid,
            prediction,
            remaining,
            coarse.stop,
            aggregation=params.aggregation,
            excluded=excluded,
        )
        if prediction.calibrated:
            yield Publish("saliency", *grid.as_map(prediction.priority / grid.areas))
            yield Publish("estimate", prediction.values.sum(axis=0), region)
        if sampler.affordable == 0:
            return _uncorrected(sampler, "the budget pays for no measurement: raise it")
        if context.main.card.has_shares:
            return (yield from _share_plan(sampler, params, rng))
        if params.method == "sampling":
            return (yield from _sample(sampler, params, rng, sampler.affordable))
        draws = yield from SELECTORS[params.method](sampler, params, rng)
        if sampler.stop or not draws or not len(sampler.unmeasured):
            return _uncorrected(sampler, "")
        if not sampler.prediction.calibrated:  # too few draws for a regression on scores
            return (yield from _sample(sampler, params, rng, draws))
        estimate = yield from regression_estimate(
            sampler, sampler.prediction.priority, draws, rng, params.floor
        )
        if estimate is None:
            return _uncorrected(sampler, "the budget ended before the first random draw: raise it")
        notes = [f"{estimate.drawn:,} of them drawn at random"]
        if len(sampler.unmeasured):
            notes.append("the interval assumes that the scout's predicted variances are right")
        return _estimate(sampler, estimate.values, estimate.interval, notes)


def _share_plan(sampler: TwoPhaseSampler, params: ZoomParams, rng: np.random.Generator) -> Plan:
    """Measure selected cells, draw from the others, and estimate shares or means."""
    draws = sampler.affordable
    if params.method != "sampling":
        draws = yield from SELECTORS[params.method](sampler, params, rng)
    draws = 0 if sampler.stop else draws
    weights = sampler.prediction.priority
    estimate = yield from share_estimate(
        sampler, weights, draws, rng, params.floor, publish=not sampler.excluded.any()
    )
    if estimate is None:
        return _uncorrected(sampler, "nothing was measured: raise the budget")
    skipped = int(sampler.excluded.sum())
    measured, n = len(sampler.measured), len(sampler.grid.patches) - skipped
    notes = [f"{measured:,} of {n:,} cells measured"]
    if skipped:
        notes.append(f"{skipped:,} cells of background skipped: shares are of the others")
    size = float(cell_sizes(sampler).sum())
    area = float(sampler.grid.areas[~sampler.excluded].sum()) if skipped else None
    if params.aggregation == "maximum":
        return replace(measured_maximum(sampler, notes), area=area)
    if estimate.drawn and measured > estimate.drawn:
        notes.append(f"{estimate.drawn:,} of them drawn at random")
    if not estimate.drawn and len(sampler.unmeasured):
        notes.append(
            "none was drawn at random: the others are taken to be like those measured, and the "
            "intervals hold for any others"
        )
    if sampler.failed:
        notes.append(f"{sampler.failed:,} measurements failed and are left out")
    unit = size if skipped else 1.0
    return Estimate(
        estimate.values / unit,
        note="; ".join(notes),
        class_intervals=None if estimate.intervals is None else estimate.intervals / unit,
        certain=not estimate.drawn,
        area=area,
    )


def _sample(
    sampler: TwoPhaseSampler, params: ZoomParams, rng: np.random.Generator, draws: int
) -> Plan:
    """Draw from the unmeasured cells, and estimate the total without bias."""
    context, unmeasured = sampler.context, sampler.unmeasured
    selected = len(sampler.measured)
    limits = upper_bounds(context, sampler.grid)
    estimator = SamplingEstimator(
        sampler.prediction.values[unmeasured],
        sampler.prediction.priority[unmeasured],
        draws,
        rng,
        replace=params.replace,
        floor=params.floor,
        calibrated=sampler.prediction.calibrated,
        upper_bounds=None if limits is None else limits[unmeasured],
        known=sampler.measured_total,
        positions=np.stack(np.divmod(unmeasured, sampler.grid.shape[1]), axis=1),
        strata=params.strata,
    )
    order = unmeasured[estimator.order]
    step = batch_size(len(order))
    narrow = False
    for i in range(0, len(order), step):
        batch = [int(cell) for cell in order[i : i + step]]
        new = [cell for cell in dict.fromkeys(batch) if cell not in sampler.measured]
        if new:
            yield from sampler.measure(new, sampler.prediction.priority, "given")
        values = [sampler.measured[cell] for cell in batch if cell in sampler.measured]
        if values:
            estimator.add(np.array(values))
            yield Publish(
                "estimate",
                estimator.estimate,
                context.region,
                _clip_at_zero(estimator.anytime_interval),
            )
        narrow = _is_narrow(estimator, params.width)
        if sampler.stop or narrow:
            break
    if not estimator.drawn:
        return _uncorrected(sampler, "the budget ended before the first random draw: raise it")
    interval = _clip_at_zero(estimator.anytime_interval if narrow else estimator.fixed_interval)
    interval = _without_failed(sampler, float(estimator.estimate.sum()), interval)
    notes = [f"{estimator.drawn:,} of them drawn at random"] if selected else []
    if narrow:
        notes.append("stopped at the wanted width")
    if interval and limits is None and not estimator.complete:
        notes.append("the interval is asymptotic: the model card gives no bound on a patch's count")
    return _estimate(sampler, estimator.estimate, interval, notes)


def _is_narrow(estimator: SamplingEstimator, width: float) -> bool:
    if not width or estimator.anytime_interval is None:
        return False
    low, high = estimator.anytime_interval
    return (high - low) / 2 <= width / 100 * abs(float(estimator.estimate.sum()))


def _without_failed(
    sampler: TwoPhaseSampler, total: float, interval: Interval | None
) -> Interval | None:
    """Return an interval as wide as those measurements give it that did not fail."""
    n, failed = len(sampler.measured), len(sampler.lost)
    if interval is None or failed >= MAX_LOST * max(n, 1):
        return None
    wider = n / (n - failed)
    return max(total - wider * (total - interval[0]), 0.0), total + wider * (interval[1] - total)


def _clip_at_zero(interval: Interval | None) -> Interval | None:
    """Clip an interval at zero, since counts and areas are not negative."""
    return interval and (max(interval[0], 0.0), max(interval[1], 0.0))


def _estimate(
    sampler: TwoPhaseSampler, estimate: Floats, interval: Interval | None, notes: Sequence[str]
) -> Estimate:
    """Return the estimate, with a note on the number of measurements."""
    measured, n = len(sampler.measured), len(sampler.grid.patches)
    note = [f"{measured:,} of {n:,} cells measured", *notes, *_failure_notes(sampler)]
    return Estimate(estimate, interval, "; ".join(note))


def _failure_notes(sampler: TwoPhaseSampler) -> list[str]:
    return (
        [f"{sampler.failed:,} measurements failed and count as predicted"] if sampler.failed else []
    )


def _uncorrected(sampler: TwoPhaseSampler, reason: str) -> Estimate:
    """Return the measured total plus, for the other cells, the scout's uncorrected prediction."""
    unmeasured = sampler.predicted
    notes = [reason] if reason else []
    notes += [f"{len(sampler.measured):,} of {len(sampler.grid.patches):,} cells measured"]
    if len(unmeasured) and sampler.prediction.calibrated:
        notes.append("the others are the scout's prediction, not corrected")
    elif len(unmeasured):
        notes.append("the others are not in the estimate: the scout does not count")
    note = "; ".join([*notes, *_failure_notes(sampler)])
    if sampler.prediction.calibrated:
        return Estimate(
            sampler.measured_total + sampler.prediction.values[unmeasured].sum(axis=0), note=note
        )
    found = len(sampler.measured) > len(sampler.lost)
    return Estimate(sampler.measured_total if found else None, note=note)
