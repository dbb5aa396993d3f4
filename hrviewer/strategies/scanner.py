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
from hrviewer.strategies.base import Params, SpecialValueText, Strategy, tile_field
from hrviewer.strategies.estimation.intervals import Interval
from hrviewer.strategies.estimation.sampling_grid import (
    SamplingGrid,
    build_grid,
    cell_value,
    resample_onto,
)
from hrviewer.strategies.estimation.two_phase import (
    CoarsePrediction,
    TwoPhaseSampler,
    regression_estimate,
)
from hrviewer.strategies.protocol import (
    Estimate,
    PatchRequest,
    PatchResult,
    Plan,
    PlanContext,
    Publish,
    Request,
    Response,
)
from hrviewer.strategies.tiling import (
    BATCH_SIZE,
    PatchTotal,
    activation_map,
    aggregate,
    batches,
    tiles,
)

__all__ = ["Scanner", "ScannerParams"]

Floats = NDArray[np.float64]

OVERVIEW_DOWNSAMPLE = 32
"""By how much, from native, the image is shrunk to find its background."""

SAMPLE_TILE = 128
"""Side of a closer look, network pixels, where the person does not say: smaller ones tell more for
their FLOPs, and less for their seconds."""

MIN_SAMPLES, PLACES_PER_SAMPLE = 4, 16
"""Random looks: of a small image at most one place in 16, but four."""

FLOOR = 0.1
"""The part of the random looks that is spread evenly: no scanner is trusted without end."""


