"""The plan where a scout counts: its prediction everywhere, refined by ``main`` where that pays.

Random patches on what is left correct the scout, and give an interval
(`estimation.two_phase.regression_estimate`).
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from hrviewer.models.accuracy import NORMAL_RANGE
from hrviewer.strategies.estimation.coarse_pass import (
    predict_cells,
    run_over_region,
    scout_predicts_counts,
)
from hrviewer.strategies.estimation.regression import calibrate
from hrviewer.strategies.estimation.two_phase import (
    RegressionEstimate,
    TwoPhaseSampler,
    regression_estimate,
)
from hrviewer.strategies.nonuniform.allocation import Leaf
from hrviewer.strategies.nonuniform.leaf_requests import (
    PlannedRequest,
    corrected,
    leaf_flops,
    leaf_note,
    plan_leaf,
    run_leaves,
)
from hrviewer.strategies.nonuniform.overview import Overview, overview_flops, sample_regions
from hrviewer.strategies.nonuniform.params import NonUniformParams
from hrviewer.strategies.nonuniform.refinement import Squares, fit_price, scale_point, square_grid
from hrviewer.strategies.protocol import (
    Estimate,
    PatchResult,
    Plan,
    PlanContext,
    Publish,
    Request,
    Response,
    Target,
)
from hrviewer.strategies.tiling import PatchTotal, aggregate

__all__ = ["refine", "refines"]

FLOOR = 0.1
"""Fraction of the random draws that is distributed evenly, since the scout may miss places."""

MIN_RANDOM = 4
"""Random squares that the budget should pay for, but for at most a third of it."""

MAX_LOST = 0.5
"""Part of the region without a scout's prediction above which there is no estimate."""


def refines(context: PlanContext, overview: Overview) -> bool:
    """Return whether the importance is the count of a scout at the scale of its training."""
    return (
        overview.role == "scout"
        and overview.scale == overview.trained_scale > context.native_scale
        and scout_predicts_counts(context)
        and not context.main.card.input.fixed
    )


def refine(context: PlanContext, params: NonUniformParams, overview: Overview) -> Plan:
    """Run the scout, allocate the budget, run ``main`` on leaves and on random patches.

    In a part of a region the price of a pixel is that of the region, and nothing is drawn: its
    count would depend on the draws.
    """
    price = None
    if context.whole is not None:
        price = yield from _price_of_whole(context.whole, params, overview)
    found = yield from _run_scout(context, params, "output")
    if isinstance(found, Estimate):
        return found
    squares, remaining = found
    grid, prediction = squares.grid, squares.prediction
    yield Publish("saliency", *grid.as_map(prediction.priority / grid.areas))
    yield Publish("estimate", prediction.values.sum(axis=0), context.region)
    if price is None:
        budget = _for_leaves(remaining, grid.max_cost, params)
        price = fit_price([squares], partial(_cost, context, params), budget)
    densities = squares.densities(price)
    seen = squares.seen(densities)
    planned = [plan_leaf(context, params, seen, leaf) for leaf in squares.leaves(densities)]
    factors = {each.core: each.factor for each in planned}
    left = prediction.values[densities == 0].sum(axis=0)

    def publish(results: Sequence[PatchResult]) -> Publish | None:
        sums = aggregate(context.main, corrected(context.main, results, factors))
        return None if sums is None else Publish("estimate", sums + left, context.region)

    leaves = yield from run_leaves(planned, publish, remaining)
    totals = corrected(context.main, leaves.results, factors)
    totals = [total for total in totals if np.isfinite(total.value).all()]
    covered = np.zeros(len(grid.patches), bool)
    for total in totals:  # where inference failed, or was not reached, the scout's count stands
        covered[grid.cells_within(total.patch.core)] = True
    sampler = TwoPhaseSampler(
        context, grid, prediction, leaves.remaining, leaves.stop, excluded=covered
    )
    checked = None
    if context.whole is None and params.share and len(sampler.unmeasured) and not leaves.stop:
        rng = np.random.default_rng(context.seed)
        checked = yield from regression_estimate(
            sampler, prediction.priority, sampler.affordable, rng, FLOOR, publish=False
        )
    notes = [leaf_note(planned)]
    if leaves.stop:
        notes = ["the budget ended before all leaves were processed"]
    lost = len(leaves.results) - len(totals)
    if lost:
        notes.append(f"{lost:,} leaves failed and count as the scout predicts")
    return _combine(context, sampler, totals, planned, checked, notes)


