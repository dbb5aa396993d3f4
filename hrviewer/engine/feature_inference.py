"""Thoughts: a network on what others saw, as a head on an encoder's codes.

What a thought costs is spread evenly over what it speaks of.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hrviewer.engine.canvas import Box
from hrviewer.engine.cost import Charge
from hrviewer.engine.inference_context import Sight
from hrviewer.engine.patch_result import Seen
from hrviewer.engine.postprocess import answer, crop, failed, kind_of
from hrviewer.geometry import Patch
from hrviewer.models import Network
from hrviewer.models.network import Floats
from hrviewer.strategies import Think

__all__ = ["spanned", "think", "thinking"]


def think(sight: Sight, network: Network, request: Think) -> list[Seen]:
    """A network on what was already seen; it says nothing of where that failed or is missing."""
    patch = Patch(request.where & sight.region, request.handles[0].patch.scale)
    image = sight.pyramid.rect
    try:
        span = spanned(request, network)
        codes = arrange(request, span)
        known = np.asarray(np.isfinite(codes).all(axis=0))
        done = sight.device.call(
            lambda: _thought(network, np.nan_to_num(codes), request.explain), sight.priority
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
