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
from hrviewer.engine.cost import Cost
from hrviewer.engine.inference_context import InferenceContext
from hrviewer.engine.patch_result import InferenceResult
from hrviewer.engine.postprocess import crop, failed_result, map_kind, summarize_core
from hrviewer.geometry import Patch
from hrviewer.models import Network
from hrviewer.models.network import Floats
from hrviewer.strategies import FeatureRequest

__all__ = ["feature_flops", "feature_grid", "run_on_features"]


def run_on_features(
    context: InferenceContext, network: Network, request: FeatureRequest
) -> list[InferenceResult]:
    """A network on what was already seen; it says nothing of where that failed or is missing."""
    patch = Patch(request.region & context.region, request.results[0].patch.scale)
    image = context.pyramid.rect
    try:
        span = feature_grid(request, network)
        codes = assemble_features(request, span)
        known = np.asarray(np.isfinite(codes).all(axis=0))
        done = context.device.call(
            lambda: _run(network, np.nan_to_num(codes), request.attribution), context.priority
        ).result()
        start = time.perf_counter()
        values = np.asarray(done.output, np.float32)
        n = network.stride
        rows, columns = (np.arange(k) * n for k in values.shape[1:])
        values = np.where(known[np.ix_(rows, columns)], values, np.float32(np.nan))
        kind = map_kind(network.card)
        values, box = crop(values, span.output_box(values, n), patch.core, image, kind)
        # What is not known adds nothing; a head that attends leaves it out by itself.
        said = values if network.card.output.attention else np.nan_to_num(values)
        value = summarize_core(network.card, said, box, patch.core, image)
    except Exception as error:
        outputs = network.card.output_channels + request.attribution
        return [failed_result(patch, request.role, Cost(), outputs, error)]
    charge = Cost(
        flops=feature_flops(network, request, span.shape),
        infer_s=done.seconds,
        post_s=time.perf_counter() - start,
    )
    return [InferenceResult(patch, request.role, value, values, box, charge)]


def feature_flops(network: Network, request: FeatureRequest, shape: tuple[int, int, int]) -> float:
    """Return what a thought about a grid of codes costs, in FLOPs."""
    cost = network.feature_flops(*shape)
    return cost + network.attribution_flops(*shape) if request.attribution else cost


def _run(network: Network, features: Floats, explain: bool) -> Floats:
    said = network.run_features(features)
    return np.concatenate([said, network.attribution(features)[None]]) if explain else said


@dataclass(frozen=True, slots=True)
class FeatureGrid:
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

    def output_box(self, values: Floats, stride: int) -> Box:
        """Return what an answer covers that has a value for every so many cells."""
        _, rows, columns = values.shape
        return self.y, self.x, rows * stride * self.step[0], columns * stride * self.step[1]


def feature_grid(request: FeatureRequest, network: Network) -> FeatureGrid:
    """Return the part of the handles' common grid that a thought needs: `where` and a halo.

    It begins where the network's inputs may begin.
    """
    halo, period = network.halo, network.period
    handles, where = request.results, request.region
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
    return FeatureGrid(shape, (dy, dx), y + top * dy, x + left * dx)


def assemble_features(request: FeatureRequest, grid: FeatureGrid) -> NDArray[np.float32]:
    """Lay handles' maps out where they lie: ``(d, rows, columns)``, NaN where there is none."""
    codes = np.full(grid.shape, np.nan, np.float32)
    for handle in request.results:
        row = round((handle.box[0] - grid.y) / grid.step[0])
        column = round((handle.box[1] - grid.x) / grid.step[1])
        _, rows, columns = handle.map.shape
        there = codes[
            :, max(0, row) : max(0, row + rows), max(0, column) : max(0, column + columns)
        ]
        first = max(0, -row), max(0, -column)
        there[:] = handle.map[
            :, first[0] : first[0] + there.shape[1], first[1] : first[1] + there.shape[2]
        ]
    return codes
