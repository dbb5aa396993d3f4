"""Selective zooming and skipping.

A scout looks everywhere, cheaply, and guesses. `main` then looks closer where that pays, which the
method decides. What is looked at counts for what it holds; the rest keeps the scout's guess,
corrected by what looks at places drawn at random taught: by a regression where places were chosen
(`survey.regression`), without any bias where all were drawn (`survey.sampling.Survey`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from hrviewer.errors import HrviewerError
from hrviewer.strategies.base import Params, Strategy
from hrviewer.strategies.estimation.coarse_pass import predict_cells, run_scout
from hrviewer.strategies.estimation.intervals import Interval
from hrviewer.strategies.estimation.sampling import SamplingEstimator
from hrviewer.strategies.estimation.sampling_grid import build_grid, upper_bounds
from hrviewer.strategies.estimation.two_phase import (
    TwoPhaseSampler,
    batch_size,
    regression_estimate,
)
from hrviewer.strategies.protocol import Estimate, Plan, PlanContext, Publish
from hrviewer.strategies.zoom.params import ZoomParams
from hrviewer.strategies.zoom.selection import SELECTORS

__all__ = ["Zoom"]

Floats = NDArray[np.float64]


class Zoom(Strategy):
    """The survey's SZS: look at the thumbnail, then closer where it pays, and skip the rest."""

    id: ClassVar[str] = "zoom"
    title: ClassVar[str] = "Selective zooming and skipping"
    family: ClassVar[str] = "SZS"
    when: ClassVar[str] = "Mostly empty images: a glance everywhere, closer looks where they pay"
    Params: ClassVar[type[Params]] = ZoomParams
    roles: ClassVar[tuple[str, ...]] = ("main", "scout")
    default_budget: ClassVar[float | None] = 0.1
    default_tiles: ClassVar[float] = 0.5

    def plan(self, context: PlanContext, params: ZoomParams) -> Plan:
        """Scout, look closer, estimate."""
        if context.main.card.task in ("embedding", "saliency"):
            raise HrviewerError(
                f"{context.main.card.name!r} gives no answer that can be added up; zoom needs a "
                "network that counts, segments or classifies: choose another strategy"
            )
        if params.method == "policy" and "policy" not in context.models:
            raise HrviewerError(
                "method=policy needs a network for the role 'policy', which the pack lacks: choose "
                "another method, or a pack that has it"
            )
        scouted = yield from run_scout(context, params.shrink)
        leaves = build_grid(context, params.tile, scouted.remaining, params.halo)
        guessed = predict_cells(context, scouted, leaves)
        region = context.region
        rng = np.random.default_rng([context.seed, region.y, region.x, region.h, region.w])
        closer = TwoPhaseSampler(context, leaves, guessed, scouted.remaining, scouted.stop)
        if guessed.calibrated:
            yield Publish("saliency", *leaves.as_map(guessed.priority / leaves.areas))
            yield Publish("estimate", guessed.values.sum(axis=0), region)
        if closer.stop:
            return _uncorrected(closer, "the budget ended while the scout looked: raise it")
        if closer.affordable == 0:
            return _uncorrected(closer, "the budget pays for no closer look: raise it")
        if params.method == "sampling":
            return (yield from _sample(closer, params, rng, closer.affordable))
        draws = yield from SELECTORS[params.method](closer, params, rng)
        if closer.stop or not draws or not len(closer.unmeasured):
            return _uncorrected(closer, "")
        if not closer.prediction.calibrated:  # few looks say too little of what a score is worth
            return (yield from _sample(closer, params, rng, draws))
        found = yield from regression_estimate(
            closer, closer.prediction.priority, draws, rng, params.floor
        )
        if found is None:
            return _uncorrected(closer, "the budget ended before a place was drawn: raise it")
        said = [f"{found.drawn:,} of them drawn at random"]
        if len(closer.unmeasured):
            said.append(
                "the interval is the regression's, as sure as the scout's own doubt is right"
            )
        return _estimate(closer, found.values, found.interval, said)


