"""Inference on tokens: patches that form one joint input of a transformer and share its cost."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from hrviewer.engine.cost import Cost
from hrviewer.engine.device_scheduler import TimedOutput
from hrviewer.engine.inference_context import InferenceContext
from hrviewer.engine.inference_result import InferenceResult
from hrviewer.engine.missing_data import blank_missing, fill_missing
from hrviewer.engine.model_infos import native_scale
from hrviewer.engine.postprocess import as_box, crop, failed_result, map_kind, summarize_core
from hrviewer.engine.preprocess import prepare_input
from hrviewer.engine.started_inference import StartedInference
from hrviewer.geometry import Patch, Rect
from hrviewer.models import Network
from hrviewer.models.network import Floats
from hrviewer.pyramid.area_read import Coverage
from hrviewer.strategies import PatchRequest

__all__ = ["TokenAttention", "batch_groups", "start_tokens", "token_attention"]

MAX_BATCH_TOKENS = 512
"""Most tokens in a batch of groups, unless one group has more.

The next batch is read while one is inferred, so that a request should have several.
"""

MAX_READ_RATIO = 4
"""Largest area, relative to the tokens', that is read to read them all at once."""


@dataclass(frozen=True)
class _TokenGroup:
    """Tokens of one joint input, read and prepared.

    Attributes
    ----------
    patches : list of Patch
        The requested patches, with their cores clipped to the region.
    rects : list of Rect
        Rectangle that each token covers.
    tokens : ndarray, shape (n, C, p, p)
        Prepared inputs; undefined after an error.
    cost : Cost
        Cost of reading and preparing.
    error : Exception or None
        The error, if they could not be read.
    coverage : dict of ndarray, shape (p, p)
        Of tokens that have pixels without data, the part of each pixel that has them.
    """

    patches: list[Patch]
    rects: list[Rect]
    tokens: Floats
    cost: Cost
    error: Exception | None = None
    coverage: dict[int, Coverage] = field(default_factory=dict)


def batch_groups(request: PatchRequest) -> list[list[list[int]]]:
    """Return the indices of a request's patches by group, in batches of groups.

    Batches depend on the request alone, so that the same request gives the same bits.
    """
    assert request.group is not None
    groups: dict[int, list[int]] = {}
    for index, group in enumerate(request.group):
        groups.setdefault(group, []).append(index)
    batches: list[list[list[int]]] = []
    room = 0
    for members in groups.values():
        if len(members) > room:
            batches.append([])
            room = MAX_BATCH_TOKENS
        batches[-1].append(members)
        room -= len(members)
    return batches


def start_tokens(
    context: InferenceContext, network: Network, request: PatchRequest, groups: list[list[int]]
) -> StartedInference:
    """Read groups of tokens and start inference on them in one batch.

    Every token gets an equal share of the cost; context tokens get none: their cost is attributed
    to the others of their group.
    """
    inputs = [_read_tokens(context, network, request, members) for members in groups]
    complete = [group for group in inputs if group.error is None]
    native, _ = native_scale(network.card, context.pyramid)
    boxes = np.array([r.astuple() for group in complete for r in group.rects], np.float64) / native
    lengths = [len(group.rects) for group in complete]
    output: Future[TimedOutput] | None = None
    if complete:
        tokens = np.concatenate([group.tokens for group in complete])
        try:
            output = context.device.call(
                lambda: network.run_tokens(tokens, boxes, lengths, request.merge), context.priority
            )
        except Exception as error:  # a closed device
            output = Future()
            output.set_exception(error)
    return StartedInference(output, lambda: _token_results(context, request, inputs, output))


