"""Inference on feature maps already computed, as of a head on an encoder's embeddings.

Its cost is attributed evenly to the region that it predicts.
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
from hrviewer.engine.inference_result import InferenceResult
from hrviewer.engine.postprocess import crop, failed_result, map_kind, summarize_core
from hrviewer.geometry import Patch
from hrviewer.models import Network
from hrviewer.models.network import Floats
from hrviewer.strategies import FeatureRequest

__all__ = ["feature_flops", "feature_grid", "run_on_features"]


def run_on_features(
    context: InferenceContext, network: Network, request: FeatureRequest
) -> list[InferenceResult]:
    """Run a network on earlier results; where those failed or are missing it predicts NaN."""
    patch = Patch(request.region & context.region, request.results[0].patch.scale)
    image = context.pyramid.rect
    try:
        grid = feature_grid(request, network)
        features = assemble_features(request, grid)
        known = np.asarray(np.isfinite(features).all(axis=0))
        done = context.device.call(
            lambda: _run(network, np.nan_to_num(features), request.attribution), context.priority
        ).result()
        start = time.perf_counter()
        values = np.asarray(done.output, np.float32)
        n = network.stride
        rows, columns = (np.arange(k) * n for k in values.shape[1:])
        values = np.where(known[np.ix_(rows, columns)], values, np.float32(np.nan))
        kind = map_kind(network.card)
        values, box = crop(values, grid.output_box(values, n), patch.core, image, kind)
        # Unknown cells add nothing; attention pooling leaves them out by itself.
        summed = values if network.card.output.attention else np.nan_to_num(values)
        value = summarize_core(network.card, summed, box, patch.core, image)
    except Exception as error:
        outputs = network.card.output_channels + request.attribution
        return [failed_result(patch, request.role, Cost(), outputs, error)]
    cost = Cost(
        flops=feature_flops(network, request, grid.shape),
        infer_s=done.seconds,
        post_s=time.perf_counter() - start,
    )
    return [InferenceResult(patch, request.role, value, values, box, cost)]


def feature_flops(network: Network, request: FeatureRequest, shape: tuple[int, int, int]) -> float:
    """Return the FLOPs of inference on a feature grid of this shape."""
    cost = network.feature_flops(*shape)
    return cost + network.attribution_flops(*shape) if request.attribution else cost


def _run(network: Network, features: Floats, attribution: bool) -> Floats:
    output = network.run_features(features)
    if not attribution:
        return output
    return np.concatenate([output, network.attribution(features)[None]])


@dataclass(frozen=True, slots=True)
class FeatureGrid:
    """The common grid of maps of one network and scale.

    Parameters
    ----------
    shape : tuple of int
        ``(d, rows, columns)``.
    step : tuple of float
        A cell's height and width, level-0 pixels.
    y, x : float
        Its upper left corner, level-0 pixels.
    """

    shape: tuple[int, int, int]
    step: tuple[float, float]
    y: float
    x: float

    def output_box(self, values: Floats, stride: int) -> Box:
        """Return the box of an output map with one value per `stride` cells."""
        _, rows, columns = values.shape
        return self.y, self.x, rows * stride * self.step[0], columns * stride * self.step[1]


def feature_grid(request: FeatureRequest, network: Network) -> FeatureGrid:
    """Return the part of the results' common grid that inference needs: the region and a halo.

    It begins at a multiple of the network's period.
    """
    halo, period = network.halo, network.period
    results, region = request.results, request.region
    # The map of a failed result is one cell of its core's size: the cell size is taken from others.
    complete = [result for result in results if np.isfinite(result.map).all()] or results
    dy = max(result.box[2] / result.map.shape[1] for result in complete)
    dx = max(result.box[3] / result.map.shape[2] for result in complete)
    y, x = (min(result.box[axis] for result in results) for axis in (0, 1))
    y1, x1 = (max(result.box[axis] + result.box[axis + 2] for result in results) for axis in (0, 1))
    top, left = (math.floor(o + 1e-6) for o in ((region.y - y) / dy, (region.x - x) / dx))
    bottom, right = (math.ceil(o - 1e-6) for o in ((region.y1 - y) / dy, (region.x1 - x) / dx))
    # Counted from the image's corner, as the network's period is.
    before_y, before_x = round(y / dy), round(x / dx)
    top = max(0, (before_y + top - halo) // period * period - before_y)
    left = max(0, (before_x + left - halo) // period * period - before_x)
    bottom = min(math.ceil((y1 - y) / dy - 1e-6), bottom + halo)
    right = min(math.ceil((x1 - x) / dx - 1e-6), right + halo)
    shape = len(results[0].map), bottom - top, right - left
    return FeatureGrid(shape, (dy, dx), y + top * dy, x + left * dx)


def assemble_features(request: FeatureRequest, grid: FeatureGrid) -> NDArray[np.float32]:
    """Arrange the results' maps on the grid: ``(d, rows, columns)``, NaN where there is none."""
    features = np.full(grid.shape, np.nan, np.float32)
    for result in request.results:
        row = round((result.box[0] - grid.y) / grid.step[0])
        column = round((result.box[1] - grid.x) / grid.step[1])
        _, rows, columns = result.map.shape
        part = features[
            :, max(0, row) : max(0, row + rows), max(0, column) : max(0, column + columns)
        ]
        first = max(0, -row), max(0, -column)
        part[:] = result.map[
            :, first[0] : first[0] + part.shape[1], first[1] : first[1] + part.shape[2]
        ]
    return features
