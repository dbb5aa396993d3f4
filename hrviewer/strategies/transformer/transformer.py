"""High-resolution vision transformers: adaptive tokens, merged where alike, in their context."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hrviewer.errors import UserError
from hrviewer.geometry import Patch, Rect, snap_scale, surroundings
from hrviewer.strategies.base import Params, Strategy
from hrviewer.strategies.protocol import Answer, Handle, Look, Plan, Request, Result, Scene, Show
from hrviewer.strategies.survey.leaves import gather
from hrviewer.strategies.tiling import rounds, tiles
from hrviewer.strategies.transformer.tokens import BASE, COARSEST, Forest, Mosaic
from hrviewer.strategies.zoom.scouting import SHRINK, scouts_counts

__all__ = ["Transformer", "TransformerParams"]

TOGETHER = 2048
"""Tokens asked for at once, unless a region has more: what a killed run loses at most."""

ENOUGH = 0.3
"""How many objects a token may hold, as far as the scout knows, before it is split."""

RESERVE = 0.99
"""The part of what is left that tokens are chosen for: their costs are interpolated."""


class TransformerParams(Params):
    """Parameters of `Transformer`."""

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
        f"entropy; 0 takes {ENOUGH} objects, or splits as many as the tokens allow",
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

    def plan(self, scene: Scene, params: TransformerParams) -> Plan:
        """Find detail, choose tokens, let regions attend."""
        role, main = scene.roles["transformer"], scene.main.card
        if role.join_flops is None or role.card.classes != main.classes:
            raise UserError(
                f"{role.card.name!r} does not say how much tokens hold of what {main.name!r} "
                "counts: choose another pack"
            )
        mosaic = Mosaic(scene.region, scene.scale_of("transformer"))
        found = yield from _detail(scene, params, mosaic)
        if found.stop:
            return Answer(None, note="the budget ended before there were tokens: raise it")
        whole = mosaic.count(params.finest)
        if params.detail == "uniform":
            threshold = -1.0
        else:
            threshold = found.forest.affordable(
                params.threshold or found.threshold,
                max(mosaic.count(COARSEST), int(params.tokens * whole)),
                _cost(role.join_flops, params),
                found.left * RESERVE,
            )

        k = role.card.answers
        total = np.zeros(k)
        seen = failed = asked = 0
        for look, regions in _looks(scene, params, found.forest, threshold):
            result = yield look
            asked += sum(not patch.core.empty for patch in look.patches)
            there: dict[Rect, list[Handle]] = {rect: [] for rect in regions}
            numbers = look.group or ()
            for number, handle in zip(numbers, result.handles, strict=False):
                if handle.patch.core.empty:
                    continue
                seen += 1
                if np.isnan(handle.value).any():
                    failed += 1
                    continue
                total += handle.value[:k]
                there[regions[number]].append(handle)
            if params.detail == "uniform":
                for rect, handles in there.items():
                    if handles:
                        yield Show("saliency", *_response(rect, handles, mosaic, params.finest, k))
            yield Show("estimate", total.copy(), scene.region)
            if result.stop:
                break
        if not seen:
            return Answer(None, note="the budget pays for no region: raise it")
        note = f"{seen:,} tokens, where a uniform grid has {whole:,}"
        if result.stop:
            note = "the budget ended: the rest of the region was not seen; " + note
        if failed:
            note += f"; {failed:,} failed and count as empty"
        return Answer(total, note=note)


@dataclass(frozen=True)
class _Found:
    """What is known before tokens are chosen: the trees, and what is left to be spent."""

    forest: Forest
    threshold: float
    left: float
    stop: bool


def _detail(
    scene: Scene, params: TransformerParams, mosaic: Mosaic
) -> Generator[Request, Result, _Found]:
    """Say of every square of 32 pixels how much there is to be seen."""
    ys, xs = mosaic.edges(BASE)
    if params.detail == "uniform":
        everything = np.zeros((len(ys) - 1, len(xs) - 1))
        return _Found(Forest(mosaic, everything, "max", params.finest), 0.0, scene.budget, False)
    name, scale = "@entropy", scene.native
    counts = params.detail == "scout" and scouts_counts(scene)
    if params.detail == "scout":
        name, scale = "scout", scene.scale_of("scout")
        if scene.roles["scout"].card.input.downsample == 1:
            scale = snap_scale(scene.native * SHRINK)
    role = scene.roles[name]
    handles: list[Handle] = []
    result = Result(left=scene.budget)
    for asked in rounds(tiles(role, scene.region, scale)):
        result = yield Look(name, asked)
        handles += result.handles
        if result.stop:
            break
    sums = gather(handles, ys, xs, scene.rect)
    areas = mosaic.areas(BASE)
    if counts:
        scores = sums[: role.card.answers].sum(axis=0)
        shown = scores / np.maximum(areas, 1)
    else:  # the mean of what is said of each cell
        cell = (role.stride * scale) ** 2
        scores = shown = sums.mean(axis=0) * cell / np.maximum(areas, 1)
    scores = np.maximum(scores, 0)
    yield Show("saliency", np.where(areas > 0, shown, np.nan), mosaic.rect)
    forest = Forest(mosaic, scores, "sum" if counts else "max", params.finest)
    return _Found(forest, ENOUGH if counts else 0.0, result.left, result.stop)


def _looks(
    scene: Scene, params: TransformerParams, forest: Forest, threshold: float
) -> Iterator[tuple[Look, list[Rect]]]:
    """Ask for regions, a few at a time; say which they are, by their numbers."""
    side = scene.roles["transformer"].card.input.tile
    patches: list[Patch] = []
    group: list[int] = []
    scores: list[float] = []
    regions: list[Rect] = []

    def look() -> tuple[Look, list[Rect]]:
        return (
            Look(
                "transformer",
                tuple(patches),
                into="output",
                group=tuple(group),
                merge=params.merge,
                scores=tuple(scores),
            ),
            list(regions),
        )

    for rect, squares in forest.regions(threshold):
        if not squares:
            continue
        around = _context(scene, rect, params.context, side)
        n = len(squares) + len(around)
        if patches and len(patches) + n > TOGETHER:
            yield look()
            for held in (patches, group, scores, regions):
                held.clear()
        patches += [Patch(s.rect, s.rect.h / side) for s in squares] + around
        scores += [s.score for s in squares] + [math.nan] * len(around)
        group += [len(regions)] * n
        regions.append(rect)
    if patches:
        yield look()


def _context(scene: Scene, region: Rect, rings: int, side: int) -> list[Patch]:
    """Return the squares about a region whose middle lies in the image: looks without a core."""
    found = []
    for square in surroundings(region, rings):
        y, x = (int(at) for at in square.center)
        if Rect(y, x, 1, 1) in scene.rect:
            found.append(Patch(Rect(y, x, 0, 0), square.h / side, side // 2))
    return found


def _cost(
    join_flops: Callable[[int, float], float], params: TransformerParams
) -> Callable[[NDArray[np.int64]], float]:
    """Return what gives the FLOPs of regions of so many tokens: a parabola through three."""
    at = np.array([64, 256, 1024])
    curve = np.polyfit(at, [join_flops(int(n), params.merge) for n in at], 2)
    return lambda counts: float(np.polyval(curve, counts + 8 * params.context).sum())


def _response(
    region: Rect, handles: Sequence[Handle], mosaic: Mosaic, finest: int, k: int
) -> tuple[NDArray[np.float64], Rect]:
    """Return how much a uniform grid's tokens hold, per level-0 pixel, and where."""
    cell = mosaic.side(finest)
    values = np.full((region.h // cell, region.w // cell), np.nan)
    for handle in handles:
        y, x = handle.patch.core.center
        row, column = int(y - region.y) // cell, int(x - region.x) // cell
        values[row, column] = handle.value[:k].sum() / handle.patch.core.area
    return values, region
