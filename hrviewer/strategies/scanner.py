"""Lightweight scanner networks: every pixel cheaply, the heavy network where it matters."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hrviewer.geometry import Patch, snap_scale
from hrviewer.strategies.base import Params, Strategy, Words, tile_field
from hrviewer.strategies.estimation.intervals import Interval
from hrviewer.strategies.estimation.sampling_grid import Leaves, content, cut, gather
from hrviewer.strategies.estimation.two_phase import Closer, Guess, corrected
from hrviewer.strategies.protocol import Answer, Handle, Look, Plan, Request, Result, Scene, Show
from hrviewer.strategies.tiling import ROUND, Told, aggregate, response, rounds, tiles

__all__ = ["Scanner", "ScannerParams"]

Floats = NDArray[np.float64]

OVERVIEW = 32
"""By how much, from native, the image is shrunk to find its background."""

CLOSER = 128
"""Side of a closer look, network pixels, where the person does not say: smaller ones tell more for
their FLOPs, and less for their seconds."""

FEW, RARELY = 4, 16
"""Random looks: of a small image at most one place in 16, but four."""

FLOOR = 0.1
"""The part of the random looks that is spread evenly: no scanner is trusted without end."""


class ScannerParams(Params):
    """Parameters of `Scanner`."""

    least: ClassVar[Words] = {"tile": "automatic", "sample": "none"}
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
        "correct the scanner and to say how sure the count is; of a small image no more than one "
        "in 16, but four; without any there is no interval",
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
        leaves, guess, n = scan.leaves, scan.guess, len(scan.leaves.patches)
        yield Show("estimate", guess.values.sum(axis=0), scene.region)

        # Of what is left to spend, the random looks come first: without them nothing is known of
        # how wrong the scanner is.
        closer = Closer(scene, leaves, guess, scan.left)
        pays = closer.affordable
        sample = min(params.sample, max(FEW, n // RARELY), pays) if params.sample else 0
        unsure = int(np.count_nonzero(guess.spread))
        flagged = min(round(params.share * n), pays - sample, unsure)
        score = guess.spread if params.flag == "uncertainty" else guess.values.sum(axis=1)
        chosen = np.argsort(-score, kind="stable")[:flagged]
        for start in range(0, flagged, ROUND):
            yield from closer.look(chosen[start : start + ROUND], score)
            total = closer.known + guess.values[closer.rest].sum(axis=0)
            yield Show("estimate", total, scene.region)
            if closer.stop:
                break
        found = None
        if sample and len(closer.rest) and not closer.stop:
            # Where the scanner failed nothing is guessed; a look there may say anything.
            closer.guess = replace(guess, spread=np.minimum(guess.spread, 1e6))
            rng = np.random.default_rng(scene.seed)
            found = yield from corrected(closer, closer.guess.spread, sample, rng, FLOOR)

        note = f"{len(closer.seen)} of {n} places seen closer"
        if scan.skipped:
            note += f", {scan.skipped} tiles of background skipped"
        if scan.failed:
            note += f"; the scanner failed on {scan.failed}"
        if found is not None:
            note += (
                f"; {found.drawn} of the others at random, by which the scanner's counts are "
                f"worth {float(found.factor.value.mean()):.2f} each"
            )
            return Answer(found.estimate, _sure(scene, found.interval), note)
        rest, known = closer.rest, float(closer.known.sum())
        off = closer.uncertain * known
        interval = None if len(rest) else _sure(scene, (known - off, known + off))
        return Answer(closer.known + guess.values[rest].sum(axis=0), interval, note)


def _sure(scene: Scene, interval: Interval) -> Interval | None:
    """Return an interval, unless probabilities were added up: they sum to 1 whatever was drawn."""
    return None if scene.main.card.task == "classification" else interval


@dataclass
class _Scan:
    """What the scanner said of the places that may be looked at closer."""

    leaves: Leaves
    guess: Guess  # its spread is infinite where it failed
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
    return _Scan(leaves, Guess(guess, np.sqrt(spread)), result.left, skipped, failed)


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


def _skips(scene: Scene, params: ScannerParams) -> bool:
    known = scene.main.card.input.pixel_size is not None
    return params.skip == "always" or (params.skip == "slides" and known)