def _token_results(
    context: InferenceContext,
    request: PatchRequest,
    inputs: Sequence[_TokenGroup],
    pending: Future[TimedOutput] | None,
) -> list[InferenceResult]:
    """Wait for the output of groups of tokens, and return the results of all of them."""
    network = context.models[request.role]
    error: Exception | None = None
    output, seconds = np.zeros((0, 1, 1, 1), np.float32), 0.0
    if pending is not None:
        try:
            done = pending.result()
            output, seconds = np.asarray(done.output, np.float32), done.seconds
        except Exception as raised:
            error = raised
    flops = [
        network.token_flops(len(group.rects), request.merge)
        for group in inputs
        if group.error is None
    ]
    results: list[InferenceResult] = []
    first, number = 0, 0
    for group in inputs:
        cost, group_error = group.cost, group.error or error
        predicting = sum(not patch.core.empty for patch in group.patches)
        if group_error is None:
            part = flops[number]
            cost += Cost(flops=part, infer_s=seconds * part / sum(flops))
        share = cost * (1 / max(1, predicting))
        for i, (patch, rect) in enumerate(zip(group.patches, group.rects, strict=True)):
            token_cost = Cost() if patch.core.empty else share
            if group_error is not None:
                outputs = network.card.output_channels
                failed = failed_result(patch, request.role, token_cost, outputs, group_error)
                results.append(failed)
            else:
                values = output[first + i]
                if i in group.coverage:
                    cell = max(1, network.card.input.tile // values.shape[1])
                    values = blank_missing(values, group.coverage[i], cell)
                results.append(
                    _token_result(context, network, patch, rect, values, request.role, token_cost)
                )
        if group.error is None:
            first, number = first + len(group.rects), number + 1
    return results


@dataclass(frozen=True, eq=False)
class TokenAttention:
    """Attention between the tokens of a group.

    Attributes
    ----------
    token_rects : list of Rect
        Rectangle of each token, level-0 pixels.
    predicted : ndarray of bool, shape (n,)
        Whether a prediction is made for the token; False for context.
    weights : ndarray, shape (n, n)
        Attention of token *i* to token *j* in the last layer; rows sum to 1.
    merge_group : ndarray, shape (n,)
        Tokens of the same number were merged.
    """

    token_rects: list[Rect]
    predicted: NDArray[np.bool_]
    weights: Floats
    merge_group: NDArray[np.int64]


def token_attention(
    context: InferenceContext, request: PatchRequest, group_id: int
) -> TokenAttention | None:
    """Return the attention between the tokens of a group; None if the network does not provide it.

    The tokens are read and run once more; that cost belongs to no run.
    """
    network = context.models[request.role]
    members = [i for i, number in enumerate(request.group or ()) if number == group_id]
    if not network.has_attention or not members:
        return None
    group = _read_tokens(context, network, request, members)
    if group.error is not None:
        raise group.error
    native, _ = native_scale(network.card, context.pyramid)
    boxes = np.array([rect.astuple() for rect in group.rects], np.float64) / native
    weights, merge_group = (
        context.device.call(
            lambda: network.attention(group.tokens, boxes, request.merge), context.priority
        )
        .result()
        .output
    )
    predicted = np.array([not patch.core.empty for patch in group.patches])
    return TokenAttention(group.rects, predicted, weights, merge_group)


def _token_result(
    context: InferenceContext,
    network: Network,
    patch: Patch,
    rect: Rect,
    values: Floats,
    role: str,
    cost: Cost,
) -> InferenceResult:
    """Return the result for one token."""
    image, card = context.pyramid.rect, network.card
    box = as_box(rect)
    if patch.core.empty:
        return InferenceResult(patch, role, np.zeros(card.output_channels), values, box, cost)
    if patch.core == rect and rect in image and map_kind(card) == "mass":
        value = np.asarray(np.nansum(values, (1, 2), dtype=np.float64))  # the usual case
        return InferenceResult(patch, role, value, values, box, cost)
    values, box = crop(values, box, patch.core, image, map_kind(card))
    value = summarize_core(card, values, box, patch.core, image)
    return InferenceResult(patch, role, value, values, box, cost)


def _read_tokens(
    context: InferenceContext, network: Network, request: PatchRequest, members: list[int]
) -> _TokenGroup:
    """Read a group's tokens, neighbours of one scale together."""
    requested = [request.patches[i] for i in members]
    patches = [replace(patch, core=patch.core & context.region) for patch in requested]
    side = network.card.input.tile
    rects = [patch.rect for patch in requested]
    tokens = np.empty((len(requested), network.card.input.channel_count, side, side), np.float32)
    coverage: dict[int, Coverage] = {}
    cost = Cost()
    try:
        for scale in sorted({patch.scale for patch in requested}):
            same = [i for i, patch in enumerate(requested) if patch.scale == scale]
            for members_read in _group_reads([rects[i] for i in same]):
                inside = [same[i] for i in members_read]
                corner = Rect(
                    min(rects[i].y for i in inside), min(rects[i].x for i in inside), 0, 0
                )
                block = Rect(
                    corner.y,
                    corner.x,
                    max(rects[i].y1 for i in inside) - corner.y,
                    max(rects[i].x1 for i in inside) - corner.x,
                )
                with context.meter.measure() as reading:
                    pixels, parts = context.pyramid.read_with_coverage(
                        block, scale, fill="reflect", meter=context.meter
                    )
                start = time.perf_counter()
                prepared = prepare_input(context.pyramid, network.card, pixels)
                fill_missing(network.card, prepared, parts)
                for i in inside:
                    y, x = (
                        round((position - origin) / scale)
                        for position, origin in ((rects[i].y, block.y), (rects[i].x, block.x))
                    )
                    tokens[i] = prepared[:, y : y + side, x : x + side]
                    if parts is not None:
                        coverage[i] = parts[y : y + side, x : x + side]
                cost += Cost(
                    bytes=reading.bytes,
                    pixels=reading.pixels,
                    read_s=reading.seconds,
                    prepare_s=time.perf_counter() - start,
                )
    except Exception as error:
        return _TokenGroup(patches, rects, tokens, cost, error)
    return _TokenGroup(patches, rects, tokens, cost, coverage=coverage)


def _group_reads(rects: list[Rect]) -> list[list[int]]:
    """Return which rectangles to read at once: all, if they fill most of a common lattice."""
    y, x = min(r.y for r in rects), min(r.x for r in rects)
    h, w = max(r.y1 for r in rects) - y, max(r.x1 for r in rects) - x
    first = rects[0]
    aligned = all(
        (r.h, r.w) == (first.h, first.w) and (r.y - y) % r.h == (r.x - x) % r.w == 0 for r in rects
    )
    if aligned and h * w <= MAX_READ_RATIO * len(rects) * first.area:
        return [list(range(len(rects)))]
    return [[i] for i in range(len(rects))]
