"""Selective zooming and skipping.

A scout looks everywhere, cheaply, and guesses. `main` then looks closer where that pays, which the
method decides. What is looked at counts for what it holds; the rest keeps the scout's guess,
corrected by what looks at places drawn at random taught: by a regression where places were chosen
(`survey.regression`), without any bias where all were drawn (`survey.sampling.Survey`).
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hrviewer.errors import UserError
from hrviewer.geometry import Patch, Rect
from hrviewer.strategies.base import Params, Strategy, halo_field, tile_field
from hrviewer.strategies.protocol import Answer, Handle, Look, Plan, Request, Result, Scene, Show
from hrviewer.strategies.survey.intervals import Interval
from hrviewer.strategies.survey.leaves import Leaves, affordable, bound, content, cut, gather
from hrviewer.strategies.survey.regression import calibrate, inclusion, want_of_context
from hrviewer.strategies.survey.sampling import Survey, draw, probabilities
from hrviewer.strategies.tiling import ROUND, input_shape, rounds, tiles
from hrviewer.strategies.zoom.quadtree import blocks, grow
from hrviewer.strategies.zoom.scouting import Guess, guess, scout

__all__ = ["Zoom", "ZoomParams"]

Floats = NDArray[np.float64]

UPDATES = 12
"""How often, about, the interval is shown to shrink."""

TRIALS = 0.15
"""Part of a quadtree's budget that tells what looks at coarser levels are worth."""

FEW = 4
"""Random looks to take beside chosen ones, at least, or as many as a third."""

DOUBT = 2.0
"""How many trials the belief is worth that a coarser look is worth nothing."""


class ZoomParams(Params):
    """Parameters of `Zoom`."""

    method: Literal["topk", "threshold", "sampling", "policy", "quadtree"] = Field(
        "topk",
        title="Method",
        description="The most interesting places; all above a threshold; places drawn at random, "
        "for an answer without bias that knows its error; those that the pack's policy network "
        "finds worth a look; or a quadtree through the pyramid",
    )
    tile: int = tile_field(
        "Side of a closer look, in network pixels; 0 takes what suits the budget"
    )
    halo: int = halo_field(
        "Context read around it, in network pixels; -1 takes what the card says is enough. Less "
        "is cheaper, and estimates what cut tiles would say"
    )
    shrink: float = Field(
        0.0,
        ge=0,
        le=256,
        title="Scout at 1/",
        description="How much smaller the scout sees the image; 0 takes the card's",
    )
    k: int = Field(
        0,
        ge=0,
        le=1_000_000,
        title="Top",
        description="For topk, how many places to choose; 0 chooses what the budget pays for",
    )
    threshold: float = Field(
        0.5,
        ge=0,
        le=1,
        title="Threshold",
        description="For threshold, the part of the highest score from which a place is looked at",
    )
    share: float = Field(
        0.1,
        ge=0,
        le=0.9,
        title="Drawn at random",
        description="For all but sampling, the part of the looks that is drawn at "
        "random from the rest, to correct the scout there; 0 leaves its guess as it is",
    )
    floor: float = Field(
        0.1,
        gt=0,
        le=1,
        title="Floor",
        description="The part of the draws that is spread evenly, so that every place can be "
        "reached",
    )
    replace: bool = Field(
        False,
        title="With replacement",
        description="Whether a place may be drawn again",
    )
    strata: int = Field(
        0,
        ge=0,
        le=64,
        title="Strata",
        description="Neighbourhoods that are drawn from in turns, so that a scout that is wrong "
        "about one of them costs less; 0 takes as many as leave enough rounds, 1 none",
    )
    width: float = Field(
        0.0,
        ge=0,
        le=100,
        title="Stop within ± %",
        description="Stop drawing when the interval that may be read at any moment is this "
        "narrow; 0 spends the budget",
    )
    depth: int = Field(
        2,
        ge=1,
        le=6,
        title="Depth",
        description="For quadtree, levels above full resolution",
    )


