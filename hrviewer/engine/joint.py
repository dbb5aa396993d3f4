"""Looks whose parts belong together: tokens of one input, a warp, thoughts on what was seen.

They run one after another on the caller's thread; what they cost is shared out as the ledger
asks: evenly among tokens, by sample density over a warp, over `where` for a thought.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.engine.answer import answer, as_box, crop, failed, kind_of
from hrviewer.engine.canvas import Box
from hrviewer.engine.charge import Charge
from hrviewer.engine.native import native_scale
from hrviewer.engine.seen import Seen
from hrviewer.engine.warp import finest, sample, spread, unwarp
from hrviewer.geometry import Grid, Patch, Rect
from hrviewer.models import Network
from hrviewer.models.network import Floats
from hrviewer.strategies import Look, Think, Warp

if TYPE_CHECKING:
    from hrviewer.engine.looker import Looker

__all__ = [
    "Attended",
    "Span",
    "arrange",
    "attended",
    "packs",
    "see_tokens",
    "see_warped",
    "spanned",
    "think",
    "thinking",
]

TOGETHER = 2048
"""Tokens that run at a time, unless one group has more."""

SPARSE = 4
"""How much more than its tokens may be read to read them all at once."""


@dataclass(frozen=True)
class _Group:
    """The tokens of one joint input, read.

    Attributes
    ----------
    patches : list of Patch
        As asked, with the cores that are answered for.
    rects : list of Rect
        What each token sees.
    tokens : ndarray, shape (n, C, p, p)
        Prepared; none if they could not be read.
    charge : Charge
        What reading and preparing them cost.
    error : Exception or None
        Why they could not be read.
    """

    patches: list[Patch]
    rects: list[Rect]
    tokens: Floats
    charge: Charge
    error: Exception | None = None


def packs(request: Look) -> list[list[list[int]]]:
    """Return a look's groups, as many together as run well at a time.

    They follow from the request alone, so that the same request gives the same bits.
    """
    assert request.group is not None
    groups: dict[int, list[int]] = {}
    for index, group in enumerate(request.group):
        groups.setdefault(group, []).append(index)
    found: list[list[list[int]]] = []
    room = 0
    for members in groups.values():
        if len(members) > room:
            found.append([])
            room = TOGETHER
        found[-1].append(members)
        room -= len(members)
    return found


def see_tokens(
    looker: Looker, network: Network, request: Look, groups: list[list[int]]
) -> list[Seen]:
    """Joint inputs of many patches each, packed into one; every token bears its equal share.

    What is context bears nothing: its cost falls on the others of its group.
    """
    inputs = [_read_tokens(looker, network, request, members) for members in groups]
    whole = [group for group in inputs if group.error is None]
    native, _ = native_scale(network.card, looker.pyramid)
    boxes = np.array([r.astuple() for group in whole for r in group.rects], np.float64) / native
    lengths = [len(group.rects) for group in whole]
    error: Exception | None = None
    output, seconds = np.zeros((0, 1, 1, 1), np.float32), 0.0
    if whole:
        tokens = np.concatenate([group.tokens for group in whole])
        try:
            done = looker.device.call(
                lambda: network.join(tokens, boxes, lengths, request.merge), looker.priority
            ).result()
            output, seconds = np.asarray(done.output, np.float32), done.seconds
        except Exception as failure:
            error = failure
    flops = [network.join_flops(n, request.merge) for n in lengths]
    seen: list[Seen] = []
    place, number = 0, 0
    for group in inputs:
        charge, wrong = group.charge, group.error or error
        answering = sum(not patch.core.empty for patch in group.patches)
        if wrong is None:
            part = flops[number]
            charge += Charge(flops=part, infer_s=seconds * part / sum(flops))
        share = charge * (1 / max(1, answering))
        for i, (patch, rect) in enumerate(zip(group.patches, group.rects, strict=True)):
            paid = Charge() if patch.core.empty else share
            if wrong is not None:
                outputs = network.card.outputs
                seen.append(failed(patch, request.role, paid, outputs, wrong))
            else:
                values = output[place + i]
                seen.append(_said(looker, network, patch, rect, values, request.role, paid))
        if group.error is None:
            place, number = place + len(group.rects), number + 1
    return seen


@dataclass(frozen=True, eq=False)
class Attended:
    """Which tokens of a group looked where.

    Attributes
    ----------
    squares : list of Rect
        What each token sees, level-0 pixels.
    answers : ndarray of bool, shape (n,)
        Those that are no context.
    weights : ndarray, shape (n, n)
        Of what token *i* takes in the last layer, the part that it takes from *j*.
    owner : ndarray, shape (n,)
        Tokens of one number were merged.
    """

    squares: list[Rect]
    answers: NDArray[np.bool_]
    weights: Floats
    owner: NDArray[np.int64]


def attended(looker: Looker, request: Look, number: int) -> Attended | None:
    """Return where the tokens of one of a look's groups looked; None if nobody can tell.

    They are read and run once more: it is for a person who asks, and no run is charged for it.
    """
    network = looker.networks[request.role]
    members = [i for i, group in enumerate(request.group or ()) if group == number]
    if not network.attends or not members:
        return None
    read = _read_tokens(looker, network, request, members)
    if read.error is not None:
        raise read.error
    native, _ = native_scale(network.card, looker.pyramid)
    boxes = np.array([rect.astuple() for rect in read.rects], np.float64) / native
    weights, owner = (
        looker.device.call(
            lambda: network.attend(read.tokens, boxes, request.merge), looker.priority
        )
        .result()
        .output
    )
    answers = np.array([not patch.core.empty for patch in read.patches])
    return Attended(read.rects, answers, weights, owner)


def _said(
    looker: Looker,
    network: Network,
    patch: Patch,
    rect: Rect,
    values: Floats,
    role: str,
    charge: Charge,
) -> Seen:
    """Return what a token said of its core."""
    image, card = looker.pyramid.rect, network.card
    box = as_box(rect)
    if patch.core.empty:
        return Seen(patch, role, np.zeros(card.outputs), values, box, charge)
    if patch.core == rect and rect in image and kind_of(card) == "mass":
        value = values.sum((1, 2), dtype=np.float64)  # which is most of them
        return Seen(patch, role, value, values, box, charge)
    values, box = crop(values, box, patch.core, image, kind_of(card))
    value = answer(card, values, box, patch.core, image)
    return Seen(patch, role, value, values, box, charge)


def _read_tokens(looker: Looker, network: Network, request: Look, members: list[int]) -> _Group:
    """Read a group's tokens: neighbours of one scale together."""
    asked = [request.patches[i] for i in members]
    patches = [replace(patch, core=patch.core & looker.region) for patch in asked]
    side = network.card.input.tile
    rects = [patch.rect for patch in asked]
    tokens = np.empty((len(asked), network.card.input.count, side, side), np.float32)
    charge = Charge()
    try:
        for scale in sorted({patch.scale for patch in asked}):
            same = [i for i, patch in enumerate(asked) if patch.scale == scale]
            for some in _blocks([rects[i] for i in same]):
                inside = [same[i] for i in some]
                corner = Rect(
                    min(rects[i].y for i in inside), min(rects[i].x for i in inside), 0, 0
                )
                block = Rect(
                    corner.y,
                    corner.x,
                    max(rects[i].y1 for i in inside) - corner.y,
                    max(rects[i].x1 for i in inside) - corner.x,
                )
                with looker.meter.reading() as reading:
                    pixels = looker.pyramid.read(block, scale, fill="reflect", meter=looker.meter)
                start = time.perf_counter()
                ready = network.card.prepare(pixels)
                for i in inside:
                    y, x = (
                        round((at - first) / scale)
                        for at, first in ((rects[i].y, block.y), (rects[i].x, block.x))
                    )
                    tokens[i] = ready[:, y : y + side, x : x + side]
                charge += Charge(
                    bytes=reading.bytes,
                    pixels=reading.pixels,
                    read_s=reading.seconds,
                    prepare_s=time.perf_counter() - start,
                )
    except Exception as error:
        return _Group(patches, rects, tokens, charge, error)
    return _Group(patches, rects, tokens, charge)


