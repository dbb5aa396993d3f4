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
from hrviewer.engine.seen import Seen
from hrviewer.engine.warp import finest, sample, spread, unwarp
from hrviewer.geometry import Grid, Patch
from hrviewer.models import Network
from hrviewer.strategies import Look, Think, Warp

if TYPE_CHECKING:
    from hrviewer.engine.looker import Looker

__all__ = ["Span", "arrange", "see_tokens", "see_warped", "spanned", "think"]


def see_tokens(looker: Looker, network: Network, request: Look, group: list[int]) -> list[Seen]:
    """One joint input of many patches; each bears an equal share."""
    patches = [
        replace(request.patches[i], core=request.patches[i].core & looker.region) for i in group
    ]
    charge = Charge()
    try:
        tokens, boxes = [], []
        for index in group:
            patch = request.patches[index]
            with looker.meter.reading() as reading:
                pixels = looker.pyramid.read(
                    patch.core, patch.scale, fill="reflect", meter=looker.meter
                )
            start = time.perf_counter()
            tokens.append(network.card.prepare(pixels))
            boxes.append(patch.core.astuple())
            charge += Charge(
                bytes=reading.bytes,
                pixels=reading.pixels,
                read_s=reading.seconds,
                prepare_s=time.perf_counter() - start,
            )
        arrays = np.stack(tokens), np.array(boxes, np.float32)
        done = looker.device.call(lambda: network.join(*arrays), looker.priority).result()
    except Exception as error:
        share = charge * (1 / len(group))
        return [failed(p, request.role, share, network.card.outputs, error) for p in patches]
    charge += Charge(flops=network.join_flops(len(group)), infer_s=done.seconds)
    share = charge * (1 / len(group))
    return [
        Seen(
            patch,
            request.role,
            np.asarray(value, np.float64),
            np.asarray(value, np.float32)[:, None, None],
            as_box(patch.core),
            share,
        )
        for patch, value in zip(patches, done.output, strict=True)
    ]


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
        done = looker.device.submit(network, array, looker.priority).result()
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
        span = spanned(request, network.halo)
        codes = arrange(request, span)
        known = np.asarray(np.isfinite(codes).all(axis=0))
        done = looker.device.call(
            lambda: network.think(np.nan_to_num(codes)), looker.priority
        ).result()
        start = time.perf_counter()
        values = np.asarray(done.output, np.float32)
        rows, columns = (
            np.arange(n) * k // n for n, k in zip(values.shape[1:], known.shape, strict=True)
        )
        values = np.where(known[np.ix_(rows, columns)], values, np.float32(np.nan))
        kind = kind_of(network.card)
        values, box = crop(values, span.box, patch.core, image, kind)
        value = answer(network.card, np.nan_to_num(values), box, patch.core, image)
    except Exception as error:
        return [failed(patch, request.role, Charge(), network.card.outputs, error)]
    charge = Charge(
        flops=network.think_flops(*codes.shape),
        infer_s=done.seconds,
        post_s=time.perf_counter() - start,
    )
    return [Seen(patch, request.role, value, values, box, charge)]


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

    @property
    def box(self) -> Box:
        """What it covers."""
        return self.y, self.x, self.shape[1] * self.step[0], self.shape[2] * self.step[1]


def spanned(request: Think, halo: int) -> Span:
    """Return the part of the handles' common grid that a thought needs: `where` and a halo."""
    handles, where = request.handles, request.where
    # A failed look has one cell of its core's size: how fine its map would have been, others say.
    whole = [handle for handle in handles if np.isfinite(handle.map).all()] or handles
    dy = max(handle.box[2] / handle.map.shape[1] for handle in whole)
    dx = max(handle.box[3] / handle.map.shape[2] for handle in whole)
    y, x = (min(handle.box[axis] for handle in handles) for axis in (0, 1))
    y1, x1 = (max(handle.box[axis] + handle.box[axis + 2] for handle in handles) for axis in (0, 1))
    top, left = (math.floor(o + 1e-6) for o in ((where.y - y) / dy, (where.x - x) / dx))
    bottom, right = (math.ceil(o - 1e-6) for o in ((where.y1 - y) / dy, (where.x1 - x) / dx))
    top, left = max(0, top - halo), max(0, left - halo)
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
