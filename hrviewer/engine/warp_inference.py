"""Inference on a warped input; its cost is attributed to where the samples were taken."""

from __future__ import annotations

import math
import time
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.engine.cost import Cost
from hrviewer.engine.device_scheduler import TimedOutput
from hrviewer.engine.inference_context import InferenceContext
from hrviewer.engine.inference_result import InferenceResult
from hrviewer.engine.missing_data import blank_missing, fill_missing, with_data
from hrviewer.engine.object_inference import PixelMapping, object_result
from hrviewer.engine.postprocess import as_box, failed_result, map_kind, summarize_core
from hrviewer.engine.preprocess import prepare_input
from hrviewer.engine.started_inference import StartedInference
from hrviewer.engine.warp_sampling import finest_scale, sample, sample_density, unwarp
from hrviewer.geometry import Grid, Patch, Rect
from hrviewer.models import Network
from hrviewer.models.detection import Detections
from hrviewer.pyramid.area_read import Coverage
from hrviewer.strategies import WarpRequest
from hrviewer.strategies.nonuniform.grid_sampler import forward

__all__ = ["start_warp"]


def start_warp(
    context: InferenceContext, network: Network, request: WarpRequest
) -> StartedInference:
    """Sample an input and start inference on it."""
    rect = request.rect & context.pyramid.rect
    core = (rect if request.core is None else request.core & rect) & context.region
    scale = math.sqrt(rect.area / (request.shape[0] * request.shape[1]))
    patch = Patch(core, scale)
    cost = Cost()
    try:
        with context.meter.measure() as reading:
            pixels, coverage = sample(
                context.pyramid, rect, request.grid, request.shape, context.meter
            )
        cost = Cost(bytes=reading.bytes, pixels=reading.pixels, read_s=reading.seconds)
        start = time.perf_counter()
        array = prepare_input(
            context.pyramid, network.card, round_to_dtype(pixels, context.pyramid.dtype)
        )
        fill_missing(network.card, array, coverage)
        cost = replace(cost, prepare_s=time.perf_counter() - start)
        output = context.device.submit(network, array, context.priority, exclusive=True)
    except Exception as error:
        outputs = network.card.output_channels
        return StartedInference.failed([failed_result(patch, request.role, cost, outputs, error)])
    return StartedInference(
        output, lambda: [_warp_result(context, request, rect, patch, cost, coverage, output)]
    )


def _warp_result(
    context: InferenceContext,
    request: WarpRequest,
    rect: Rect,
    patch: Patch,
    cost: Cost,
    coverage: Coverage | None,
    output: Future[TimedOutput],
) -> InferenceResult:
    """Wait for the output of a warp, and un-warp it."""
    network, core = context.models[request.role], patch.core
    try:
        done = output.result()
    except Exception as error:
        return failed_result(patch, request.role, cost, network.card.output_channels, error)
    start = time.perf_counter()
    weights = sample_density(request.grid, rect, core)
    if isinstance(done.output, Detections):
        found = done.output if coverage is None else with_data(done.output, coverage)
        result = object_result(
            found,
            unwarping(request, rect),
            as_box(rect),
            network.stride,
            patch,
            request.role,
            network.card,
            context.pyramid.rect,
        )
        flops, post_s = network.flops(*request.shape), time.perf_counter() - start
        cost = replace(cost, flops=flops, infer_s=done.seconds, post_s=post_s)
        return replace(result, cost=cost, cost_weights=weights)
    # An octave finer than the finest samples: coarse warps need no fine maps.
    octave = math.floor(math.log2(max(1.0, finest_scale(rect, request.grid, request.shape))) + 1e-6)
    shape = Grid(rect, max(1, network.stride * 2**octave // 2)).shape
    values = _unwarp(network, request, done.output, coverage, shape)
    box = as_box(rect)
    value = summarize_core(network.card, values, box, core, context.pyramid.rect)
    cost = replace(
        cost,
        flops=network.flops(*request.shape),
        infer_s=done.seconds,
        post_s=time.perf_counter() - start,
    )
    return InferenceResult(patch, request.role, value, values, box, cost, cost_weights=weights)


def unwarping(request: WarpRequest, rect: Rect) -> PixelMapping:
    """Return the mapping from the canvas of a warp to level-0 pixels."""

    def place(points: NDArray[np.float64]) -> NDArray[np.float64]:
        inside = np.clip(points / request.shape, 0, 1)
        sides, corner = np.array([rect.h, rect.w]), np.array([rect.y, rect.x])
        placed: NDArray[np.float64] = forward(request.grid, inside) * sides + corner
        return placed

    return place


def _unwarp(
    network: Network,
    request: WarpRequest,
    output: NDArray[np.float32],
    coverage: Coverage | None,
    shape: tuple[int, int],
) -> NDArray[np.float32]:
    """Resample an output onto the rectangle, with NaN in cells without data."""
    kind = map_kind(network.card)
    if coverage is None:
        return unwarp(output, request.grid, shape, kind)
    blanked = blank_missing(output, coverage, network.stride)
    known = ~np.isnan(blanked).any(axis=0, keepdims=True)
    values = unwarp(np.where(known, output, 0), request.grid, shape, kind)
    share = unwarp(np.asarray(known, np.float32), request.grid, shape, "intensity")[0]
    values[:, ~(share > 0)] = np.nan
    return values


def round_to_dtype(pixels: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Round to the image's data type, as `Pyramid.read` does."""
    if np.issubdtype(dtype, np.integer):
        info = np.iinfo(dtype)
        return np.clip(np.floor(pixels + 0.5), info.min, info.max).astype(dtype)
    return pixels.astype(dtype)
