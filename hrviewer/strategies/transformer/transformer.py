"""High-resolution vision transformers: adaptive tokens, merged where alike, in their context."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hrviewer.errors import HrviewerError
from hrviewer.geometry import Rect
from hrviewer.strategies.base import Params, SpecialValueText, Strategy, VisibleIf
from hrviewer.strategies.estimation.coarse_pass import (
    run_over_region,
    scout_predicts_counts,
    scout_scale,
)
from hrviewer.strategies.estimation.sampling_grid import resample_onto
from hrviewer.strategies.protocol import (
    Estimate,
    PatchResult,
    Plan,
    PlanContext,
    Publish,
    Request,
    Response,
)
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
"""Tokens asked for at once, unless a region has more: what a killed run loses at most."""

OBJECTS_PER_TOKEN = 0.3
"""How many objects a token may hold, as far as the scout knows, before it is split."""

USABLE_SHARE = 0.99
"""The part of what is left that tokens are chosen for: their costs are interpolated."""


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
    }
    detail: Literal["scout", "entropy", "uniform"] = Field(
        "scout",
        title="Detail",
        description="What tells where tokens are to be small: the scout's guess of what is there, "
        "the entropy of the grey levels, or nothing, for a uniform grid",
    )
    threshold: float = Field(
        0.0,
        ge=0,
        le=1e6,
        title="Split above",
        description="A token is split that holds more: objects, as the scout guesses, or bits of "
        f"entropy; 0 takes {OBJECTS_PER_TOKEN} objects, or splits as many as the tokens allow",
    )
    tokens: float = Field(
        0.4,
        gt=0,
        le=1,
        title="Tokens",
        description="How many there are at most, over those of the uniform grid; a budget may "
        "leave less",
    )
    finest: Literal[16, 32, 64, 128] = Field(
        16,
        title="Finest",
        description="Side of the smallest tokens, and of a uniform grid's, in the network's pixels",
    )
    merge: float = Field(
        0.0,
        ge=0,
        le=0.5,
        title="Merge",
        description="Which part of the tokens there are each layer joins to others like them",
    )
    context: int = Field(
        2,
        ge=0,
        le=6,
        title="Context",
        description="Rings of eight coarse squares about each region, each three times as wide as "
        "the one inside",
    )


class Transformer(Strategy):
    """The survey's HR-ViT: tokens where there is detail, few elsewhere, and the wider context.

    Squares of 16 to 128 pixels, all seen at 16 × 16, are tokens of a transformer that says how
    much each holds. Those of a region of 512 pixels attend to each other and to coarser and
    coarser squares around it, so that cost grows with the image's area and not with its square.
    """

    id: ClassVar[str] = "transformer"
    title: ClassVar[str] = "High-resolution transformer"
    family: ClassVar[str] = "HR-ViT"
    when: ClassVar[str] = "Detail and context together: tokens as fine as what is there"
    Params: ClassVar[type[Params]] = TransformerParams
    roles: ClassVar[tuple[str, ...]] = ("main", "scout", "transformer")

    def plan(self, context: PlanContext, params: TransformerParams) -> Plan:
        """Find detail, choose tokens, let regions attend."""
        role, main = context.models["transformer"], context.main.card
        if role.token_flops is None or role.card.classes != main.classes:
            raise HrviewerError(
                f"{role.card.name!r} does not say how much tokens hold of what {main.name!r} "
                "counts: choose another pack"
            )
        mosaic = TokenGrid(context.region, context.scale_of("transformer"))
        found = yield from _plan_tokens(context, params, mosaic)
        if found.stop:
            return Estimate(None, note="the budget ended before there were tokens: raise it")
        whole = mosaic.count(params.finest)
        most = max(mosaic.count(COARSEST), int(params.tokens * whole))
        cost, left, threshold = (
            _cost_function(role.token_flops, params),
            found.remaining * USABLE_SHARE,
            -1.0,
        )
        if params.detail != "uniform":
            least = params.threshold or found.threshold
            threshold = found.forest.affordable(least, most, cost, left)
        counts = found.forest.counts(threshold)
        refiner = Refiner(
            mosaic,
            params.finest,
            found.split_above,
            cost,
            remaining_tokens=most - int(counts.sum()),
            remaining_flops=left - cost(counts),
        )

        k, side = role.card.prediction_channels, role.card.input.tile
        total = np.zeros(k)
        seen = failed = 0
        stop = False
        for tilings in _batches(context, params, found.forest, threshold):
            while tilings and not stop:
                asked = token_request(tilings, side, params.merge)
                result = yield asked
                stop, finer = result.stop, []
                for tiling, handles in zip(tilings, results_by_region(asked, result), strict=False):
                    held = {h.patch.core: h.value[:k] for h in handles}
                    values = np.array([*held.values()])
                    seen += len(handles)
                    lost = np.isnan(values).any(1)
                    failed += int(lost.sum())
                    if not lost.all():  # what was found before stays where asking again failed
                        total += np.nansum(values, 0) - tiling.replaced
                    if params.detail == "uniform":
                        there = _token_activation(
                            tiling.rect, handles, mosaic.side(params.finest), k
                        )
                        yield Publish("saliency", *there)
                    finer.append(refiner.split(tiling, held))
                yield Publish("estimate", total.copy(), context.region)
                tilings = [tiling for tiling in finer if tiling]
            if stop:
                break
        if not seen:
            return Estimate(None, note="the budget pays for no region: raise it")
        note = f"{seen:,} tokens, where a uniform grid has {whole:,}"
        if stop:
            note = "the budget ended: the rest of the region was not seen; " + note
        if failed:
            note += f"; {failed:,} failed: there stands what was found before, or nothing"
        return Estimate(total, note=note)


@dataclass(frozen=True)
class _TokenPlan:
    """What is known before tokens are chosen: the trees, and what is left to be spent."""

    forest: Forest
    threshold: float
    split_above: float
    remaining: float
    stop: bool


def _plan_tokens(
    scene: PlanContext, params: TransformerParams, mosaic: TokenGrid
) -> Generator[Request, Response, _TokenPlan]:
    """Say of every square of 32 pixels how much there is to be seen."""
    ys, xs = mosaic.edges(BASE)
    if params.detail == "uniform":
        everything = np.zeros((len(ys) - 1, len(xs) - 1))
        forest = Forest(mosaic, everything, "max", params.finest)
        return _TokenPlan(forest, 0.0, 0.0, scene.budget, False)
    counts = params.detail == "scout" and scout_predicts_counts(scene)
    if params.detail == "scout":
        name, scale = "scout", scout_scale(scene)
    else:
        name, scale = "@entropy", scene.native_scale
    role = scene.models[name]
    seen = yield from run_over_region(scene, name, scale)
    sums = resample_onto(seen.results, ys, xs, scene.rect)
    areas = mosaic.areas(BASE)
    if counts:
        scores = sums[: role.card.prediction_channels].sum(axis=0)
        shown = scores / np.maximum(areas, 1)
    else:  # the mean of what is said of each cell
        cell = (role.stride * scale) ** 2
        scores = shown = sums.mean(axis=0) * cell / np.maximum(areas, 1)
    scores = np.maximum(scores, 0)
    yield Publish("saliency", np.where(areas > 0, shown, np.nan), mosaic.rect)
    forest = Forest(mosaic, scores, "sum" if counts else "max", params.finest)
    enough = (counts and params.threshold) or OBJECTS_PER_TOKEN
    return _TokenPlan(
        forest, OBJECTS_PER_TOKEN if counts else 0.0, enough, seen.remaining, seen.stop
    )


def _batches(
    scene: PlanContext, params: TransformerParams, forest: Forest, threshold: float
) -> Iterator[list[TokenRegion]]:
    """Return the regions that are asked for at once, a few at a time."""
    side = scene.models["transformer"].card.input.tile
    tilings: list[TokenRegion] = []
    for rect, squares in forest.regions(threshold):
        if not squares:
            continue
        fresh = frozenset(square.rect for square in squares)
        around = context_patches(scene.rect, rect, params.context, side)
        tiling = TokenRegion(rect, tuple(squares), tuple(around), fresh)
        if tilings and sum(map(len, tilings)) + len(tiling) > BATCH_TOKENS:
            yield tilings
            tilings = []
        tilings.append(tiling)
    if tilings:
        yield tilings


def _cost_function(
    join_flops: Callable[[int, float], float], params: TransformerParams
) -> CostFunction:
    """Return what gives the FLOPs of regions of so many tokens: a parabola through three."""
    at = np.array([64, 256, 1024])
    curve = np.polyfit(at, [join_flops(int(n), params.merge) for n in at], 2)
    return lambda counts: float(np.polyval(curve, counts + 8 * params.context).sum())


def _token_activation(
    region: Rect, handles: Sequence[PatchResult], cell: int, k: int
) -> tuple[NDArray[np.float64], Rect]:
    """Return how much tokens of side `cell` hold, per level-0 pixel, and where."""
    values = np.full((region.h // cell, region.w // cell), np.nan)
    for handle in handles:
        y, x = handle.patch.core.center
        row, column = int(y - region.y) // cell, int(x - region.x) // cell
        values[row, column] = handle.value[:k].sum() / handle.patch.core.area
    return values, region
