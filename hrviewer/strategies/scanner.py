"""Lightweight scanner networks: every pixel cheaply, the heavy network where it matters."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hrviewer.geometry import Patch, snap_scale
from hrviewer.strategies.base import Params, Strategy, tile_field
from hrviewer.strategies.protocol import Answer, Handle, Look, Plan, Result, Scene, Show
from hrviewer.strategies.survey.leaves import affordable, cut, gather
from hrviewer.strategies.survey.sampling import Survey
from hrviewer.strategies.tiling import ROUND, Told, aggregate, response, rounds, tiles

__all__ = ["Scanner", "ScannerParams"]

Floats = NDArray[np.float64]

OVERVIEW = 32
"""By how much, from native, the image is shrunk to find its background."""

DOUBT = 0.05
"""The least spread of a scanned tile's count: none is trusted without end."""


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
        0.3,
        ge=0,
        le=1,
        title="Look closer at",
        description="The part of the tiles that the main network sees at most; a budget may "
        "leave less",
    )
    sample: int = Field(
        16,
        ge=0,
        le=1024,
        title="Random looks",
        description="How many of the other tiles, drawn at random, the main network sees to "
        "correct the scanner and to say how sure the count is; without any there is no interval",
    )
    tile: int = tile_field(
        "Side of what a look answers for, in pixels of the main network; 0 takes the card's"
    )


class Scanner(Strategy):
    """The survey's LSN: a small network reads every pixel, the large one only what it flags.

    A fully convolutional scanner shares the work between overlapping windows (Lin et al.,
    *ScanNet*, WACV 2018). Tiles that it flags are seen by ``main``. The others keep its answer,
    corrected by what ``main`` says of some that are drawn at random, which also tells how sure
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
        side = params.tile or scene.main.card.input.tile
        leaves = cut(scene, side, math.inf)
        patches, k = leaves.patches, len(scene.main.card.classes) or 1
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
            found = gather(handles, leaves.ys, leaves.xs, scene.rect).sum(axis=0).ravel() * cell
            wanted = (found > params.foreground * leaves.areas) | blind

        # At every step between its own, too, it is another role.
        name = "scanner" if params.denser == 1 else f"scanner/{params.denser}"
        scanner, scale = scene.roles[name], scene.scale_of("scanner")
        scanned: list[Told] = []
        places = np.flatnonzero(wanted)
        result = Result(left=scene.budget)
        for asked in rounds([Patch(patches[i].core, scale, scanner.halo) for i in places]):
            result = yield Look(name, asked, into="output")
            scanned += Told.by(result.handles)
            yield response(scanned, patches)
            if result.stop:
                return Answer(
                    aggregate(scanner, scanned),
                    note=f"the budget ended after {len(scanned)} of {len(places)} tiles were "
                    "scanned: the rest of the region was not seen",
                )

        guess, spread = np.zeros((len(patches), k)), np.zeros(len(patches))
        for i, told in zip(places, scanned, strict=True):
            guess[i], spread[i] = _said(told, k)
        failed = int(np.isnan(guess).any(axis=1).sum())
        spread[np.isnan(guess).any(axis=1)] = math.inf  # looked at closer first of all
        guess = np.nan_to_num(guess)
        total = guess.sum(axis=0)
        yield Show("estimate", total, scene.region)

        # Of what is left to spend, the random looks come first: without them nothing is known of
        # how wrong the scanner is.
        pays = affordable(leaves, result.left)
        sample = min(params.sample, pays)
        share = round(params.share * len(patches))
        flagged = min(share, pays - sample, int(np.count_nonzero(spread)))
        score = spread if params.flag == "uncertainty" else guess.sum(axis=1)
        closer = np.argsort(-score, kind="stable")[:flagged]
        known = np.zeros(k)
        seen: list[Handle] = []
        for start in range(0, flagged, ROUND):
            chosen = closer[start : start + ROUND]
            result = yield Look(
                "main",
                tuple(patches[i] for i in chosen),
                into="output",
                scores=tuple(float(min(score[i], 1e300)) for i in chosen),
            )
            seen += result.handles
            for i, handle in zip(chosen, result.handles, strict=False):
                value = guess[i] if np.isnan(handle.value).any() else handle.value
                known, guess[i] = known + value, 0
                total = known + guess.sum(axis=0)
            yield Show("estimate", total, scene.region)
            if result.stop:
                break

        note = f"{len(seen)} of {len(patches)} tiles seen closer"
        if not wanted.all():
            note += f", {len(wanted) - len(places)} of background skipped"
        if failed:
            note += f"; the scanner failed on {failed}"
        left = np.setdiff1d(np.arange(len(patches)), closer[: len(seen)])
        if not len(left):
            return Answer(known, (float(known.sum()), float(known.sum())), note)
        rng = np.random.default_rng(scene.seed)
        rest = np.minimum(spread[left], 1e6) + DOUBT
        where = np.stack(np.divmod(left, leaves.shape[1]), axis=1)
        sample = 0 if result.stop else sample
        survey = Survey(guess[left], rest, sample, rng, known=known, where=where)
        if len(survey.order):
            drawn = left[survey.order]
            result = yield Look(
                "main",
                tuple(patches[i] for i in drawn),
                into="output",
                order="given",
                scores=tuple(float(x) for x in survey.p[survey.order]),
            )
            values = np.array([handle.value for handle in result.handles]).reshape(-1, k)
            whole = ~np.isnan(values).any(axis=1)
            # A look that failed says nothing; what was guessed there stands.
            survey.add(np.where(whole[:, None], values, guess[drawn[: len(values)]]))
            note += (
                f"; {survey.drawn} of the others at random, by which the scanner's counts are "
                f"worth {float(survey.factor.mean()):.2f} each"
            )
        return Answer(survey.estimate, survey.fixed, note)


def _skips(scene: Scene, params: ScannerParams) -> bool:
    known = scene.main.card.input.pixel_size is not None
    return params.skip == "always" or (params.skip == "slides" and known)


def _said(told: Told, k: int) -> tuple[Floats, float]:
    """Return a scanned tile's counts, ``(k,)``, and how unsure they are."""
    value = told.value[:k]
    variance = told.value[k:].sum() if len(told.value) > k else value.sum()
    return value, math.sqrt(max(float(variance), 0))