@dataclass
class _Course:
    """What a run has come to: which leaves were seen, what they hold, what is thought of others."""

    scene: Scene
    params: ZoomParams
    leaves: Leaves
    guess: Guess
    rng: np.random.Generator
    left: float
    stop: bool = False
    failed: int = 0
    seen: dict[int, Floats] = field(default_factory=dict)

    @property
    def rest(self) -> NDArray[np.intp]:
        """Leaves that were not seen at full resolution."""
        there = np.ones(len(self.leaves.patches), bool)
        there[list(self.seen)] = False
        return np.flatnonzero(there)

    @property
    def known(self) -> Floats:
        """What was seen holds, ``(k,)``."""
        none = np.zeros(self.guess.values.shape[1])
        return np.asarray(sum(self.seen.values(), start=none))

    def take(self, result: Result) -> None:
        """Note what the budget still holds."""
        self.left, self.stop = result.left, result.stop

    def read(self, handle: Handle, place: int) -> Floats:
        """Return what a leaf was seen to hold; the scout's guess where the look failed."""
        k = self.scene.main.card.answers
        value = np.asarray(handle.value, float)[:k]
        if np.isfinite(value).all():
            return content(self.scene, handle.patch, value)
        self.failed += 1
        return self.guess.values[place] if self.guess.counts else np.zeros(k)


class Zoom(Strategy):
    """The survey's SZS: look at the thumbnail, then closer where it pays, and skip the rest."""

    id: ClassVar[str] = "zoom"
    title: ClassVar[str] = "Selective zooming and skipping"
    family: ClassVar[str] = "SZS"
    when: ClassVar[str] = "Mostly empty images: a glance everywhere, closer looks where they pay"
    Params: ClassVar[type[Params]] = ZoomParams
    roles: ClassVar[tuple[str, ...]] = ("main", "scout")
    default_budget: ClassVar[float | None] = 0.1

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
        course = _Course(scene, params, leaves, guessed, rng, scouted.left, scouted.stop)
        if guessed.counts:
            yield Show("saliency", *_grid(leaves, guessed.reach / leaves.areas))
            yield Show("estimate", guessed.values.sum(axis=0), region)
        if course.stop:
            return _guessed(course, "the budget ended while the scout looked: raise it")
        if affordable(leaves, course.left) == 0:
            return _guessed(course, "the budget pays for no closer look: raise it")
        if params.method == "sampling":
            return (yield from _survey(course, affordable(leaves, course.left)))
        draws = yield from _CHOOSE[params.method](course)
        if course.guess.counts:
            return (yield from _corrected(course, draws))
        # Few looks say too little of what a score is worth.
        return (yield from _survey(course, draws))


# How each method chooses. Each looks at what it chose and returns how many draws are to follow.

Choosing = Generator[Request, Result, int]


def _topk(course: _Course) -> Choosing:
    share = course.params.share
    most = affordable(course.leaves, course.left)
    n, draws = _split(most, course.params.k or most, share)
    yield from _look(course, _best(course.guess.reach)[:n])
    return draws


def _threshold(course: _Course) -> Choosing:
    reach, share = course.guess.reach, course.params.share
    most = affordable(course.leaves, course.left)
    density = reach / course.leaves.areas
    chosen = _best(reach)
    chosen = chosen[density[chosen] >= course.params.threshold * density.max()]
    n, draws = _split(most, len(chosen), share)
    yield from _look(course, chosen[:n])
    return draws


def _policy(course: _Course) -> Choosing:
    """Look where the policy network would, the surest places first."""
    scene, leaves, share = course.scene, course.leaves, course.params.share
    role, scale = scene.roles["policy"], scene.scale_of("policy")
    handles: list[Handle] = []
    for asked in rounds(tiles(role, scene.region, scale)):
        result = yield Look("policy", asked)
        handles += result.handles
        course.take(result)
        if course.stop:
            return 0
    # Chances, by area over each leaf.
    cells = leaves.areas / (role.stride * scale) ** 2
    chance = gather(handles, leaves.ys, leaves.xs, scene.rect).sum(axis=0).ravel() / cells
    yield Show("saliency", *_grid(leaves, chance))
    most = affordable(leaves, course.left)
    chosen = _best(chance)
    n, draws = _split(most, int(np.count_nonzero(chance >= 0.5)), share)
    yield from _look(course, chosen[:n], chance)
    return draws


