"""High-resolution vision transformers: adaptive tokens, merged if similar, with context."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hrviewer.errors import ModelError
from hrviewer.geometry import Rect
from hrviewer.strategies.base import Params, SpecialValueText, Strategy, VisibleIf
from hrviewer.strategies.estimation.coarse_pass import (
    run_over_region,
    scout_predicts_counts,
    scout_scale,
)
from hrviewer.strategies.estimation.sampling_grid import resample_onto
from hrviewer.strategies.estimation.stand_in import StandIn
from hrviewer.strategies.estimation.tile_sample import scaled_to_region
from hrviewer.strategies.estimation.two_phase import RegressionEstimate
from hrviewer.strategies.protocol import (
    Estimate,
    PatchResult,
    Plan,
    PlanContext,
    Publish,
    Request,
    Response,
)
from hrviewer.strategies.transformer.check import TokenCheck
from hrviewer.strategies.transformer.regions import (
    CostFunction,
    Refiner,
    TokenRegion,
    context_patches,
    results_by_region,
    token_request,
)
from hrviewer.strategies.transformer.tokens import BASE, COARSEST, Forest, TokenGrid

__all__ = ["Transformer", "TransformerParams"]

BATCH_TOKENS = 2048
"""Tokens per request, unless a region has more: a killed run loses at most so many."""

OBJECTS_PER_TOKEN = 0.3
"""Tokens are split if the scout predicts more objects in them than this."""

USABLE_SHARE = 0.99
"""Fraction of the budget for which tokens are selected: their costs are interpolated."""


class TransformerParams(Params):
    """Parameters of `Transformer`."""

    visible_if: ClassVar[VisibleIf] = {
        "threshold": ("detail", ("scout", "entropy")),
        "tokens": ("detail", ("scout", "entropy")),
    }
    special_value_text: ClassVar[SpecialValueText] = {
        "threshold": "automatic",
        "merge": "none",
        "context": "none",
        "check": "none",
    }
    detail: Literal["scout", "entropy", "uniform"] = Field(
        "scout",
        title="Detail",
        description="What decides where tokens are small: the scout's prediction, the entropy of "
        "the grey levels, or nothing, for a uniform grid",
    )
    threshold: float = Field(
        0.0,
        ge=0,
        le=1e6,
        title="Split above",
        description="Tokens with more than this are split: objects predicted by the scout, or bits "
        f"of entropy; 0 takes {OBJECTS_PER_TOKEN} objects, or splits as many as the tokens allow",
    )
    tokens: float = Field(
        0.4,
        gt=0,
        le=1,
        title="Tokens",
        description="Maximum number of tokens, over that of the uniform grid; a budget may allow "
        "fewer",
    )
    finest: Literal[16, 32, 64, 128] = Field(
        16,
        title="Finest",
        description="Side of the smallest tokens, and of a uniform grid's, in model pixels",
    )
    merge: float = Field(
        0.0,
        ge=0,
        le=0.5,
        title="Merge",
        description="Fraction of tokens that each layer merges with similar ones (ToMe)",
    )
    context: int = Field(
        2,
        ge=0,
        le=6,
        title="Context",
        description="Number of context rings of eight squares around each region; each ring is 3 "
        "times coarser than the one inside",
    )
    check: int = Field(
        32,
        ge=0,
        le=1024,
        title="Checked cells",
        description="Number of cells of 128 pixels, drawn at random, that the main model measures "
        "for the interval; on a small image one in 16, but at least 4, and for at most 30 % of a "
        "budget; 0 gives the interval of the model card, if it has one",
    )


class Transformer(Strategy):
    """The survey's HR-ViT: tokens where there is detail, few elsewhere, and wide context.

    Squares of 16 to 128 pixels, all resampled to 16 × 16, are the tokens of a transformer that
    predicts a value for each. The tokens of a region of 512 pixels attend to each other and to
    increasingly coarse squares around it, so that the cost is linear in the image's area.
    """

    id: ClassVar[str] = "transformer"
    title: ClassVar[str] = "High-resolution transformer"
    family: ClassVar[str] = "HR-ViT"
    when: ClassVar[str] = "Detail and context together: small tokens where there is detail"
    Params: ClassVar[type[Params]] = TransformerParams
    roles: ClassVar[tuple[str, ...]] = ("main", "scout", "transformer")

    def as_part(
        self, context: PlanContext, whole: PlanContext, params: TransformerParams
    ) -> tuple[PlanContext, TransformerParams]:
        """Return parameters without a check, which does not change the count."""
        return context, params.model_copy(update={"check": 0})

    def plan(self, context: PlanContext, params: TransformerParams) -> Plan:
        """Select tokens by detail, then run the transformer on regions of them."""
        model, main = context.models["transformer"], context.main.card
        if model.token_flops is None or model.card.classes != main.classes:
            raise ModelError(
                f"{model.card.name!r} does not predict the classes of {main.name!r} for tokens: "
                "choose another model bundle"
            )
        if model.card.averaged:
            raise ModelError(
                f"the transformer adds up the predictions of its tokens, and {model.card.name!r} "
                f"has the task {model.card.task}, of which there are means only: choose patches, "
                "uniform, zoom or nonuniform"
            )
        grid = TokenGrid(context.region, context.scale_of("transformer"))
        plan = yield from _plan_tokens(context, params, grid)
        if plan.stop:
            return Estimate(None, note="the budget ended before there were tokens: raise it")
        uniform_count = grid.count(params.finest)
        max_tokens = max(grid.count(COARSEST), int(params.tokens * uniform_count))
        counts_objects = main.task == model.card.task == "density"
        check = (
            TokenCheck(context, params.check, plan.remaining)
            if params.check and counts_objects
            else None
        )
        cost, threshold = _cost_function(model.token_flops, params), -1.0
        remaining = (plan.remaining - (check.cost if check else 0.0)) * USABLE_SHARE
        if params.detail != "uniform":
            minimum = params.threshold or plan.threshold
            threshold = plan.forest.affordable(minimum, max_tokens, cost, remaining)
        counts = plan.forest.counts(threshold)
        k, side = model.card.prediction_channels, model.card.input.tile
        refiner = Refiner(
            grid,
            k,
            params.finest,
            plan.split_above,
            cost,
            remaining_tokens=max_tokens - int(counts.sum()),
            remaining_flops=remaining - cost(counts),
        )
        totals, stop, response = _Totals(context, check), False, Response(remaining=plan.remaining)
        for regions in _batches(context, params, plan.forest, threshold):
            while regions and not stop:
                batch = token_request(regions, side, params.merge)
                response = yield batch
                stop, finer = response.stop, []
                for region, results in zip(
                    regions, results_by_region(batch, response), strict=False
                ):
                    totals.add(region, results)
                    if params.detail == "uniform":
                        activation = _token_activation(
                            region.rect, results, grid.side(params.finest), k
                        )
                        yield Publish("saliency", *activation)
                    values = {result.patch.core: result.value for result in results}
                    finer.append(refiner.split(region, values))
                found = totals.estimate()
                if found.values is not None:
                    yield Publish("estimate", found.values, context.region, found.interval)
                regions = [region for region in finer if region]
            if stop:
                break
        if not totals.processed:
            return Estimate(None, note="the budget pays for no region: raise it")
        note = f"{totals.processed:,} tokens, where a uniform grid has {uniform_count:,}"
        if check is None or stop or not totals.complete:
            return totals.estimate(note)
        return totals.estimate(note, (yield from check.measure(response.remaining)))


class _Totals:
    """Sums of the predictions for tokens.

    Attributes
    ----------
    processed, failed : int
        Number of tokens, and of those whose inference failed.
    """

    def __init__(self, context: PlanContext, check: TokenCheck | None) -> None:
        self._context, self._check = context, check
        self._stand_in = StandIn(context, "transformer")
        self._model = context.models["transformer"]
        self._sums = np.zeros(self._model.card.output_channels)
        self._covered = 0
        self.processed = self.failed = 0

    @property
    def complete(self) -> bool:
        """Whether there is a prediction for every part of the region."""
        return self._covered == self._context.region.area

    def add(self, region: TokenRegion, results: Sequence[PatchResult]) -> None:
        """Add the predictions for a region, in place of those that its tokens refine."""
        values = np.array([result.value[: len(self._sums)] for result in results])
        valid = ~np.isnan(values).any(axis=1)
        kept = [result for result, known in zip(results, valid, strict=True) if known]
        self.processed += len(results)
        self.failed += len(results) - len(kept)
        if not region.replaced:
            self._covered += sum((each.patch.core & self._context.region).area for each in kept)
        if not kept:  # a failed refinement keeps the earlier prediction
            return
        self._sums += values[valid].sum(axis=0)
        for replaced in region.replaced.values():
            self._sums -= replaced[: len(self._sums)]
        if self._check is not None:
            self._check.replace(region.replaced, kept)

    def estimate(self, note: str = "", checked: RegressionEstimate | None = None) -> Estimate:
        """Return the estimate for the region, if most of it was processed.

        Parameters
        ----------
        note : str
            First part of its note.
        checked : RegressionEstimate, optional
            The estimate from measurements by ``main``.
        """
        region, k = self._context.region, self._model.card.prediction_channels
        values: NDArray[np.float64] | None = self._sums[:k].copy()
        notes = [note]
        if not self.complete:
            values = scaled_to_region(self._model, values, self._covered, region)
            notes.append("the rest of the region was not processed")
        if self.failed:
            notes.append(
                f"{self.failed:,} tokens failed: their earlier prediction is kept, or none"
            )
        if values is None:
            return Estimate(None, note="; ".join([*notes, "too little for an estimate"]))
        corrected, known = self._stand_in.correct(values), self._stand_in.note()
        if checked is None:
            variance = float(self._sums[k : 2 * k].sum())
            interval = self._stand_in.interval(values, variance) if self.complete else None
            return Estimate(corrected, interval, "; ".join([*notes, known]))
        total, indicated = float(corrected.sum()), float(checked.values.sum())
        found = f"{checked.drawn} cells drawn at random and measured by main"
        if checked.biased:
            corrected = checked.values
            notes.append(f"{found} correct the tokens' total of {total:,.0f}")
        else:
            notes += [f"{found} indicate a total of {indicated:,.0f}", known]
        return Estimate(corrected, checked.interval, "; ".join(notes))


@dataclass(frozen=True)
class _TokenPlan:
    """The quadtrees from which tokens are selected, and the remaining budget."""

    forest: Forest
    threshold: float
    split_above: float
    remaining: float
    stop: bool


def _plan_tokens(
    context: PlanContext, params: TransformerParams, grid: TokenGrid
) -> Generator[Request, Response, _TokenPlan]:
    """Score the squares of 32 pixels by detail."""
    ys, xs = grid.edges(BASE)
    if params.detail == "uniform":
        scores = np.zeros((len(ys) - 1, len(xs) - 1))
        forest = Forest(grid, scores, "max", params.finest)
        return _TokenPlan(forest, 0.0, 0.0, context.budget, False)
    counts = params.detail == "scout" and scout_predicts_counts(context)
    if params.detail == "scout":
        name, scale = "scout", scout_scale(context)
    else:
        name, scale = "@entropy", context.native_scale
    model = context.models[name]
    processed = yield from run_over_region(context, name, scale)
    sums = resample_onto(processed.results, ys, xs, context.rect)
    areas = grid.areas(BASE)
    if counts:
        scores = sums[: model.card.prediction_channels].sum(axis=0)
        density = scores / np.maximum(areas, 1)
    else:  # the mean score of each cell
        cell = (model.stride * scale) ** 2
        scores = density = sums.mean(axis=0) * cell / np.maximum(areas, 1)
    scores = np.maximum(scores, 0)
    yield Publish("saliency", np.where(areas > 0, density, np.nan), grid.rect)
    forest = Forest(grid, scores, "sum" if counts else "max", params.finest)
    split_above = (counts and params.threshold) or OBJECTS_PER_TOKEN
    return _TokenPlan(
        forest,
        OBJECTS_PER_TOKEN if counts else 0.0,
        split_above,
        processed.remaining,
        processed.stop,
    )


def _batches(
    context: PlanContext, params: TransformerParams, forest: Forest, threshold: float
) -> Iterator[list[TokenRegion]]:
    """Yield batches of regions, one request each."""
    side = context.models["transformer"].card.input.tile
    regions: list[TokenRegion] = []
    for rect, tokens in forest.regions(threshold):
        if not tokens:
            continue
        pending = frozenset(square.rect for square in tokens)
        around = context_patches(context.rect, rect, params.context, side)
        region = TokenRegion(rect, tuple(tokens), tuple(around), pending)
        if regions and sum(map(len, regions)) + len(region) > BATCH_TOKENS:
            yield regions
            regions = []
        regions.append(region)
    if regions:
        yield regions


def _cost_function(
    token_flops: Callable[[int, float], float], params: TransformerParams
) -> CostFunction:
    """Return the FLOPs as a function of numbers of tokens: a parabola through three of them."""
    sizes = np.array([64, 256, 1024])
    curve = np.polyfit(sizes, [token_flops(int(n), params.merge) for n in sizes], 2)
    return lambda counts: float(np.polyval(curve, counts + 8 * params.context).sum())


def _token_activation(
    region: Rect, results: Sequence[PatchResult], cell: int, k: int
) -> tuple[NDArray[np.float64], Rect]:
    """Return the predictions per level-0 pixel of tokens of side `cell`, and their extent."""
    stacked = np.full((region.h // cell, region.w // cell), np.nan)
    for result in results:
        y, x = result.patch.core.center
        row, column = int(y - region.y) // cell, int(x - region.x) // cell
        stacked[row, column] = result.value[:k].sum() / result.patch.core.area
    return stacked, region