def _blocks(rects: list[Rect]) -> list[list[int]]:
    """Return which rectangles to read at once: all that lie on one lattice, if they fill it."""
    y, x = min(r.y for r in rects), min(r.x for r in rects)
    h, w = max(r.y1 for r in rects) - y, max(r.x1 for r in rects) - x
    first = rects[0]
    aligned = all(
        (r.h, r.w) == (first.h, first.w) and (r.y - y) % r.h == (r.x - x) % r.w == 0 for r in rects
    )
    if aligned and h * w <= SPARSE * len(rects) * first.area:
        return [list(range(len(rects)))]
    return [[i] for i in range(len(rects))]


def see_warped(looker: Looker, network: Network, request: Warp) -> list[Seen]:
    """One warped input; its charge falls where its samples were taken."""
    rect = request.rect & looker.pyramid.rect
    core = (rect if request.core is None else request.core & rect) & looker.region
    scale = math.sqrt(rect.area / (request.shape[0] * request.shape[1]))
    patch = Patch(core, scale)
    charge = Charge()
    try:
        with looker.meter.reading() as reading:
            picture = sample(looker.pyramid, rect, request.grid, request.shape, looker.meter)
        charge = Charge(bytes=reading.bytes, pixels=reading.pixels, read_s=reading.seconds)
        start = time.perf_counter()
        array = network.card.prepare(in_range(picture, looker.pyramid.dtype))
        charge = replace(charge, prepare_s=time.perf_counter() - start)
        done = looker.device.submit(network, array, looker.priority, alone=True).result()
    except Exception as error:
        return [failed(patch, request.role, charge, network.card.outputs, error)]
    start = time.perf_counter()
    # An octave finer than it was seen anywhere: coarse warps need no fine maps.
    octave = math.floor(math.log2(max(1.0, finest(rect, request.grid, request.shape))))
    shape = Grid(rect, max(1, network.stride * 2**octave // 2)).shape
    values = unwarp(done.output, request.grid, shape, kind_of(network.card))
    box = as_box(rect)
    value = answer(network.card, values, box, core, looker.pyramid.rect)
    charge = replace(
        charge,
        flops=network.flops(*request.shape),
        infer_s=done.seconds,
        post_s=time.perf_counter() - start,
    )
    return [
        Seen(
            patch,
            request.role,
            value,
            values,
            box,
            charge,
            spread=spread(request.grid, rect, core),
        )
    ]


def think(looker: Looker, network: Network, request: Think) -> list[Seen]:
    """A network on what was already seen; it says nothing of where that failed or is missing."""
    patch = Patch(request.where & looker.region, request.handles[0].patch.scale)
    image = looker.pyramid.rect
    try:
        span = spanned(request, network)
        codes = arrange(request, span)
        known = np.asarray(np.isfinite(codes).all(axis=0))
        done = looker.device.call(
            lambda: _thought(network, np.nan_to_num(codes), request.explain), looker.priority
        ).result()
        start = time.perf_counter()
        values = np.asarray(done.output, np.float32)
        n = network.stride
        rows, columns = (np.arange(k) * n for k in values.shape[1:])
        values = np.where(known[np.ix_(rows, columns)], values, np.float32(np.nan))
        kind = kind_of(network.card)
        values, box = crop(values, span.of(values, n), patch.core, image, kind)
        # What is not known adds nothing; a head that attends leaves it out by itself.
        said = values if network.card.output.attention else np.nan_to_num(values)
        value = answer(network.card, said, box, patch.core, image)
    except Exception as error:
        outputs = network.card.outputs + request.explain
        return [failed(patch, request.role, Charge(), outputs, error)]
    charge = Charge(
        flops=thinking(network, request, span.shape),
        infer_s=done.seconds,
        post_s=time.perf_counter() - start,
    )
    return [Seen(patch, request.role, value, values, box, charge)]


def thinking(network: Network, request: Think, shape: tuple[int, int, int]) -> float:
    """Return what a thought about a grid of codes costs, in FLOPs."""
    cost = network.think_flops(*shape)
    return cost + network.explain_flops(*shape) if request.explain else cost


def _thought(network: Network, codes: Floats, explain: bool) -> Floats:
    said = network.think(codes)
    return np.concatenate([said, network.explain(codes)[None]]) if explain else said


@dataclass(frozen=True, slots=True)
class Span:
    """The grid on which maps of one network and scale lie together.

    Parameters
    ----------
    shape : tuple of int
        ``(d, rows, columns)``.
    step : tuple of float
        A cell's height and width, level-0 pixels.
    y, x : float
        Where it begins.
    """

    shape: tuple[int, int, int]
    step: tuple[float, float]
    y: float
    x: float

    def of(self, values: Floats, stride: int) -> Box:
        """Return what an answer covers that has a value for every so many cells."""
        _, rows, columns = values.shape
        return self.y, self.x, rows * stride * self.step[0], columns * stride * self.step[1]


def spanned(request: Think, network: Network) -> Span:
    """Return the part of the handles' common grid that a thought needs: `where` and a halo.

    It begins where the network's inputs may begin.
    """
    halo, period = network.halo, network.period
    handles, where = request.handles, request.where
    # A failed look has one cell of its core's size: how fine its map would have been, others say.
    whole = [handle for handle in handles if np.isfinite(handle.map).all()] or handles
    dy = max(handle.box[2] / handle.map.shape[1] for handle in whole)
    dx = max(handle.box[3] / handle.map.shape[2] for handle in whole)
    y, x = (min(handle.box[axis] for handle in handles) for axis in (0, 1))
    y1, x1 = (max(handle.box[axis] + handle.box[axis + 2] for handle in handles) for axis in (0, 1))
    top, left = (math.floor(o + 1e-6) for o in ((where.y - y) / dy, (where.x - x) / dx))
    bottom, right = (math.ceil(o - 1e-6) for o in ((where.y1 - y) / dy, (where.x1 - x) / dx))
    # Counted from the image's corner, as the network's period is.
    before_y, before_x = round(y / dy), round(x / dx)
    top = max(0, (before_y + top - halo) // period * period - before_y)
    left = max(0, (before_x + left - halo) // period * period - before_x)
    bottom = min(math.ceil((y1 - y) / dy - 1e-6), bottom + halo)
    right = min(math.ceil((x1 - x) / dx - 1e-6), right + halo)
    shape = len(handles[0].map), bottom - top, right - left
    return Span(shape, (dy, dx), y + top * dy, x + left * dx)


def arrange(request: Think, span: Span) -> NDArray[np.float32]:
    """Lay handles' maps out where they lie: ``(d, rows, columns)``, NaN where there is none."""
    codes = np.full(span.shape, np.nan, np.float32)
    for handle in request.handles:
        row = round((handle.box[0] - span.y) / span.step[0])
        column = round((handle.box[1] - span.x) / span.step[1])
        _, rows, columns = handle.map.shape
        there = codes[
            :, max(0, row) : max(0, row + rows), max(0, column) : max(0, column + columns)
        ]
        first = max(0, -row), max(0, -column)
        there[:] = handle.map[
            :, first[0] : first[0] + there.shape[1], first[1] : first[1] + there.shape[2]
        ]
    return codes


def in_range(picture: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Round to the image's own type, as every other read does."""
    if np.issubdtype(dtype, np.integer):
        info = np.iinfo(dtype)
        return np.clip(np.floor(picture + 0.5), info.min, info.max).astype(dtype)
    return picture.astype(dtype)
