"""Running the scanner on a region: its prediction for every cell that may be measured."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hrviewer.geometry import Patch, Rect
from hrviewer.models.accuracy import ASSUMED_ERROR
from hrviewer.strategies.estimation.aggregation import tile_answers
from hrviewer.strategies.estimation.foreground import find_foreground
from hrviewer.strategies.estimation.intervals import Interval
from hrviewer.strategies.estimation.sampling_grid import (
    SamplingGrid,
    build_grid,
    cell_value,
    resample_onto,
)
from hrviewer.strategies.estimation.tile_sample import MIN_COVERAGE, TileSample
from hrviewer.strategies.estimation.two_phase import (
    CoarsePrediction,
)
from hrviewer.strategies.protocol import (
    Estimate,
    ModelInfo,
    PatchRequest,
    PatchResult,
    PlanContext,
    Publish,
    Request,
    Response,
)
from hrviewer.strategies.scanner.params import ScannerParams
from hrviewer.strategies.tiling import (
    PatchTotal,
    activation_map,
    batches,
    patch_flops,
    tile_option,
)

__all__ = ["MIN_SAMPLES", "PLACES_PER_SAMPLE", "Scan", "run_scan"]

Floats = NDArray[np.float64]

SAMPLE_TILE = 128
"""Automatic side of a measured cell, in model pixels: smaller cells give a better estimate per
FLOP, larger ones per second."""

MIN_SAMPLES, PLACES_PER_SAMPLE = 4, 16
"""Random measurements on a small image: one cell in 16, but at least four."""


@dataclass
class Scan:
    """The scanner's prediction for the cells of the scanned tiles.

    Attributes
    ----------
    grid, prediction
        The cells, and the prediction for each, with infinite spread where the scanner failed.
    sample : TileSample
        The tiles that are not background, in the order of scanning.
    done : int
        Number of scanned tiles.
    tile_of : ndarray of int, shape (n,)
        Number of the scanned tile that each cell lies in.
    remaining, stop
        The budget.
    skipped, failed : int
        Tiles of background, and tiles on which the scanner failed.
    coverage : float
        Fraction of the region that was scanned, or is background.
    """

    region: Rect
    grid: SamplingGrid
    prediction: CoarsePrediction
    sample: TileSample
    done: int
    tile_of: NDArray[np.intp]
    remaining: float
    stop: bool
    skipped: int
    failed: int
    coverage: float

    @property
    def is_whole(self) -> bool:
        """Whether every tile was scanned."""
        return self.done == len(self.sample.tiles)

    def publish(self, cells: Floats) -> Generator[Request, Response, None]:
        """Publish the estimate so far from the values of cells."""
        values = cells.sum(axis=0) if self.is_whole else self.expand(cells, None)[0]
        if values is not None:
            yield Publish("estimate", values, self.region)

    def expand(
        self, cells: Floats, interval: Interval | None
    ) -> tuple[Floats | None, Interval | None]:
        """Return the estimate for the region from a sample of its tiles, with its interval.

        Parameters
        ----------
        cells : ndarray, shape (n, k)
            Values of the cells; NaN where one is missing.
        interval : tuple of float, optional
            95 % interval of their sum, due to cells that were not measured; it is independent of
            the choice of the tiles.
        """
        totals = self._tile_totals(cells)
        estimator = self.sample.estimator(totals)
        values, part = estimator.total, float(np.nansum(totals))
        outer, total = estimator.total_interval(), float(values.sum())
        if outer is None or interval is None or part <= 0:
            return (None if estimator.coverage < MIN_COVERAGE else values), None
        scale = total / part
        below = math.hypot(total - outer[0], scale * max(part - interval[0], 0.0))
        above = math.hypot(outer[1] - total, scale * max(interval[1] - part, 0.0))
        return values, (max(total - below, 0.0), total + above)

    def expand_shares(
        self, cells: Floats, part: Floats, intervals: Floats | None
    ) -> tuple[Floats, Floats | None]:
        """Return the shares of all tiles from a sample of them, with their intervals.

        Parameters
        ----------
        cells : ndarray, shape (n, k)
            Amounts of the cells, over the sum of their sizes.
        part : ndarray, shape (k,)
            Shares of the sample of tiles.
        intervals : ndarray, shape (k, 2), optional
            Their 95 % intervals.
        """
        totals = self._tile_totals(cells)
        scanned = self.sample.sizes(self.done).sum()
        estimator = self.sample.estimator(totals * scanned)
        values, outer = estimator.ratio, estimator.share_intervals()
        if intervals is None:
            return values, None
        below = np.hypot(values - outer[:, 0], np.maximum(part - intervals[:, 0], 0))
        above = np.hypot(outer[:, 1] - values, np.maximum(intervals[:, 1] - part, 0))
        return values, np.stack([values - below, values + above], axis=1)

    def _tile_totals(self, cells: Floats) -> Floats:
        """Sum the values of cells over the scanned tiles, ``(done, k)``."""
        totals = np.zeros((self.done, cells.shape[1]))
        inside = self.tile_of >= 0  # others are background
        np.add.at(totals, self.tile_of[inside], cells[inside])
        return totals


def run_scan(
    context: PlanContext, params: ScannerParams, *, paint: bool = True
) -> Generator[Request, Response, Scan | Estimate]:
    """Run the scanner on every tile that is not background, or on a sample of them.

    Parameters
    ----------
    context, params
        Of the region to scan.
    paint : bool
        Whether its predictions are painted and published: it is part of the estimate's region.
    """
    tiling = build_grid(context, context.main.card.input.tile, math.inf)
    selected, remaining = np.ones(len(tiling.patches), bool), context.budget
    if _skips_background(context, params):
        found = yield from find_foreground(context, tiling.patches, params.foreground)
        if found is None:
            return Estimate(None, note="the budget ended before anything was scanned")
        selected, remaining = found
    # The shifted scanner is another role.
    name = "scanner" if params.denser == 1 else f"scanner/{params.denser}"
    scanner, scale = context.models[name], context.scale_of("scanner")
    k = len(context.main.card.classes) or 1
    todo = [Patch(tiling.patches[i].core, scale, scanner.halo) for i in np.flatnonzero(selected)]
    skipped = len(selected) - len(todo)
    if not todo:
        nothing = None if context.main.card.has_shares else np.zeros(k)
        return Estimate(nothing, note=f"all {skipped} tiles are background", coverage=1.0)
    side = tile_option(context.main, params.tile) or min(SAMPLE_TILE, context.main.card.input.tile)
    grid = build_grid(context, side, math.inf)
    sample, count = _sample_tiles(context, params, grid, todo, scanner, remaining)
    if count < len(todo) and tiling.cell % grid.cell:
        grid = tiling  # every cell lies in one tile

    prediction, spread = np.zeros((len(grid.patches), k)), np.zeros(len(grid.patches))
    scanned: list[PatchTotal] = []
    failed = 0
    response = Response(remaining=remaining)
    for batch in batches(sample.tiles[:count]):
        response = yield PatchRequest(name, batch, target="output" if paint else None)
        failed += _accumulate(context, params, grid, response.results, prediction, spread)
        scanned += PatchTotal.from_results(response.results, scanner)
        if paint:
            yield activation_map(scanned, tiling.patches, scanner.card)
        if response.stop:
            break
    done = len(scanned)
    tile_of = _tile_of_cells(grid, tiling, sample.tiles[:done])
    area = sum(float(total.patch.core.area) for total in scanned if np.isfinite(total.value).all())
    area += float(tiling.areas[~selected].sum())
    if done < len(todo) or context.main.card.has_shares:  # shares are of the foreground
        kept = np.flatnonzero(tile_of >= 0)
        grid = replace(grid, patches=tuple(grid.patches[i] for i in kept))
        prediction, spread, tile_of = prediction[kept], spread[kept], tile_of[kept]
    error = context.prediction_error("scanner") or ASSUMED_ERROR
    return Scan(
        context.region,
        grid,
        CoarsePrediction(prediction, np.sqrt(spread), error=error),
        sample,
        done,
        tile_of,
        response.remaining,
        response.stop,
        skipped,
        failed,
        area / context.region.area,
    )


def _sample_tiles(
    context: PlanContext,
    params: ScannerParams,
    grid: SamplingGrid,
    todo: Sequence[Patch],
    scanner: ModelInfo,
    remaining: float,
) -> tuple[TileSample, int]:
    """Return the tiles to scan, and how many of them.

    A budget that does not pay for all tiles, and a few measurements, is spent on a random sample of
    them: there, as much is scanned and measured as elsewhere without a budget.
    """
    costs = patch_flops(scanner, todo, context.rect)
    reserve = MIN_SAMPLES * grid.max_cost if params.sample else 0.0
    sample = TileSample(context, todo, costs, remaining - reserve)
    if sample.whole:
        return sample, len(todo)
    share = min(1.0, params.share + (1 / PLACES_PER_SAMPLE if params.sample else 0.0))
    measuring = share * grid.max_cost / grid.cell**2
    full = [c + measuring * tile.core.area for c, tile in zip(costs, todo, strict=True)]
    sample = TileSample(context, todo, full, min(remaining, math.fsum(full) * (1 - 1e-6)))
    return sample, max(1, sample.planned)


def _tile_of_cells(
    grid: SamplingGrid, tiling: SamplingGrid, scanned: Sequence[Patch]
) -> NDArray[np.intp]:
    """Return the number of the scanned tile in which the middle of each cell lies; else -1."""
    row, column = (
        np.searchsorted(edges, (cells[:-1] + cells[1:]) // 2, "right") - 1
        for cells, edges in ((grid.ys, tiling.ys), (grid.xs, tiling.xs))
    )
    numbers = {tile.core: number for number, tile in enumerate(scanned)}
    number_of = np.array([numbers.get(tile.core, -1) for tile in tiling.patches])
    return np.asarray(number_of[(row[:, None] * tiling.shape[1] + column).ravel()])


def _accumulate(
    context: PlanContext,
    params: ScannerParams,
    grid: SamplingGrid,
    results: Sequence[PatchResult],
    prediction: Floats,
    variance: Floats,
) -> int:
    """Add the predictions of scanned tiles to the cells in them; return how many tiles failed.

    Cells without a prediction are measured first: their variance is infinite.
    """
    k, failed = prediction.shape[1], 0
    additive = context.main.card.counts
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
            if context.main.card.has_shares:
                prediction[inside] = np.nan
            continue
        shares = grid.areas[inside] / result.patch.core.area
        value = cell_value(context, result.patch, result.value[:k])
        answer = tile_answers(context.main.card, result.value[:k], params.aggregation)
        prediction[inside] += np.outer(shares, cell_value(context, result.patch, answer))
        if context.main.card.has_shares:
            # Of shares the sum is known: the variance is that between classes.
            parts = np.clip(value / max(float(value.sum()), 1e-12), 0, 1)
            variance[inside] += shares * float((parts * (1 - parts)).sum())
            continue
        variance[inside] += shares * np.maximum(result.value[k:] if len(result.value) > k
                                                else result.value, 0).sum()  # fmt: skip
    return failed


def _skips_background(context: PlanContext, params: ScannerParams) -> bool:
    known = context.main.card.input.pixel_size is not None
    return params.skip == "always" or (params.skip == "slides" and known)
