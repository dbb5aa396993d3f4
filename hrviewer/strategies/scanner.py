"""Lightweight scanner networks: a small model on every pixel, the main model where needed."""

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
    tile_option,
    tiles,
)

__all__ = ["Scanner", "ScannerParams"]

Floats = NDArray[np.float64]

OVERVIEW_DOWNSAMPLE = 32
"""Downsampling from native scale for the detection of background."""

SAMPLE_TILE = 128
"""Automatic side of a measured cell, in model pixels: smaller cells give a better estimate per
FLOP, larger ones per second."""

MIN_SAMPLES, PLACES_PER_SAMPLE = 4, 16
"""Random measurements on a small image: one cell in 16, but at least four."""

FLOOR = 0.1
"""Fraction of the random measurements that is drawn evenly, since any scanner may be wrong."""


class ScannerParams(Params):
    """Parameters of `Scanner`."""

    special_value_text: ClassVar[SpecialValueText] = {"tile": "automatic", "sample": "none"}
    skip: Literal["slides", "always", "never"] = Field(
        "slides",
        title="Skip background",
        description="Skip tiles without foreground; by default if the model's pixel size is known, "
        "as for microscope slides",
    )
    foreground: float = Field(
        0.02,
        gt=0,
        lt=1,
        title="Foreground",
        description="Tiles whose mean foreground probability is lower are skipped",
    )
    denser: int = Field(
        1,
        ge=1,
        le=8,
        title="Shifts",
        description="Number of shifts along each axis at which the scanner runs on every tile, for "
        "a map so many times as dense; 2 costs 4 times as much, 4 costs 16",
    )
    flag: Literal["uncertainty", "score"] = Field(
        "uncertainty",
        title="Select by",
        description="Criterion for measuring a cell with the main model: the scanner's uncertainty "
        "or its prediction; the same for a scanner without variances",
    )
    share: float = Field(
        0.2,
        ge=0,
        le=1,
        title="Selected share",
        description="Maximum fraction of the region that is measured with the main model; a budget "
        "may allow less",
    )
    sample: int = Field(
        32,
        ge=0,
        le=1024,
        title="Random samples",
        description="Number of other cells, drawn at random, that the main model measures to "
        "correct the scanner and to estimate the interval; on a small image one in 16, but at "
        "least 4; 0 gives no interval",
    )
    tile: int = tile_field(
        "Side of a measured cell, in pixels of the main model; 0 takes 128, or less if its tiles "
        "are smaller"
    )


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

    def plan(self, context: PlanContext, params: ScannerParams) -> Plan:
        """Skip background, scan, measure flagged cells, correct the others."""
        scan = yield from _scan(context, params)
        if isinstance(scan, Estimate):
            return scan
        grid, prediction, n = scan.grid, scan.prediction, len(scan.grid.patches)
        yield Publish("estimate", prediction.values.sum(axis=0), context.region)

        # Random measurements have priority in the remaining budget: without them the scanner's
        # error is unknown.
        sampler = TwoPhaseSampler(context, grid, prediction, scan.remaining)
        affordable = sampler.affordable
        sample = (
            min(params.sample, max(MIN_SAMPLES, n // PLACES_PER_SAMPLE), affordable)
            if params.sample
            else 0
        )
        uncertain = int(np.count_nonzero(prediction.spread))
        flagged = min(round(params.share * n), affordable - sample, uncertain)
        score = prediction.spread if params.flag == "uncertainty" else prediction.values.sum(axis=1)
        selected = np.argsort(-score, kind="stable")[:flagged]
        for start in range(0, flagged, BATCH_SIZE):
            yield from sampler.measure(selected[start : start + BATCH_SIZE], score)
            total = sampler.measured_total + prediction.values[sampler.unmeasured].sum(axis=0)
            yield Publish("estimate", total, context.region)
            if sampler.stop:
                break
        estimate = None
        if sample and len(sampler.unmeasured) and not sampler.stop:
            # Where the scanner failed there is no prediction, and its uncertainty is unlimited.
            sampler.prediction = replace(prediction, spread=np.minimum(prediction.spread, 1e6))
            rng = np.random.default_rng(context.seed)
            estimate = yield from regression_estimate(
                sampler, sampler.prediction.spread, sample, rng, FLOOR
            )

        note = f"{len(sampler.measured)} of {n} cells measured"
        if scan.skipped:
            note += f", {scan.skipped} tiles of background skipped"
        if scan.failed:
            note += f"; the scanner failed on {scan.failed}"
        if estimate is not None:
            note += (
                f"; {estimate.drawn} of the others at random, which correct the scanner's counts "
                f"by a factor of {float(estimate.factor.value.mean()):.2f}"
            )
            return Estimate(estimate.values, _valid_interval(context, estimate.interval), note)
        unmeasured, known = sampler.unmeasured, float(sampler.measured_total.sum())
        error = sampler.context_error * known
        interval = (
            None if len(unmeasured) else _valid_interval(context, (known - error, known + error))
        )
        return Estimate(
            sampler.measured_total + prediction.values[unmeasured].sum(axis=0), interval, note
        )


def _valid_interval(context: PlanContext, interval: Interval) -> Interval | None:
    """Return an interval, except for probabilities, whose sum is 1 for all draws."""
    return None if context.main.card.averaged else interval


@dataclass
class _Scan:
    """The scanner's prediction for the cells."""

    grid: SamplingGrid
    prediction: CoarsePrediction  # with infinite spread where the scanner failed
    remaining: float
    skipped: int
    failed: int


def _scan(
    context: PlanContext, params: ScannerParams
) -> Generator[Request, Response, _Scan | Estimate]:
    """Run the scanner on every tile that is not background."""
    tiling = build_grid(context, context.main.card.input.tile, math.inf)
    side = tile_option(context.main, params.tile) or min(SAMPLE_TILE, context.main.card.input.tile)
    grid = build_grid(context, side, math.inf)
    patches, k = tiling.patches, len(context.main.card.classes) or 1
    selected = np.ones(len(patches), bool)
    if _skips_background(context, params):
        foreground_model = context.models["@foreground"]
        response = Response()
        results: list[PatchResult] = []
        for batch in batches(
            tiles(
                foreground_model,
                context.region,
                snap_scale(context.native_scale * OVERVIEW_DOWNSAMPLE),
            )
        ):
            response = yield PatchRequest("@foreground", batch)
            results += response.results
        if response.stop:
            return Estimate(None, note="the budget ended before anything was scanned")
        # A failed patch must not count as background.
        any_failed = any(np.isnan(result.value).any() for result in results)
        cell = (foreground_model.stride * context.native_scale * OVERVIEW_DOWNSAMPLE) ** 2
        foreground = (
            resample_onto(results, tiling.ys, tiling.xs, context.rect).sum(axis=0).ravel() * cell
        )
        selected = (foreground > params.foreground * tiling.areas) | any_failed

    # The shifted scanner is another role.
    name = "scanner" if params.denser == 1 else f"scanner/{params.denser}"
    scanner, scale = context.models[name], context.scale_of("scanner")
    prediction, spread = np.zeros((len(grid.patches), k)), np.zeros(len(grid.patches))
    scanned: list[PatchTotal] = []
    failed = 0
    indices = np.flatnonzero(selected)
    response = Response(remaining=context.budget)
    for batch in batches([Patch(patches[i].core, scale, scanner.halo) for i in indices]):
        response = yield PatchRequest(name, batch, target="output")
        failed += _accumulate(context, grid, response.results, prediction, spread)
        scanned += PatchTotal.from_results(response.results)
        yield activation_map(scanned, patches)
        if response.stop:
            return Estimate(
                aggregate(scanner, scanned),
                note=f"the budget ended after {len(scanned)} of {len(indices)} tiles were "
                "scanned: the rest of the region was not processed",
            )
    skipped = len(selected) - len(indices)
    return _Scan(
        grid, CoarsePrediction(prediction, np.sqrt(spread)), response.remaining, skipped, failed
    )


def _accumulate(
    context: PlanContext,
    grid: SamplingGrid,
    results: Sequence[PatchResult],
    prediction: Floats,
    variance: Floats,
) -> int:
    """Add the predictions of scanned tiles to the cells in them; return how many tiles failed.

    Cells without a prediction are measured first: their variance is infinite.
    """
    k, failed = prediction.shape[1], 0
    additive = context.main.card.task in ("density", "detection")
    if additive:
        sums = resample_onto(results, grid.ys, grid.xs, context.rect)
        sums = sums.reshape(len(sums), -1)
        if len(sums) >= k:
            prediction += sums[:k].T
            variances = sums[k:] if len(sums) > k else sums
            variance += np.maximum(variances.sum(axis=0), 0)
    for result in results:
        is_invalid = bool(np.isnan(result.value).any())
        if additive and not is_invalid:
            continue
        inside = grid.cells_within(result.patch.core)
        if is_invalid:
            failed += 1
            variance[inside] = math.inf
            continue
        shares = grid.areas[inside] / result.patch.core.area
        prediction[inside] += np.outer(shares, cell_value(context, result.patch, result.value[:k]))
        variance[inside] += shares * np.maximum(result.value[k:] if len(result.value) > k
                                                else result.value, 0).sum()  # fmt: skip
    return failed


def _skips_background(context: PlanContext, params: ScannerParams) -> bool:
    known = context.main.card.input.pixel_size is not None
    return params.skip == "always" or (params.skip == "slides" and known)
