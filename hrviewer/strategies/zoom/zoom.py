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

from hrviewer.errors import UserError
from hrviewer.strategies.base import Params, Strategy
from hrviewer.strategies.estimation.coarse_pass import guess, scout
from hrviewer.strategies.estimation.intervals import Interval
from hrviewer.strategies.estimation.sampling import Survey
from hrviewer.strategies.estimation.sampling_grid import bound, cut
from hrviewer.strategies.estimation.two_phase import Closer, corrected, pace
from hrviewer.strategies.protocol import Answer, Plan, Scene, Show
from hrviewer.strategies.zoom.params import ZoomParams
from hrviewer.strategies.zoom.selection import CHOOSE

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

    def plan(self, scene: Scene, params: ZoomParams) -> Plan:
        """Scout, look closer, estimate."""
        if scene.main.card.task in ("embedding", "saliency"):
            raise UserError(
                f"{scene.main.card.name!r} gives no answer that can be added up; zoom needs a "
                "network that counts, segments or classifies: choose another strategy"
            )
        if params.method == "policy" and "policy" not in scene.roles:
            raise UserError(
                "method=policy needs a network for the role 'policy', which the pack lacks: choose "
                "another method, or a pack that has it"
            )
        scouted = yield from scout(scene, params.shrink)
        leaves = cut(scene, params.tile, scouted.left, params.halo)
        guessed = guess(scene, scouted, leaves)
        region = scene.region
        rng = np.random.default_rng([scene.seed, region.y, region.x, region.h, region.w])
        closer = Closer(scene, leaves, guessed, scouted.left, scouted.stop)
        if guessed.counts:
            yield Show("saliency", *leaves.laid(guessed.reach / leaves.areas))
            yield Show("estimate", guessed.values.sum(axis=0), region)
        if closer.stop:
            return _guessed(closer, "the budget ended while the scout looked: raise it")
        if closer.affordable == 0:
            return _guessed(closer, "the budget pays for no closer look: raise it")
        if params.method == "sampling":
            return (yield from _survey(closer, params, rng, closer.affordable))
        draws = yield from CHOOSE[params.method](closer, params, rng)
        if closer.stop or not draws or not len(closer.rest):
            return _guessed(closer, "")
        if not closer.guess.counts:  # few looks say too little of what a score is worth
            return (yield from _survey(closer, params, rng, draws))
        found = yield from corrected(closer, closer.guess.reach, draws, rng, params.floor)
        if found is None:
            return _guessed(closer, "the budget ended before a place was drawn: raise it")
        said = [f"{found.drawn:,} of them drawn at random"]
        if len(closer.rest):
            said.append(
                "the interval is the regression's, as sure as the scout's own doubt is right"
            )
        return _answer(closer, found.estimate, found.interval, said)


def _survey(closer: Closer, params: ZoomParams, rng: np.random.Generator, draws: int) -> Plan:
    """Draw from what was not seen, and answer without bias."""
    scene, rest = closer.scene, closer.rest
    chosen = len(closer.seen)
    limits = bound(scene, closer.leaves)
    survey = Survey(
        closer.guess.values[rest],
        closer.guess.reach[rest],
        draws,
        rng,
        replace=params.replace,
        floor=params.floor,
        counts=closer.guess.counts,
        bound=None if limits is None else limits[rest],
        known=closer.known,
        where=np.stack(np.divmod(rest, closer.leaves.shape[1]), axis=1),
        parts=params.strata,
    )
    order = rest[survey.order]
    step = pace(len(order))
    narrow = False
    for i in range(0, len(order), step):
        part = [int(place) for place in order[i : i + step]]
        fresh = [place for place in dict.fromkeys(part) if place not in closer.seen]
        if fresh:
            yield from closer.look(fresh, closer.guess.reach, "given")
        answered = [closer.seen[place] for place in part if place in closer.seen]
        if answered:
            survey.add(np.array(answered))
            yield Show("estimate", survey.estimate, scene.region, _positive(survey.anytime))
        narrow = _narrow(survey, params.width)
        if closer.stop or narrow:
            break
    if not survey.drawn:
        return _guessed(closer, "the budget ended before a place was drawn: raise it")
    interval = _positive(survey.anytime if narrow else survey.fixed)
    said = [f"{survey.drawn:,} of them drawn at random"] if chosen else []
    if narrow:
        said.append("stopped at the wanted width")
    if interval and limits is None and not survey.complete:
        said.append("the interval is asymptotic: the card gives no bound on a patch's count")
    return _answer(closer, survey.estimate, interval, said)


def _narrow(survey: Survey, width: float) -> bool:
    if not width or survey.anytime is None:
        return False
    low, high = survey.anytime
    return (high - low) / 2 <= width / 100 * abs(float(survey.estimate.sum()))


def _positive(interval: Interval | None) -> Interval | None:
    """Return an interval without what no count or area can be."""
    return interval and (max(interval[0], 0.0), max(interval[1], 0.0))


def _answer(
    closer: Closer, estimate: Floats, interval: Interval | None, said: Sequence[str]
) -> Answer:
    """Answer, and say how many places were seen."""
    seen, n = len(closer.seen), len(closer.leaves.patches)
    note = [f"looked closer at {seen:,} of {n:,} places", *said, *_failures(closer)]
    if closer.scene.main.card.task == "classification":
        interval = None  # probabilities sum to 1 whatever was drawn
    return Answer(estimate, interval, "; ".join(note))


def _failures(closer: Closer) -> list[str]:
    return [f"{closer.failed:,} looks failed and count as guessed"] if closer.failed else []


def _guessed(closer: Closer, why: str) -> Answer:
    """Answer with what was seen and, for the rest, the scout's guess as it is."""
    rest = closer.rest
    said = [why] if why else []
    said += [f"looked closer at {len(closer.seen):,} of {len(closer.leaves.patches):,} places"]
    if len(rest) and closer.guess.counts:
        said.append("the rest is the scout's guess, not corrected")
    elif len(rest):
        said.append("the rest is not in the answer: the scout does not count")
    note = "; ".join([*said, *_failures(closer)])
    if closer.guess.counts:
        return Answer(closer.known + closer.guess.values[rest].sum(axis=0), note=note)
    return Answer(closer.known if closer.seen else None, note=note)
