"""Looks whose parts belong together: tokens of one input, a warp, thoughts on what was seen.

They run one after another on the caller's thread; what they cost is shared out as the ledger
asks: evenly among tokens, by sample density over a warp, over `where` for a thought.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.engine.answer import answer, as_box, failed, kind_of
from hrviewer.engine.charge import Charge
from hrviewer.engine.seen import Seen
from hrviewer.engine.warp import finest, sample, spread, unwarp
from hrviewer.geometry import Grid, Patch
from hrviewer.models import Network
from hrviewer.strategies import Look, Think, Warp

if TYPE_CHECKING:
    from hrviewer.engine.looker import Looker

__all__ = ["arrange", "see_tokens", "see_warped", "think"]


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
    """A network on what was already seen."""
    codes = arrange(request)
    patch = Patch(request.where & looker.region, 1.0)
    try:
        done = looker.device.call(lambda: network.think(codes), looker.priority).result()
    except Exception as error:
        return [failed(patch, request.role, Charge(), network.card.outputs, error)]
    values = np.asarray(done.output, np.float32)
    box = as_box(request.where)
    return [
        Seen(
            patch,
            request.role,
            answer(network.card, values, box, patch.core, looker.pyramid.rect),
            values,
            box,
            Charge(flops=network.think_flops(*codes.shape), infer_s=done.seconds),
        )
    ]


def arrange(request: Think) -> NDArray[np.float32]:
    """Lay handles out by their patches' rows and columns: ``(d, rows, columns)``, 0 where none."""
    cores = [handle.patch.core for handle in request.handles]
    ys, xs = sorted({core.y for core in cores}), sorted({core.x for core in cores})
    values = [np.nan_to_num(handle.value) for handle in request.handles]
    codes = np.zeros((len(values[0]), len(ys), len(xs)), np.float32)
    for core, value in zip(cores, values, strict=True):
        codes[:, ys.index(core.y), xs.index(core.x)] = value
    return codes


def in_range(picture: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Round to the image's own type, as every other read does."""
    if np.issubdtype(dtype, np.integer):
        info = np.iinfo(dtype)
        return np.clip(np.floor(picture + 0.5), info.min, info.max).astype(dtype)
    return picture.astype(dtype)