class ScannerParams(Params):
    """Parameters of `Scanner`."""

    special_value_text: ClassVar[SpecialValueText] = {"tile": "automatic", "sample": "none"}
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

    def plan(self, context: PlanContext, params: ScannerParams) -> Plan:
        """Skip, scan, look closer, correct."""
        scan = yield from _scan(context, params)
        if isinstance(scan, Estimate):
            return scan
        leaves, guess, n = scan.grid, scan.prediction, len(scan.grid.patches)
        yield Publish("estimate", guess.values.sum(axis=0), context.region)

        # Of what is left to spend, the random looks come first: without them nothing is known of
        # how wrong the scanner is.
        closer = TwoPhaseSampler(context, leaves, guess, scan.remaining)
        pays = closer.affordable
        sample = (
            min(params.sample, max(MIN_SAMPLES, n // PLACES_PER_SAMPLE), pays)
            if params.sample
            else 0
        )
        unsure = int(np.count_nonzero(guess.spread))
        flagged = min(round(params.share * n), pays - sample, unsure)
        score = guess.spread if params.flag == "uncertainty" else guess.values.sum(axis=1)
        chosen = np.argsort(-score, kind="stable")[:flagged]
        for start in range(0, flagged, BATCH_SIZE):
            yield from closer.measure(chosen[start : start + BATCH_SIZE], score)
            total = closer.measured_total + guess.values[closer.unmeasured].sum(axis=0)
            yield Publish("estimate", total, context.region)
            if closer.stop:
                break
        found = None
        if sample and len(closer.unmeasured) and not closer.stop:
            # Where the scanner failed nothing is guessed; a look there may say anything.
            closer.prediction = replace(guess, spread=np.minimum(guess.spread, 1e6))
            rng = np.random.default_rng(context.seed)
            found = yield from regression_estimate(
                closer, closer.prediction.spread, sample, rng, FLOOR
            )

        note = f"{len(closer.measured)} of {n} places seen closer"
        if scan.skipped:
            note += f", {scan.skipped} tiles of background skipped"
        if scan.failed:
            note += f"; the scanner failed on {scan.failed}"
        if found is not None:
            note += (
                f"; {found.drawn} of the others at random, by which the scanner's counts are "
                f"worth {float(found.factor.value.mean()):.2f} each"
            )
            return Estimate(found.values, _valid_interval(context, found.interval), note)
        rest, known = closer.unmeasured, float(closer.measured_total.sum())
        off = closer.context_error * known
        interval = None if len(rest) else _valid_interval(context, (known - off, known + off))
        return Estimate(closer.measured_total + guess.values[rest].sum(axis=0), interval, note)


def _valid_interval(scene: PlanContext, interval: Interval) -> Interval | None:
    """Return an interval, unless probabilities were added up: they sum to 1 whatever was drawn."""
    return None if scene.main.card.task == "classification" else interval


@dataclass
class _Scan:
    """What the scanner said of the places that may be looked at closer."""

    grid: SamplingGrid
    prediction: CoarsePrediction  # its spread is infinite where it failed
    remaining: float
    skipped: int
    failed: int


def _scan(
    scene: PlanContext, params: ScannerParams
) -> Generator[Request, Response, _Scan | Estimate]:
    """Read every tile that is not background."""
    tiling = build_grid(scene, scene.main.card.input.tile, math.inf)
    side = params.tile or min(SAMPLE_TILE, scene.main.card.input.tile)
    leaves = build_grid(scene, side, math.inf)
    patches, k = tiling.patches, len(scene.main.card.classes) or 1
    wanted = np.ones(len(patches), bool)
    if _skips_background(scene, params):
        role = scene.models["@foreground"]
        result = Response()
        handles: list[PatchResult] = []
        for asked in batches(
            tiles(role, scene.region, snap_scale(scene.native_scale * OVERVIEW_DOWNSAMPLE))
        ):
            result = yield PatchRequest("@foreground", asked)
            handles += result.results
        if result.stop:
            return Estimate(None, note="the budget ended before anything was scanned")
        # A glance that failed must not pass for background.
        blind = any(np.isnan(handle.value).any() for handle in handles)
        cell = (role.stride * scene.native_scale * OVERVIEW_DOWNSAMPLE) ** 2
        found = resample_onto(handles, tiling.ys, tiling.xs, scene.rect).sum(axis=0).ravel() * cell
        wanted = (found > params.foreground * tiling.areas) | blind

    # At every step between its own, too, it is another role.
    name = "scanner" if params.denser == 1 else f"scanner/{params.denser}"
    scanner, scale = scene.models[name], scene.scale_of("scanner")
    guess, spread = np.zeros((len(leaves.patches), k)), np.zeros(len(leaves.patches))
    scanned: list[PatchTotal] = []
    failed = 0
    places = np.flatnonzero(wanted)
    result = Response(remaining=scene.budget)
    for asked in batches([Patch(patches[i].core, scale, scanner.halo) for i in places]):
        result = yield PatchRequest(name, asked, target="output")
        failed += _accumulate(scene, leaves, result.results, guess, spread)
        scanned += PatchTotal.from_results(result.results)
        yield activation_map(scanned, patches)
        if result.stop:
            return Estimate(
                aggregate(scanner, scanned),
                note=f"the budget ended after {len(scanned)} of {len(places)} tiles were "
                "scanned: the rest of the region was not seen",
            )
    skipped = len(wanted) - len(places)
    return _Scan(
        leaves, CoarsePrediction(guess, np.sqrt(spread)), result.remaining, skipped, failed
    )


def _accumulate(
    scene: PlanContext,
    leaves: SamplingGrid,
    handles: Sequence[PatchResult],
    guess: Floats,
    variance: Floats,
) -> int:
    """Add what scanned tiles hold to the leaves in them; return how many tiles failed.

    A leaf that nothing is known of is looked at closer first of all: its variance is infinite.
    """
    k, failed = guess.shape[1], 0
    additive = scene.main.card.task in ("density", "detection")
    if additive:
        sums = resample_onto(handles, leaves.ys, leaves.xs, scene.rect)
        sums = sums.reshape(len(sums), -1)
        if len(sums) >= k:
            guess += sums[:k].T
            doubt = sums[k:] if len(sums) > k else sums
            variance += np.maximum(doubt.sum(axis=0), 0)
    for handle in handles:
        broken = bool(np.isnan(handle.value).any())
        if additive and not broken:
            continue
        inside = leaves.cells_within(handle.patch.core)
        if broken:
            failed += 1
            variance[inside] = math.inf
            continue
        shares = leaves.areas[inside] / handle.patch.core.area
        guess[inside] += np.outer(shares, cell_value(scene, handle.patch, handle.value[:k]))
        variance[inside] += shares * np.maximum(handle.value[k:] if len(handle.value) > k
                                                else handle.value, 0).sum()  # fmt: skip
    return failed


def _skips_background(scene: PlanContext, params: ScannerParams) -> bool:
    known = scene.main.card.input.pixel_size is not None
    return params.skip == "always" or (params.skip == "slides" and known)
