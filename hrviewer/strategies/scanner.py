"""Lightweight scanner networks: every pixel cheaply, the heavy network where it matters."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hrviewer.geometry import Patch, snap_scale
from hrviewer.strategies.base import Params, Strategy, tile_field
from hrviewer.strategies.protocol import Answer, Handle, Look, Plan, Request, Result, Scene, Show
from hrviewer.strategies.survey.leaves import Leaves, affordable, content, cut, gather
from hrviewer.strategies.survey.regression import calibrate, inclusion, want_of_context
from hrviewer.strategies.survey.sampling import draw, probabilities
from hrviewer.strategies.tiling import ROUND, Told, aggregate, response, rounds, tiles

__all__ = ["Scanner", "ScannerParams"]

Floats = NDArray[np.float64]

OVERVIEW = 32
"""By how much, from native, the image is shrunk to find its background."""

CLOSER = 128
"""Side of a closer look, network pixels, where the person does not say: smaller ones tell more for
their FLOPs, and less for their seconds."""

FLOOR = 0.1
"""The part of the random looks that is spread evenly: no scanner is trusted without end."""


class ScannerParams(Params):
    """Parameters of `Scanner`."""

    skip: Literal["slides", "always", "never"] = Field(
        "slides",
        title="Skip background",
        description="Leave out tiles without foreground; by default where the network's pixel size "
        "is known, as on microscope slides",
    )
    foreground: float = Field(
        0.02,
        gt=0,
        lt=1,
        title="Foreground",
        description="How sure it must be, somewhere in a tile, that there is any",
    )
    denser: int = Field(
        1,
        ge=1,
        le=8,
        title="Denser",
        description="At how many shifts along each axis the scanner sees every tile, for a map "
        "so many times as dense and less dependent on where its cells lie; 2 costs 4 times as "
        "much, 4 costs 16",
    )
    flag: Literal["uncertainty", "score"] = Field(
        "uncertainty",
        title="Look closer by",
        description="What sends a tile to the main network: how unsure the scanner is of it, or "
        "how much it holds; the same for a scanner that does not say how sure it is",
    )
    share: float = Field(
        0.2,
        ge=0,
        le=1,
        title="Look closer at",
        description="The part of the region that the main network sees at most; a budget may "
        "leave less",
    )
    sample: int = Field(
        32,
        ge=0,
        le=1024,
        title="Random looks",
        description="How many of the other places, drawn at random, the main network sees to "
        "correct the scanner and to say how sure the count is; without any there is no interval",
    )
    tile: int = tile_field(
        "Side of a closer look, in pixels of the main network; 0 takes 128, or less where its "
        "tiles are smaller"
    )


class Scanner(Strategy):
    """The survey's LSN: a small network reads every pixel, the large one only what it flags.

    A fully convolutional scanner shares the work between overlapping windows (Lin et al.,
    *ScanNet*, WACV 2018). Places that it flags are seen by ``main``. The others keep its answer,
    times a factor that ``main`` says of some that are drawn at random, which also tells how sure
    the total is; what was flagged was chosen, and would bias it.
    """

    id: ClassVar[str] = "scanner"
    title: ClassVar[str] = "Lightweight scanner"
    family: ClassVar[str] = "LSN"
    when: ClassVar[str] = "Evidence that a thumbnail does not show: read every pixel, cheaply"
    Params: ClassVar[type[Params]] = ScannerParams
    roles: ClassVar[tuple[str, ...]] = ("main", "scanner")

    def plan(self, scene: Scene, params: ScannerParams) -> Plan:
        """Skip, scan, look closer, correct."""
        scan = yield from _scan(scene, params)
        if isinstance(scan, Answer):
            return scan
        leaves, guess, spread = scan.leaves, scan.guess, scan.spread
        patches, total = leaves.patches, guess.sum(axis=0)
        yield Show("estimate", total, scene.region)

        # Of what is left to spend, the random looks come first: without them nothing is known of
        # how wrong the scanner is.
        pays = affordable(leaves, scan.left)
        sample = min(params.sample, pays)
        unsure = int(np.count_nonzero(spread))
        flagged = min(round(params.share * len(patches)), pays - sample, unsure)
        score = spread if params.flag == "uncertainty" else guess.sum(axis=1)
        closer = np.argsort(-score, kind="stable")[:flagged]
        looked = _Closer(scene, leaves, guess)
        for start in range(0, flagged, ROUND):
            chosen = closer[start : start + ROUND]
            yield from looked.at(chosen, np.minimum(score[chosen], 1e300), "any")
            yield Show("estimate", looked.known + guess[looked.rest].sum(axis=0), scene.region)
            if looked.stop:
                break

        note = f"{len(looked.seen)} of {len(patches)} places seen closer"
        if scan.skipped:
            note += f", {scan.skipped} tiles of background skipped"
        if scan.failed:
            note += f"; the scanner failed on {scan.failed}"
        left = looked.rest
        cut = want_of_context(patches[0].halo, scene.main.halo)
        if looked.stop or not len(left) or not sample:
            known, all_of_it = looked.known, float(looked.known.sum())
            sure = None if len(left) else (all_of_it * (1 - cut), all_of_it * (1 + cut))
            return Answer(known + guess[left].sum(axis=0), sure, note)
        spread = np.minimum(spread, 1e6)
        p = probabilities(spread[left], FLOOR)
        drawn = draw(p, sample, np.random.default_rng(scene.seed))
        places = left[drawn]
        values = yield from looked.at(places, p[drawn], "given")
        drawn, places = drawn[: len(values)], places[: len(values)]
        likely = inclusion(p, len(drawn))[drawn]
        factor = calibrate(guess[places], values, likely, spread[places])
        rest = looked.rest
        interval = factor.interval(float(looked.known.sum()), guess[rest], spread[rest], cut)
        note += (
            f"; {len(drawn)} of the others at random, by which the scanner's counts are "
            f"worth {float(factor.value.mean()):.2f} each"
        )
        answer = looked.known + guess[rest].sum(axis=0) * factor.value
        if scene.main.card.task == "classification":
            return Answer(answer, None, note)  # probabilities sum to 1 whatever was drawn
        return Answer(answer, interval, note)


@dataclass
class _Scan:
    """What the scanner said of the places that may be looked at closer."""

    leaves: Leaves
    guess: Floats  # (n, k)
    spread: Floats  # (n,); infinite where it failed
    left: float
    skipped: int
    failed: int


def _scan(scene: Scene, params: ScannerParams) -> Generator[Request, Result, _Scan | Answer]:
    """Read every tile that is not background."""
    tiling = cut(scene, scene.main.card.input.tile, math.inf)
    side = params.tile or min(CLOSER, scene.main.card.input.tile)
    leaves = cut(scene, side, math.inf)
    patches, k = tiling.patches, len(scene.main.card.classes) or 1
    wanted = np.ones(len(patches), bool)
    if _skips(scene, params):
        role = scene.roles["@foreground"]
        result = Result()
        handles: list[Handle] = []
        for asked in rounds(tiles(role, scene.region, snap_scale(scene.native * OVERVIEW))):
            result = yield Look("@foreground", asked)
            handles += result.handles
        if result.stop:
            return Answer(None, note="the budget ended before anything was scanned")
        # A glance that failed must not pass for background.
        blind = any(np.isnan(handle.value).any() for handle in handles)
        cell = (role.stride * scene.native * OVERVIEW) ** 2
        found = gather(handles, tiling.ys, tiling.xs, scene.rect).sum(axis=0).ravel() * cell
        wanted = (found > params.foreground * tiling.areas) | blind

    # At every step between its own, too, it is another role.
    name = "scanner" if params.denser == 1 else f"scanner/{params.denser}"
    scanner, scale = scene.roles[name], scene.scale_of("scanner")
    guess, spread = np.zeros((len(leaves.patches), k)), np.zeros(len(leaves.patches))
    scanned: list[Told] = []
    failed = 0
    places = np.flatnonzero(wanted)
    result = Result(left=scene.budget)
    for asked in rounds([Patch(patches[i].core, scale, scanner.halo) for i in places]):
        result = yield Look(name, asked, into="output")
        failed += _add_up(scene, leaves, result.handles, guess, spread)
        scanned += Told.by(result.handles)
        yield response(scanned, patches)
        if result.stop:
            return Answer(
                aggregate(scanner, scanned),
                note=f"the budget ended after {len(scanned)} of {len(places)} tiles were "
                "scanned: the rest of the region was not seen",
            )
    skipped = len(wanted) - len(places)
    return _Scan(leaves, guess, np.sqrt(spread), result.left, skipped, failed)


def _add_up(
    scene: Scene, leaves: Leaves, handles: Sequence[Handle], guess: Floats, variance: Floats
) -> int:
    """Add what scanned tiles hold to the leaves in them; return how many tiles failed.

    A leaf that nothing is known of is looked at closer first of all: its variance is infinite.
    """
    k, failed = guess.shape[1], 0
    additive = scene.main.card.task in ("density", "detection")
    if additive:
        sums = gather(handles, leaves.ys, leaves.xs, scene.rect)
        sums = sums.reshape(len(sums), -1)
        if len(sums) >= k:
            guess += sums[:k].T
            doubt = sums[k:] if len(sums) > k else sums
            variance += np.maximum(doubt.sum(axis=0), 0)
    for handle in handles:
        broken = bool(np.isnan(handle.value).any())
        if additive and not broken:
            continue
        inside = leaves.within(handle.patch.core)
        if broken:
            failed += 1
            variance[inside] = math.inf
            continue
        shares = leaves.areas[inside] / handle.patch.core.area
        guess[inside] += np.outer(shares, content(scene, handle.patch, handle.value[:k]))
        variance[inside] += shares * np.maximum(handle.value[k:] if len(handle.value) > k
                                                else handle.value, 0).sum()  # fmt: skip
    return failed


class _Closer:
    """Looks by ``main``, and what they found."""

    def __init__(self, scene: Scene, leaves: Leaves, guess: Floats) -> None:
        self._scene, self._leaves, self._guess = scene, leaves, guess
        self.seen: set[int] = set()
        self.known = np.zeros(guess.shape[1])
        self.stop = False

    @property
    def rest(self) -> NDArray[np.intp]:
        """Leaves that were not seen closer."""
        there = np.ones(len(self._guess), bool)
        there[list(self.seen)] = False
        return np.flatnonzero(there)

    def at(
        self, places: NDArray[np.intp], scores: Floats, order: Literal["any", "given"]
    ) -> Generator[Request, Result, Floats]:
        """Look at leaves; return what they hold, ``(m, k)``: what was guessed where it failed."""
        result = yield Look(
            "main",
            tuple(self._leaves.patches[i] for i in places),
            into="output",
            order=order,
            scores=tuple(float(score) for score in scores),
        )
        self.stop = result.stop
        found = [self._guess[:0]]
        for i, handle in zip(places, result.handles, strict=False):
            failed = np.isnan(handle.value).any()
            value = self._guess[i] if failed else content(self._scene, handle.patch, handle.value)
            self.known = self.known + value
            self.seen.add(int(i))
            found.append(value[None])
        return np.concatenate(found)


def _skips(scene: Scene, params: ScannerParams) -> bool:
    known = scene.main.card.input.pixel_size is not None
    return params.skip == "always" or (params.skip == "slides" and known)
