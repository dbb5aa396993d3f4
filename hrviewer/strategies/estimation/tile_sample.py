"""Tiles in the order to process them: the whole region, or a stratified random sample of it.

A budget that does not pay for all tiles, or a limit of seconds that may end before the last, is
spent on tiles from all parts of the region, so that the result is an estimate for the whole. It
is estimated in the same way where tiles failed, or a run was stopped.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hrviewer.geometry import Patch, Rect
from hrviewer.models.attention_pooling import combine_parts
from hrviewer.strategies.estimation.aggregation import Aggregation, maximum, tile_answers
from hrviewer.strategies.estimation.intervals import Interval
from hrviewer.strategies.estimation.stratified import (
    MIN_PLACES,
    StratifiedEstimator,
    stratified_order,
)
from hrviewer.strategies.protocol import (
    Estimate,
    ModelInfo,
    PlanContext,
    Publish,
    Request,
    Response,
)
from hrviewer.strategies.tiling import PatchTotal, aggregate, tile_edges

__all__ = ["MIN_COVERAGE", "TileSample", "affords", "sample_squares", "scaled_to_region"]

Floats = NDArray[np.float64]

MIN_COVERAGE = 0.5
"""Fraction of the region from which a total is estimated also without an interval."""

MAX_PLANNED_SHARE = 0.5
"""Share of a limit of seconds up to which it is taken to be enough for all tiles."""


@dataclass(frozen=True)
class _Expanded:
    """An estimate for the whole region, as far as the tiles bear one."""

    values: Floats | None
    interval: Interval | None = None
    class_intervals: Floats | None = None
    certain: bool = False


def sample_squares(region: Rect, side: int, n: int, seed: int) -> list[Rect]:
    """Return squares that stand for a large region: a stratified random sample.

    Parameters
    ----------
    region : Rect
        A region no larger than the squares together stands for itself.
    side, n : int
        Side of the squares, level-0 pixels, and their number.
    seed : int
        Seed of the draw.
    """
    if region.area <= n * side**2:
        return [region]
    ys, xs = (
        tile_edges(start, start + length, side, side)
        for start, length in ((region.y, region.h), (region.x, region.w))
    )
    places = np.argwhere(np.ones((len(ys) - 1, len(xs) - 1), bool))
    drawn = stratified_order(places, n, np.random.default_rng(seed)).order[:n]
    return [
        Rect(ys[i], xs[j], ys[i + 1] - ys[i], xs[j + 1] - xs[j]) for i, j in places[sorted(drawn)]
    ]


def affords(context: PlanContext, flops: float, budget: float | None = None) -> bool:
    """Return whether a budget, the context's by default, pays for so many FLOPs.

    A limit of seconds pays for half of those that are expected: the clock may run faster.
    """
    timed = math.isfinite(context.seconds)
    limit = context.budget if budget is None else budget
    return flops <= limit * (MAX_PLANNED_SHARE if timed else 1) * (1 + 1e-9)


class TileSample:
    """Tiles of a region, in the order to process them.

    Parameters
    ----------
    context : PlanContext
        Region, seed and budget.
    tiles : sequence of Patch
        All tiles, in reading order.
    costs : sequence of float
        FLOPs of each.
    budget : float, optional
        FLOPs for the tiles; the context's by default.
    aggregation : {"mean", "majority", "maximum"}
        See `aggregation_field`.

    Attributes
    ----------
    whole : bool
        Whether the budget pays for all tiles; then they are in reading order.
    tiles : tuple of Patch
        All tiles; if not `whole`, every beginning is a stratified random sample.
    planned : int
        Number of tiles that the budget pays for.
    """

    def __init__(
        self,
        context: PlanContext,
        tiles: Sequence[Patch],
        costs: Sequence[float],
        budget: float | None = None,
        *,
        aggregation: Aggregation = "mean",
    ) -> None:
        self._aggregation: Aggregation = aggregation
        budget = context.budget if budget is None else budget
        counting = context.counting_areas([tile.core for tile in tiles])
        paid = np.where(counting > 0, costs, 0.0)
        sizes = np.array([float((tile.core & context.region).area) for tile in tiles])
        total = math.fsum(paid)
        self.whole = affords(context, total, budget)
        if not context.main.card.averaged and not self.whole:
            # Nothing counts in the other tiles: none of them is drawn. Means are over all tiles.
            kept = np.flatnonzero(counting)
            tiles, paid, sizes = [tiles[int(i)] for i in kept], paid[kept], counting[kept]
        n = len(tiles)
        expected = n if total <= budget else int(budget / total * n)
        rows, columns = (
            np.unique(edges, return_inverse=True)[1]
            for edges in ([tile.core.y for tile in tiles], [tile.core.x for tile in tiles])
        )
        region = context.region
        rng = np.random.default_rng([context.seed, region.y, region.x, region.h, region.w])
        drawn = stratified_order(np.stack([rows, columns], axis=1), expected, rng)
        self._order = np.arange(n) if self.whole else drawn.order
        self._stratum, self._region = drawn.stratum, region
        self._sizes = sizes
        self.tiles = tuple(tiles[i] for i in self._order)
        spent = np.cumsum(paid[self._order])
        self.planned = n if total <= budget else int(np.searchsorted(spent, budget * (1 + 1e-9)))

    @property
    def in_reading_order(self) -> list[Patch]:
        """All tiles in reading order."""
        return [self.tiles[i] for i in np.argsort(self._order)]

    @property
    def area(self) -> float:
        """Area of all tiles in level-0 pixels."""
        return float(self._sizes.sum())

    def sizes(self, n: int) -> Floats:
        """Return the areas of the first `n` tiles in level-0 pixels."""
        return self._sizes[self._order[:n]]

    def estimator(self, values: Floats) -> StratifiedEstimator:
        """Return the estimator from the values ``(m, k)`` of the first tiles, NaN of failed ones.

        Where all tiles were to be processed, those that are missing are not a random choice: they
        count as failed.
        """
        drawn = self._order[: len(values)]
        if self.whole:
            padded = np.full((len(self._order), values.shape[1]), np.nan)
            padded[: len(values)] = values
            drawn, values = self._order, padded
        return StratifiedEstimator(values, drawn, self._sizes, self._stratum)

    def estimate(self, model: ModelInfo, totals: Sequence[PatchTotal]) -> Estimate:
        """Return the estimate for the whole region from the first tiles.

        Parameters
        ----------
        model : ModelInfo
            The answering model.
        totals : sequence of PatchTotal
            Of the first tiles, in order.

        Returns
        -------
        Estimate
            Without values where there are too few tiles for an estimate.
        """
        expanded = self._expand(model, totals)
        return Estimate(
            expanded.values,
            expanded.interval,
            self.note(len(totals), expanded.values),
            class_intervals=expanded.class_intervals,
            certain=expanded.certain,
        )

    def publish(
        self, model: ModelInfo, totals: Sequence[PatchTotal], *, with_interval: bool = True
    ) -> Generator[Request, Response, None]:
        """Publish the estimate so far, if there is one."""
        found = self._expand(model, totals)
        if found.values is not None:
            interval, class_intervals = found.interval, found.class_intervals
            if not with_interval:
                interval = class_intervals = None
            yield Publish("estimate", found.values, self._region, interval, class_intervals)

    def note(self, n: int, values: Floats | None) -> str:
        """Return a note for the user if only some tiles were processed."""
        if n == len(self.tiles):
            return ""
        part = f"{n:,} of {len(self.tiles):,} tiles were processed"
        if not self.whole:
            part += ", drawn at random from all parts of the region"
        if values is None:
            return f"{part}: too few for an estimate, raise the budget"
        if self._aggregation == "maximum":
            return f"{part}; the maximum is of these alone: another tile may have a higher one"
        return f"{part}; the estimate is for the whole region"

    def _expand(self, model: ModelInfo, totals: Sequence[PatchTotal]) -> _Expanded:
        card = model.card
        if not totals or card.task in ("embedding", "saliency"):
            return _Expanded(None)
        values = np.stack([total.value for total in totals])[:, : card.output_channels]
        valid: NDArray[np.bool_] = np.asarray(np.isfinite(values).all(axis=1))
        complete = bool(valid.all()) and len(totals) == len(self.tiles)
        if self._aggregation == "maximum":
            highest = maximum(values, complete=complete)
            return (
                _Expanded(None)
                if highest is None
                else _Expanded(highest[0], None, highest[1], True)
            )
        if complete and self._aggregation == "mean":
            reading = np.argsort(self._order)
            return _Expanded(aggregate(model, [totals[i] for i in reading]))
        if card.output.attention:
            return self._pooled(values, valid)
        values = values[:, : card.prediction_channels]
        if not card.has_shares:
            sample = self.estimator(values)
            return bearable(sample, sample.total, sample.total_interval())
        if not valid.any():
            return _Expanded(None)
        if not card.averaged:  # areas
            sample = self.estimator(values)
            return _Expanded(sample.total, class_intervals=sample.share_intervals() * self.area)
        values = tile_answers(card, values, self._aggregation)
        sample = self.estimator(values * self.sizes(len(values))[:, None])
        if card.task != "regression":
            return _Expanded(sample.ratio, class_intervals=sample.share_intervals())
        intervals = sample.mean_intervals()
        if intervals is None and sample.coverage < MIN_COVERAGE:
            return _Expanded(None)
        return _Expanded(sample.ratio, class_intervals=intervals)

    def _pooled(self, values: Floats, valid: NDArray[np.bool_]) -> _Expanded:
        """Pool the predictions by the model's attention, each tile for those that it stands for."""
        drawn = self._order[: len(values)]
        stratum = self._stratum[drawn[valid]]
        measured = np.bincount(stratum, minlength=int(self._stratum.max()) + 1)
        parts = values[valid]
        parts[:, -1] += np.log((np.bincount(self._stratum) / np.maximum(measured, 1))[stratum])
        coverage = self._sizes[drawn[valid]].sum() / self._sizes.sum()
        if len(parts) < MIN_PLACES and coverage < MIN_COVERAGE:
            return _Expanded(None)
        return _Expanded(combine_parts(parts))


def bearable(sample: StratifiedEstimator, values: Floats, interval: Interval | None) -> _Expanded:
    """Return an estimate, unless it has no interval and most of the region is missing."""
    if interval is None and sample.coverage < MIN_COVERAGE:
        return _Expanded(None)
    return _Expanded(values, interval)


def scaled_to_region(
    model: ModelInfo, values: Floats | None, covered: float, region: Rect
) -> Floats | None:
    """Return a total scaled from the covered area to the region; None if most of it is missing."""
    if values is None or covered < MIN_COVERAGE * region.area:
        return None
    return values if model.card.averaged else values * (region.area / covered)