def _quadtree(course: _Course) -> Choosing:
    """Try a few leaves at every level; grow the best tree; guess anew from what it saw."""
    scene, leaves, share = course.scene, course.leaves, course.params.share
    tree = _Nodes(scene, leaves, course.params.depth)
    factors, remains = yield from _trials(course, tree)
    if course.stop:
        return 0
    variance = course.guess.spread**2
    variance[list(course.seen)] = 0
    left = course.left
    looks = grow(
        variance.reshape(leaves.shape), tree.first, remains, tree.costs, left * (1 - share)
    )
    for level in reversed(range(1, len(looks))):
        nodes = np.flatnonzero(looks[level])
        handles: list[Handle] = []
        for i in range(0, len(nodes), ROUND):
            patches = tuple(tree.patches[level][j] for j in nodes[i : i + ROUND])
            result = yield Look("main", patches, into="output")
            handles += result.handles
            course.take(result)
            if course.stop:
                break
        _refine(course, handles, factors[level], remains[level])
        if course.stop:
            return 0
    places = np.flatnonzero(looks[0])
    yield from _look(course, places[np.argsort(-variance[places], kind="stable")])
    return affordable(leaves, course.left) if share else 0


_CHOOSE = {
    "topk": _topk,
    "threshold": _threshold,
    "policy": _policy,
    "quadtree": _quadtree,
}


def _best(scores: Floats) -> NDArray[np.intp]:
    return np.argsort(-scores, kind="stable")


