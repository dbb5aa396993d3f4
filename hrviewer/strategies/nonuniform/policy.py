"""The policy: what is of interest, how the budget is shared, which looks and warps follow."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from hrviewer.errors import UserError
from hrviewer.geometry import Patch, Rect, snap_scale
from hrviewer.strategies.base import Only, Params, Strategy
from hrviewer.strategies.nonuniform.allocation import Leaf, Sharpness, cut, sharpness
from hrviewer.strategies.nonuniform.grid_sampler import FWHM, NODES, attract, relax
from hrviewer.strategies.nonuniform.importance import Interest, drawn, kernel_density, looked
from hrviewer.strategies.protocol import (
    Answer,
    Handle,
    Look,
    Plan,
    Request,
    Result,
    Role,
    Scene,
    Show,
    Warp,
)
from hrviewer.strategies.tiling import (
    aggregate,
    input_shape,
    lattice,
    rounds,
    tiles,
    total_flops,
)

__all__ = ["NonUniform", "NonUniformParams"]

OVERVIEW = 2048
"""Cells along the longer side of a map of interest, at most."""

SCOUTING = 0.25
"""Part of the budget that finding out what is of interest may take."""


SMALLEST = 128
"""Pieces seen with fewer pixels per side are not halved: context would cost too much."""

WIDEST = 1024
"""Network pixels per side of a piece, at most: what bounds the memory of a look."""

Source = Literal["auto", "scout", "gradient", "entropy", "foreground", "drawn", "seen"]


class NonUniformParams(Params):
    """Parameters of `NonUniform`."""

    only: ClassVar[Only] = {"bandwidth": ("interest", ("auto", "seen"))}
    interest: Source = Field(
        "auto",
        title="Interest",
        description="What says where to look closely: the pack's scout; how steep, varied or "
        "unlike the background the image is; what was drawn; what an earlier run saw. auto takes "
        "what was drawn, else what was seen, else the scout",
    )
    contrast: float = Field(
        1.0,
        gt=0,
        le=8,
        title="Contrast",
        description="The interest's exponent: more spends the budget on fewer places",
    )
    coarsest: float = Field(
        8.0,
        ge=1,
        le=64,
        title="Shrink by at most",
        description="How much, per side, what is of no interest is shrunk; more where the budget "
        "asks for it",
    )
    largest: int = Field(
        2048,
        ge=128,
        le=16384,
        title="Largest warp",
        description="Side of what one warp covers, at most, in network pixels at full resolution",
    )
    context: int = Field(
        16,
        ge=0,
        le=512,
        title="Context",
        description="Network pixels seen around each piece, at its own scale; a small one has less",
    )
    nodes: int = Field(NODES, ge=3, le=129, title="Nodes", description="Of a warp's grid, per side")
    width: float = Field(
        FWHM,
        gt=0.5,
        le=64,
        title="Kernel width",
        description="How far interest draws samples: full width at half maximum, in nodes of a "
        "grid of 31",
    )
    separable: bool = Field(
        False, title="Separable", description="Warp rows and columns apart, as FOVEA does"
    )
    bandwidth: float = Field(
        48.0,
        gt=0,
        le=4096,
        title="Bandwidth",
        description="How far what an earlier run saw raises the interest, in network pixels at "
        "full resolution",
    )


@dataclass(frozen=True, eq=False)
class Piece:
    """A leaf as it will be looked at: an even look, or a warp."""

    ask: Patch | Warp
    flops: float
    interest: float


class NonUniform(Strategy):
    """The survey's NUD: a small canvas that spends its pixels where they matter.

    The budget of pixels is shared by interest. The region is cut into pieces whose sizes follow
    it: even ones are plain looks at the scale that they deserve, the others warps of *Learning to
    Zoom*, relaxed so that nothing is magnified beyond full resolution.
    """

    id: ClassVar[str] = "nonuniform"
    title: ClassVar[str] = "Non-uniform downsampling"
    family: ClassVar[str] = "NUD"
    when: ClassVar[str] = "What matters is in few places: keep it sharp, shrink the rest"
    Params: ClassVar[type[Params]] = NonUniformParams
    default_budget: ClassVar[float | None] = 0.1
    hints: ClassVar[tuple[str, ...]] = ("saliency", "density")

    def plan(self, scene: Scene, params: NonUniformParams) -> Plan:
        """Find out what is of interest, share the budget, look, add up."""
        found, left = yield from self._interest(scene, params)
        if found is None:
            return Answer(None, note="the budget ended before anything was looked at closely")
        found = replace(found, values=found.values**params.contrast)
        yield Show("saliency", found.values.astype(np.float32), found.rect)
        pieces = self._pieces(scene, params, found, left)
        handles: list[Handle] = []
        even = tuple(piece.ask for piece in pieces if isinstance(piece.ask, Patch))
        stop = False
        for asked in rounds(even):
            result = yield Look("main", asked, into="output")
            handles += result.handles
            stop = result.stop
            if stop:
                break
        # What matters most first: a run that is stopped has seen that.
        warps = [piece for piece in pieces if isinstance(piece.ask, Warp)]
        for piece in [] if stop else sorted(warps, key=lambda piece: -piece.interest):
            assert isinstance(piece.ask, Warp)
            result = yield piece.ask
            handles += result.handles
            stop = result.stop
            if stop:
                break
            estimate = aggregate(scene.main, handles)
            if estimate is not None:
                yield Show("estimate", estimate, scene.region)
        note = f"{len(even)} even looks and {len(warps)} warps"
        if stop:
            note = "the budget ended before the whole region was seen"
        return Answer(aggregate(scene.main, handles), note=note)

    # What is of interest.

    def _interest(
        self, scene: Scene, params: NonUniformParams
    ) -> Generator[Request, Result, tuple[Interest | None, float]]:
        """Return the map, and what is left of the budget."""
        region, hints = scene.region, scene.hints
        source = params.interest
        if source == "auto":
            source = "drawn" if "saliency" in hints else "seen" if "density" in hints else "scout"
        if source in ("drawn", "seen"):
            name = "saliency" if source == "drawn" else "density"
            if name not in hints:
                what = "nothing is drawn" if source == "drawn" else "no earlier run is given"
                raise UserError(f"{what} that says where to look: choose another interest")
            cell = max(16, math.ceil(max(region.h, region.w) / OVERVIEW / 16) * 16)
            cell = min(cell, max(1, max(region.h, region.w) // 16))
            hint = drawn(hints[name], scene.rect, region, cell)
            if source == "seen":
                hint = kernel_density(hint, params.bandwidth * scene.native)
            return hint, scene.budget
        name = "scout" if source == "scout" else f"@{source}"
        role = scene.roles[name]
        patches = overview(scene, name, role)
        handles: list[Handle] = []
        left = scene.budget
        for asked in rounds(patches):
            result = yield Look(name, asked)
            handles += result.handles
            left = result.left
            if result.stop:
                return None, left
        if not patches:
            return Interest(region, max(region.h, region.w), np.ones((1, 1))), left
        step = round(role.stride * patches[0].scale)
        cell = step * max(1, -(-max(region.h, region.w) // (OVERVIEW * step)))
        return looked(role, handles, region, max(1, cell)), left

    # How the budget is shared.

    def _pieces(
        self, scene: Scene, params: NonUniformParams, found: Interest, left: float
    ) -> list[Piece]:
        """Return the sharpest looks that `left` FLOPs pay for."""
        aim = left
        while True:
            sharp = self._share(scene, params, found, aim)
            leaves = self._leaves(scene, params, sharp)
            pieces = [self._piece(scene, params, sharp, leaf) for leaf in leaves]
            if sum(piece.flops for piece in pieces) <= left * (1 + 1e-9):
                return pieces
            # What a look costs is known exactly only once its size is.
            aim *= 0.97
            if aim < left / 100:
                raise UserError(
                    f"a budget of {scene.budget:.3g} FLOPs does not pay for a single look with "
                    f"{scene.main.card.name!r}; raise the budget"
                )

    def _share(
        self, scene: Scene, params: NonUniformParams, found: Interest, left: float
    ) -> Sharpness:
        """Return the greatest sharpness that costs about `left` FLOPs."""
        main, native = scene.main, scene.native
        per_pixel = main.flops_per_pixel()
        whole = scene.region.area / native**2 * per_pixel
        floor = min(1 / params.coarsest**2, left / whole / 4)

        def pays(level: float, floor: float) -> bool:
            pixels = 0
            for leaf in self._leaves(scene, params, sharpness(found, level, floor)):
                scale = native / math.sqrt(leaf.sharpness)
                pixels += math.prod(canvas(main, around(scene, leaf, scale, params), scale))
            return pixels * per_pixel <= left

        while not pays(0.0, floor) and floor * scene.region.area > 1:
            floor /= 2
        level = most(lambda level: pays(level, floor), floor, 1e3 / floor)
        # Once all that is of interest is as sharp as can be, the rest has what is left.
        floor = most(lambda floor: pays(level, floor), floor, 1.0)
        return sharpness(found, level, floor)

    @staticmethod
    def _leaves(scene: Scene, params: NonUniformParams, sharp: Sharpness) -> list[Leaf]:
        native, card = scene.native, scene.main.card.input
        step = lattice(scene.main, snap_scale(native))
        side, smallest, widest = params.largest, float(SMALLEST), WIDEST
        if card.fixed:
            # Every canvas has the same size: the more interest, the smaller the piece.
            widest = max(1, card.tile - 2 * params.context)
            side, smallest = math.ceil(card.tile * params.coarsest), math.inf
        side = max(step, round(side * native))
        return list(cut(sharp, side, smallest * native, widest * native, step))

    @staticmethod
    def _piece(scene: Scene, params: NonUniformParams, sharp: Sharpness, leaf: Leaf) -> Piece:
        main, native = scene.main, scene.native
        interest = leaf.sharpness
        scale = snap_scale(native / math.sqrt(leaf.sharpness))
        fits = max(leaf.rect.h, leaf.rect.w) / scale + 2 * params.context <= main.card.input.tile
        if leaf.even and (fits or not main.card.input.fixed):
            patch = Patch(leaf.rect, scale, halo(leaf, scale, params))
            cost = main.flops(*input_shape(main, patch, scene.rect))
            return Piece(patch, cost, interest)
        scale = native / math.sqrt(leaf.sharpness)
        rect = around(scene, leaf, scale, params)
        shape = canvas(main, rect, scale)
        g = params.nodes
        width = params.width * (g - 1) / (NODES - 1)
        grid = attract(sharp.nodes(rect, g), width, separable=params.separable)
        closest = min(rect.h / native / shape[0], rect.w / native / shape[1])
        grid = relax(grid, max(1.0, closest))
        warp = Warp("main", rect, grid, shape, into="output", core=leaf.rect)
        return Piece(warp, main.flops(*shape), interest)


def most(pays: Callable[[float], bool], low: float, high: float) -> float:
    """Return the greatest amount that is paid for, within a hundredth; `low` if none is."""
    if pays(high):
        return high
    while high > 1.01 * low:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if pays(middle) else (low, middle)
    return low


def overview(scene: Scene, name: str, role: Role) -> list[Patch]:
    """Return the looks that say what is of interest, at the scale that the role is meant for.

    A built-in role has no such scale: it sees a thumbnail of some hundred cells per side. Where
    the budget does not pay for that, the role sees less; none, where it cannot see anything.
    """
    side = max(scene.region.h, scene.region.w)
    scale = scene.scale_of(name)
    if role.card.task == "saliency":
        wanted = side / 256 / role.stride if role.stride > 4 else side / 1024
        scale = max(wanted, min(8 * scale, side / 256), side / OVERVIEW)
        scale = 2.0 ** max(0, math.floor(math.log2(scale)))
    while scale * role.stride <= side / 2:
        patches = tiles(role, scene.region, snap_scale(scale))
        if total_flops(role, patches, scene.rect) <= SCOUTING * scene.budget:
            return patches
        scale *= 2
    return []


def around(scene: Scene, leaf: Leaf, scale: float, params: NonUniformParams) -> Rect:
    """Return a leaf and its context, at the scale at which it will be seen."""
    return leaf.rect.pad(math.ceil(halo(leaf, scale, params) * scale)) & scene.rect


def halo(leaf: Leaf, scale: float, params: NonUniformParams) -> int:
    """Return the context in network pixels; a small piece can afford a quarter of its side."""
    return min(params.context, math.ceil(max(leaf.rect.h, leaf.rect.w) / scale / 4))


def canvas(main: Role, rect: Rect, scale: float) -> tuple[int, int]:
    """Return the canvas that a rectangle is sampled onto, ``(h, w)`` in network pixels."""
    card = main.card
    if card.input.fixed:
        return card.input.tile, card.input.tile
    step = math.lcm(main.stride, card.input.multiple_of)
    h, w = (max(1, round(side / scale / step)) * step for side in (rect.h, rect.w))
    return h, w
