"""Looking through a warp: one input, whose charge falls where its samples were taken."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.engine.cost import Charge
from hrviewer.engine.inference_context import Sight
from hrviewer.engine.patch_result import Seen
from hrviewer.engine.postprocess import answer, as_box, failed, kind_of
from hrviewer.engine.warp_sampling import finest, sample, spread, unwarp
from hrviewer.geometry import Grid, Patch
from hrviewer.models import Network
from hrviewer.strategies import Warp

__all__ = ["see_warped"]


def see_warped(sight: Sight, network: Network, request: Warp) -> list[Seen]:
    """One warped input; its charge falls where its samples were taken."""
    rect = request.rect & sight.pyramid.rect
    core = (rect if request.core is None else request.core & rect) & sight.region
    scale = math.sqrt(rect.area / (request.shape[0] * request.shape[1]))
    patch = Patch(core, scale)
    charge = Charge()
    try:
        with sight.meter.reading() as reading:
            picture = sample(sight.pyramid, rect, request.grid, request.shape, sight.meter)
        charge = Charge(bytes=reading.bytes, pixels=reading.pixels, read_s=reading.seconds)
        start = time.perf_counter()
        array = network.card.prepare(in_range(picture, sight.pyramid.dtype))
        charge = replace(charge, prepare_s=time.perf_counter() - start)
        done = sight.device.submit(network, array, sight.priority, alone=True).result()
    except Exception as error:
        return [failed(patch, request.role, charge, network.card.outputs, error)]
    start = time.perf_counter()
    # An octave finer than it was seen anywhere: coarse warps need no fine maps.
    octave = math.floor(math.log2(max(1.0, finest(rect, request.grid, request.shape))) + 1e-6)
    shape = Grid(rect, max(1, network.stride * 2**octave // 2)).shape
    values = unwarp(done.output, request.grid, shape, kind_of(network.card))
    box = as_box(rect)
    value = answer(network.card, values, box, core, sight.pyramid.rect)
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


def in_range(picture: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Round to the image's own type, as every other read does."""
    if np.issubdtype(dtype, np.integer):
        info = np.iinfo(dtype)
        return np.clip(np.floor(picture + 0.5), info.min, info.max).astype(dtype)
    return picture.astype(dtype)