def _split(most: int, wanted: int, share: float) -> tuple[int, int]:
    """Return how many of the wanted places are looked at, and how many are drawn at random.

    Of `most` looks `share` is drawn, or of those that are taken; a few at least, also where few or
    none are wanted, to tell what the guess is worth.
    """
    if not share:
        return min(wanted, most), 0
    few = min(FEW, -(-most // 3))
    chosen = min(wanted, most - max(few, math.floor(most * share)))
    return chosen, min(most - chosen, max(few, math.ceil(chosen * share / (1 - share))))


# Looking.


def _look(
    course: _Course,
    places: Sequence[int] | NDArray[np.intp],
    scores: Floats | None = None,
    order: Literal["any", "given"] = "any",
) -> Generator[Request, Result, None]:
    """Look at leaves, at full resolution; they are chosen by what they may hold, or by scores."""
    scores = course.guess.reach if scores is None else scores
    for i in range(0, len(places), ROUND):
        asked = [int(place) for place in places[i : i + ROUND]]
        result = yield Look(
            "main",
            tuple(course.leaves.patches[place] for place in asked),
            into="output",
            order=order,
            scores=tuple(float(scores[place]) for place in asked),
        )
        course.take(result)
        for place, handle in zip(asked, result.handles, strict=False):
            course.seen[place] = course.read(handle, place)
        if course.stop:
            return


def _survey(course: _Course, draws: int) -> Plan:
    """Draw from what was not seen, and answer without bias."""
    scene, params, rest = course.scene, course.params, course.rest
    if not draws or not len(rest) or course.stop:
        return _guessed(course, "")
    chosen = len(course.seen)
    limits = bound(scene, course.leaves)
    survey = Survey(
        course.guess.values[rest],
        course.guess.reach[rest],
        draws,
        course.rng,
        replace=params.replace,
        floor=params.floor,
        counts=course.guess.counts,
        bound=None if limits is None else limits[rest],
        known=course.known,
        where=np.stack(np.divmod(rest, course.leaves.shape[1]), axis=1),
        parts=params.strata,
    )
    order = rest[survey.order]
    step = min(ROUND, max(4, -(-len(order) // UPDATES)))
    narrow = False
    for i in range(0, len(order), step):
        part = [int(place) for place in order[i : i + step]]
        fresh = [place for place in dict.fromkeys(part) if place not in course.seen]
        if fresh:
            yield from _look(course, fresh, order="given")
        answered = [course.seen[place] for place in part if place in course.seen]
        if answered:
            survey.add(np.array(answered))
            yield Show("estimate", survey.estimate, scene.region, _positive(survey.anytime))
        narrow = _narrow(survey, params.width)
        if course.stop or narrow:
            break
    if not survey.drawn:
        return _guessed(course, "the budget ended before a place was drawn: raise it")
    interval = _positive(survey.anytime if narrow else survey.fixed)
    said = [f"{survey.drawn:,} of them drawn at random"] if chosen else []
    if narrow:
        said.append("stopped at the wanted width")
    if interval and limits is None and not survey.complete:
        said.append("the interval is asymptotic: the card gives no bound on a patch's count")
    return _answer(course, survey.estimate, interval, said)


def _corrected(course: _Course, draws: int) -> Plan:
    """Draw from what was not chosen, and correct the guess there."""
    rest = course.rest
    if not draws or not len(rest) or course.stop:
        return _guessed(course, "")
    scene, guess = course.scene, course.guess
    chosen = len(course.seen)
    p = probabilities(guess.reach[rest], course.params.floor)
    order = draw(p, draws, course.rng)
    step = min(ROUND, max(4, -(-len(order) // UPDATES)))
    estimate, interval = course.known, None
    for i in range(0, len(order), step):
        yield from _look(course, rest[order[i : i + step]], order="given")
        drawn = order[: len(course.seen) - chosen]
        places = rest[drawn]
        factor = calibrate(
            guess.values[places],
            np.array([course.seen[int(place)] for place in places]).reshape(len(places), -1),
            inclusion(p, len(drawn))[drawn],
            guess.spread[places],
        )
        left = course.rest
        estimate = course.known + factor.value * guess.values[left].sum(axis=0)
        interval = factor.interval(
            float(course.known.sum()),
            guess.values[left],
            guess.spread[left],
            want_of_context(course.leaves.patches[0].halo, scene.main.halo),
        )
        yield Show("estimate", estimate, scene.region, interval)
        if course.stop:
            break
    if len(course.seen) == chosen:
        return _guessed(course, "the budget ended before a place was drawn: raise it")
    said = [f"{len(course.seen) - chosen:,} of them drawn at random"]
    if len(course.rest):
        said.append("the interval is the regression's, as sure as the scout's own doubt is right")
    return _answer(course, estimate, interval, said)


def _narrow(survey: Survey, width: float) -> bool:
    if not width or survey.anytime is None:
        return False
    low, high = survey.anytime
    return (high - low) / 2 <= width / 100 * abs(float(survey.estimate.sum()))


def _positive(interval: Interval | None) -> Interval | None:
    """Return an interval without what no count or area can be."""
    return interval and (max(interval[0], 0.0), max(interval[1], 0.0))


def _answer(
    course: _Course, estimate: Floats, interval: Interval | None, said: Sequence[str]
) -> Answer:
    """Answer, and say how many places were seen."""
    seen, n = len(course.seen), len(course.leaves.patches)
    note = [f"looked closer at {seen:,} of {n:,} places", *said, *_failures(course)]
    if course.scene.main.card.task == "classification":
        interval = None  # probabilities sum to 1 whatever was drawn
    return Answer(estimate, interval, "; ".join(note))


def _failures(course: _Course) -> list[str]:
    return [f"{course.failed:,} looks failed and count as guessed"] if course.failed else []


def _guessed(course: _Course, why: str) -> Answer:
    """Answer with what was seen and, for the rest, the scout's guess as it is."""
    rest = course.rest
    said = [why] if why else []
    said += [f"looked closer at {len(course.seen):,} of {len(course.leaves.patches):,} places"]
    if len(rest) and course.guess.counts:
        said.append("the rest is the scout's guess, not corrected")
    elif len(rest):
        said.append("the rest is not in the answer: the scout does not count")
    note = "; ".join([*said, *_failures(course)])
    if course.guess.counts:
        return Answer(course.known + course.guess.values[rest].sum(axis=0), note=note)
    return Answer(course.known if course.seen else None, note=note)


# The quadtree's nodes.


class _Nodes:
    """A quadtree over leaves: at each level, nodes twice as wide, seen at twice the scale."""

    def __init__(self, scene: Scene, leaves: Leaves, depth: int) -> None:
        main, scale, halo = scene.main, leaves.patches[0].scale, leaves.patches[0].halo
        self.first = int(leaves.ys[0] // leaves.cell), int(leaves.xs[0] // leaves.cell)
        self.scales = [scale * 2**level for level in range(depth + 1)]
        self.patches: list[list[Patch]] = [list(leaves.patches)]
        self.costs: list[Floats] = []
        for level in range(depth + 1):
            ys, xs = (
                edges[[*np.flatnonzero(np.diff(blocks(n, first, level), prepend=-1)), n]]
                for edges, n, first in zip(
                    (leaves.ys, leaves.xs), leaves.shape, self.first, strict=True
                )
            )
            if level:
                self.patches.append(
                    [
                        Patch(
                            Rect(int(y), int(x), int(y1 - y), int(x1 - x)),
                            self.scales[level],
                            halo,
                        )
                        for y, y1 in pairwise(ys)
                        for x, x1 in pairwise(xs)
                    ]
                )
            costs = [main.flops(*input_shape(main, p, scene.rect)) for p in self.patches[level]]
            self.costs.append(np.array(costs).reshape(len(ys) - 1, len(xs) - 1))


def _trials(
    course: _Course, tree: _Nodes
) -> Generator[Request, Result, tuple[list[float], list[float]]]:
    """Look at a few leaves, drawn at random, at every level.

    Returns
    -------
    factors : list of float
        By what a look at each level is to be multiplied to guess what full resolution sees.
    remains : list of float
        Which part of the squared error of the scout's guess is left then.
    """
    leaves, levels = course.leaves, range(len(tree.scales))
    chain = sum(leaves.dearest / 2**level for level in levels)
    n = min(len(leaves.patches), int(course.left * TRIALS / chain))
    p = probabilities(course.guess.reach, course.params.floor)
    places = [int(place) for place in draw(p, n, course.rng)]
    halo = leaves.patches[0].halo
    counts = np.zeros((len(tree.scales), n))
    for level in levels:
        if not n:
            break
        patches = tuple(Patch(leaves.patches[i].core, tree.scales[level], halo) for i in places)
        result = yield Look("main", patches, into="output" if level == 0 else None)
        course.take(result)
        if course.stop:
            break
        for j, (place, handle) in enumerate(zip(places, result.handles, strict=True)):
            value = course.read(handle, place)
            counts[level, j] = value.sum()
            if level == 0:
                course.seen[place] = value
    weights, truth = 1 / p[places], counts[0]
    if not course.guess.counts and n:
        course.guess = _worth(course, places, weights)
    before = float(weights @ (course.guess.values[places].sum(axis=1) - truth) ** 2)
    factors, remains = [1.0], [0.0]
    for level in levels[1:]:
        squared = float(weights @ counts[level] ** 2)
        factor = float(weights @ (counts[level] * truth)) / squared if squared > 0 else 0.0
        after = float(weights @ (factor * counts[level] - truth) ** 2)
        doubt = DOUBT * before / max(n, 1)
        remains.append(min(1.0, (after + doubt) / (before + doubt)) if before > 0 else 1.0)
        factors.append(factor)
    return factors, remains


def _worth(course: _Course, places: list[int], weights: Floats) -> Guess:
    """Return a guess in the answer's unit, made of scores by regression on looks."""
    old = course.guess
    scores = old.values[places]
    values = np.array([course.seen[place] for place in places if place in course.seen])
    if len(values) < len(places):
        return old
    squared = weights @ scores**2
    factor = np.divide(
        weights @ (scores * values), squared, out=np.zeros_like(squared), where=squared > 0
    )
    return Guess(old.values * factor, old.spread, counts=True)


def _refine(course: _Course, handles: Sequence[Handle], factor: float, remains: float) -> None:
    """Guess anew where a coarser look was taken."""
    leaves, old = course.leaves, course.guess
    k, additive = old.values.shape[1], course.scene.main.card.task in ("density", "detection")
    values, spread = old.values.copy(), old.spread.copy()
    sums = gather(handles, leaves.ys, leaves.xs, course.scene.rect).reshape(-1, len(values))
    for handle in handles:
        if np.isnan(handle.value).any():
            continue
        core = handle.patch.core
        inside = leaves.within(core)
        if additive:
            values[inside] = factor * sums[:k, inside].T
        else:
            whole = content(course.scene, handle.patch, np.asarray(handle.value[:k], float))
            values[inside] = factor * np.outer(leaves.areas[inside] / core.area, whole)
        spread[inside] *= math.sqrt(remains)
    course.guess = Guess(values, spread, old.counts)


def _grid(leaves: Leaves, values: Floats) -> tuple[Floats, Rect]:
    """Return leaves' values as a map of whole cells, and what it covers."""
    rows, columns = leaves.shape
    y = int(leaves.ys[0] // leaves.cell * leaves.cell)
    x = int(leaves.xs[0] // leaves.cell * leaves.cell)
    rect = Rect(y, x, rows * leaves.cell, columns * leaves.cell)
    return values.reshape(rows, columns), rect