def _price_of_whole(
    whole: PlanContext, params: NonUniformParams, overview: Overview
) -> Generator[Request, Response, float]:
    """Return the price of a pixel that the budget of a region sets, from squares of it."""
    parts = sample_regions(whole, overview)
    sample = []
    for part in parts:
        found = yield from _run_scout(replace(whole, region=part), params, None)
        if not isinstance(found, Estimate):
            sample.append(found[0])
    share = sum(part.area for part in parts) / whole.region.area
    budget = whole.budget * share - overview_flops(whole, overview, parts)
    largest = max((each.grid.max_cost for each in sample), default=0.0)
    budget = _for_leaves(budget, largest * share, params)
    return fit_price(sample, partial(_cost, whole, params), budget)


def _for_leaves(remaining: float, square_cost: float, params: NonUniformParams) -> float:
    """Return what of the budget leaves may cost: the rest is for a few random squares at least."""
    if not params.share or math.isinf(remaining):
        return remaining
    wanted = max(params.share * remaining, MIN_RANDOM * square_cost)
    return remaining - min(wanted, remaining / 3)


def _run_scout(
    context: PlanContext, params: NonUniformParams, target: Target | None
) -> Generator[Request, Response, tuple[Squares, float] | Estimate]:
    """Return the squares with the scout's prediction, and the budget left; or why there is none."""
    coarse = yield from run_over_region(context, "scout", context.scale_of("scout"), target)
    if coarse.stop:
        return Estimate(None, note="the budget ended during the coarse pass: raise it")
    if coarse.lost > MAX_LOST * context.region.area:
        note = f"the scout failed on {coarse.failed:,} of {len(coarse.results):,} tiles"
        return Estimate(None, note=f"{note}: too little for an estimate", coverage=0.0)
    grid = square_grid(context, coarse.remaining)
    coarsest = min(params.coarsest, context.scale_of("scout") / context.native_scale)
    prediction = predict_cells(context, coarse, grid)
    squares = Squares(context, grid, prediction, params.context, params.largest, coarsest)
    return squares, coarse.remaining


def _cost(context: PlanContext, params: NonUniformParams, leaves: Sequence[Leaf]) -> float:
    return sum(leaf_flops(context, params, leaf) for leaf in leaves)


def _combine(
    context: PlanContext,
    sampler: TwoPhaseSampler,
    totals: Sequence[PatchTotal],
    planned: Sequence[PlannedRequest],
    checked: RegressionEstimate | None,
    notes: list[str],
) -> Estimate:
    """Return the sum of leaves and of the other squares, with the interval of both."""
    prediction, rest = sampler.prediction, sampler.predicted
    leaves = sum((total.value for total in totals), start=np.zeros(prediction.values.shape[1]))
    if checked is None:
        nothing = prediction.values[:0]
        factor = calibrate(nothing, nothing, np.ones(0), np.ones(0), prediction.error)
        others = sampler.measured_total + factor.value * prediction.values[rest].sum(axis=0)
        interval = factor.interval(0.0, prediction.values[rest], prediction.spread[rest])
    else:
        factor, others, interval = checked.factor, checked.values, checked.interval
        by = float(factor.value.mean())
        notes.append(f"{checked.drawn} squares drawn at random correct the scout by {by:.2f}")
    reductions = {each.core: each.reduction for each in planned}
    variance, relative = 0.0, 0.0
    for total in totals:
        point = scale_point(context.scale_curve, reductions[total.patch.core])
        count = max(float(total.value.sum()), 0.0)
        variance += point.per_object * count
        relative += point.relative * count
    middle, known = float(others.sum()), float(leaves.sum())
    ends = context.scale_curve.quantiles if context.scale_curve else NORMAL_RANGE
    below, above = (end * math.hypot(math.sqrt(variance), relative) for end in ends)
    low = known + middle - math.hypot(middle - interval[0], below)
    high = known + middle + math.hypot(interval[1] - middle, above)
    shared = float(np.abs(prediction.values[rest].sum(axis=0) * factor.deviation).sum())
    return Estimate(
        leaves + others,
        (max(low, 0.0), high),
        "; ".join(notes),
        common_error=NORMAL_RANGE[1] * math.hypot(shared, relative),
    )