def _sample(
    closer: TwoPhaseSampler, params: ZoomParams, rng: np.random.Generator, draws: int
) -> Plan:
    """Draw from what was not seen, and answer without bias."""
    scene, rest = closer.context, closer.unmeasured
    chosen = len(closer.measured)
    limits = upper_bounds(scene, closer.grid)
    survey = SamplingEstimator(
        closer.prediction.values[rest],
        closer.prediction.priority[rest],
        draws,
        rng,
        replace=params.replace,
        floor=params.floor,
        calibrated=closer.prediction.calibrated,
        upper_bounds=None if limits is None else limits[rest],
        known=closer.measured_total,
        positions=np.stack(np.divmod(rest, closer.grid.shape[1]), axis=1),
        strata=params.strata,
    )
    order = rest[survey.order]
    step = batch_size(len(order))
    narrow = False
    for i in range(0, len(order), step):
        part = [int(place) for place in order[i : i + step]]
        fresh = [place for place in dict.fromkeys(part) if place not in closer.measured]
        if fresh:
            yield from closer.measure(fresh, closer.prediction.priority, "given")
        answered = [closer.measured[place] for place in part if place in closer.measured]
        if answered:
            survey.add(np.array(answered))
            yield Publish(
                "estimate", survey.estimate, scene.region, _clip_at_zero(survey.anytime_interval)
            )
        narrow = _is_narrow(survey, params.width)
        if closer.stop or narrow:
            break
    if not survey.drawn:
        return _uncorrected(closer, "the budget ended before a place was drawn: raise it")
    interval = _clip_at_zero(survey.anytime_interval if narrow else survey.fixed_interval)
    said = [f"{survey.drawn:,} of them drawn at random"] if chosen else []
    if narrow:
        said.append("stopped at the wanted width")
    if interval and limits is None and not survey.complete:
        said.append("the interval is asymptotic: the card gives no bound on a patch's count")
    return _estimate(closer, survey.estimate, interval, said)


def _is_narrow(survey: SamplingEstimator, width: float) -> bool:
    if not width or survey.anytime_interval is None:
        return False
    low, high = survey.anytime_interval
    return (high - low) / 2 <= width / 100 * abs(float(survey.estimate.sum()))


def _clip_at_zero(interval: Interval | None) -> Interval | None:
    """Return an interval without what no count or area can be."""
    return interval and (max(interval[0], 0.0), max(interval[1], 0.0))


def _estimate(
    closer: TwoPhaseSampler, estimate: Floats, interval: Interval | None, said: Sequence[str]
) -> Estimate:
    """Answer, and say how many places were seen."""
    seen, n = len(closer.measured), len(closer.grid.patches)
    note = [f"looked closer at {seen:,} of {n:,} places", *said, *_failure_notes(closer)]
    if closer.context.main.card.task == "classification":
        interval = None  # probabilities sum to 1 whatever was drawn
    return Estimate(estimate, interval, "; ".join(note))


def _failure_notes(closer: TwoPhaseSampler) -> list[str]:
    return [f"{closer.failed:,} looks failed and count as guessed"] if closer.failed else []


def _uncorrected(closer: TwoPhaseSampler, why: str) -> Estimate:
    """Answer with what was seen and, for the rest, the scout's guess as it is."""
    rest = closer.unmeasured
    said = [why] if why else []
    said += [f"looked closer at {len(closer.measured):,} of {len(closer.grid.patches):,} places"]
    if len(rest) and closer.prediction.calibrated:
        said.append("the rest is the scout's guess, not corrected")
    elif len(rest):
        said.append("the rest is not in the answer: the scout does not count")
    note = "; ".join([*said, *_failure_notes(closer)])
    if closer.prediction.calibrated:
        return Estimate(
            closer.measured_total + closer.prediction.values[rest].sum(axis=0), note=note
        )
    return Estimate(closer.measured_total if closer.measured else None, note=note)
