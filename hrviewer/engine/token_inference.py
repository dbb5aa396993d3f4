"""Tokens: patches that are one joint input of a transformer, which share what it costs evenly."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hrviewer.engine.cost import Cost
from hrviewer.engine.inference_context import InferenceContext
from hrviewer.engine.patch_result import InferenceResult
from hrviewer.engine.postprocess import as_box, crop, failed_result, map_kind, summarize_core
from hrviewer.engine.roles import native_scale
from hrviewer.geometry import Patch, Rect
from hrviewer.models import Network
from hrviewer.models.network import Floats
from hrviewer.strategies import PatchRequest

__all__ = ["TokenAttention", "batch_groups", "infer_tokens", "token_attention"]

MAX_BATCH_TOKENS = 2048
"""Tokens that run at a time, unless one group has more."""

MAX_READ_RATIO = 4
"""How much more than its tokens may be read to read them all at once."""


@dataclass(frozen=True)
class _TokenGroup:
    """The tokens of one joint input, read.

    Attributes
    ----------
    patches : list of Patch
        As asked, with the cores that are answered for.
    rects : list of Rect
        What each token sees.
    tokens : ndarray, shape (n, C, p, p)
        Prepared; none if they could not be read.
    cost : Charge
        What reading and preparing them cost.
    error : Exception or None
        Why they could not be read.
    """

    patches: list[Patch]
    rects: list[Rect]
    tokens: Floats
    cost: Cost
    error: Exception | None = None


def batch_groups(request: PatchRequest) -> list[list[list[int]]]:
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
            room = MAX_BATCH_TOKENS
        found[-1].append(members)
        room -= len(members)
    return found


def infer_tokens(
    context: InferenceContext, network: Network, request: PatchRequest, groups: list[list[int]]
) -> list[InferenceResult]:
    """Joint inputs of many patches each, packed into one; every token bears its equal share.

    What is context bears nothing: its cost falls on the others of its group.
    """
    inputs = [_read_tokens(context, network, request, members) for members in groups]
    whole = [group for group in inputs if group.error is None]
    native, _ = native_scale(network.card, context.pyramid)
    boxes = np.array([r.astuple() for group in whole for r in group.rects], np.float64) / native
    lengths = [len(group.rects) for group in whole]
    error: Exception | None = None
    output, seconds = np.zeros((0, 1, 1, 1), np.float32), 0.0
    if whole:
        tokens = np.concatenate([group.tokens for group in whole])
        try:
            done = context.device.call(
                lambda: network.run_tokens(tokens, boxes, lengths, request.merge), context.priority
            ).result()
            output, seconds = np.asarray(done.output, np.float32), done.seconds
        except Exception as failure:
            error = failure
    flops = [network.token_flops(n, request.merge) for n in lengths]
    seen: list[InferenceResult] = []
    place, number = 0, 0
    for group in inputs:
        charge, wrong = group.cost, group.error or error
        answering = sum(not patch.core.empty for patch in group.patches)
        if wrong is None:
            part = flops[number]
            charge += Cost(flops=part, infer_s=seconds * part / sum(flops))
        share = charge * (1 / max(1, answering))
        for i, (patch, rect) in enumerate(zip(group.patches, group.rects, strict=True)):
            paid = Cost() if patch.core.empty else share
            if wrong is not None:
                outputs = network.card.output_channels
                seen.append(failed_result(patch, request.role, paid, outputs, wrong))
            else:
                values = output[place + i]
                seen.append(
                    _token_result(context, network, patch, rect, values, request.role, paid)
                )
        if group.error is None:
            place, number = place + len(group.rects), number + 1
    return seen


@dataclass(frozen=True, eq=False)
class TokenAttention:
    """Which tokens of a group looked where.

    Attributes
    ----------
    token_rects : list of Rect
        What each token sees, level-0 pixels.
    predicted : ndarray of bool, shape (n,)
        Those that are no context.
    weights : ndarray, shape (n, n)
        Of what token *i* takes in the last layer, the part that it takes from *j*.
    merge_group : ndarray, shape (n,)
        Tokens of one number were merged.
    """

    token_rects: list[Rect]
    predicted: NDArray[np.bool_]
    weights: Floats
    merge_group: NDArray[np.int64]


def token_attention(
    context: InferenceContext, request: PatchRequest, group_id: int
) -> TokenAttention | None:
    """Return where the tokens of one of a look's groups looked; None if nobody can tell.

    They are read and run once more: it is for a person who asks, and no run is charged for it.
    """
    network = context.models[request.role]
    members = [i for i, group in enumerate(request.group or ()) if group == group_id]
    if not network.has_attention or not members:
        return None
    read = _read_tokens(context, network, request, members)
    if read.error is not None:
        raise read.error
    native, _ = native_scale(network.card, context.pyramid)
    boxes = np.array([rect.astuple() for rect in read.rects], np.float64) / native
    weights, owner = (
        context.device.call(
            lambda: network.attention(read.tokens, boxes, request.merge), context.priority
        )
        .result()
        .output
    )
    answers = np.array([not patch.core.empty for patch in read.patches])
    return TokenAttention(read.rects, answers, weights, owner)


def _token_result(
    context: InferenceContext,
    network: Network,
    patch: Patch,
    rect: Rect,
    values: Floats,
    role: str,
    cost: Cost,
) -> InferenceResult:
    """Return what a token said of its core."""
    image, card = context.pyramid.rect, network.card
    box = as_box(rect)
    if patch.core.empty:
        return InferenceResult(patch, role, np.zeros(card.output_channels), values, box, cost)
    if patch.core == rect and rect in image and map_kind(card) == "mass":
        value = values.sum((1, 2), dtype=np.float64)  # which is most of them
        return InferenceResult(patch, role, value, values, box, cost)
    values, box = crop(values, box, patch.core, image, map_kind(card))
    value = summarize_core(card, values, box, patch.core, image)
    return InferenceResult(patch, role, value, values, box, cost)


def _read_tokens(
    context: InferenceContext, network: Network, request: PatchRequest, members: list[int]
) -> _TokenGroup:
    """Read a group's tokens: neighbours of one scale together."""
    asked = [request.patches[i] for i in members]
    patches = [replace(patch, core=patch.core & context.region) for patch in asked]
    side = network.card.input.tile
    rects = [patch.rect for patch in asked]
    tokens = np.empty((len(asked), network.card.input.channel_count, side, side), np.float32)
    charge = Cost()
    try:
        for scale in sorted({patch.scale for patch in asked}):
            same = [i for i, patch in enumerate(asked) if patch.scale == scale]
            for some in _group_reads([rects[i] for i in same]):
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
                with context.meter.measure() as reading:
                    pixels = context.pyramid.read(block, scale, fill="reflect", meter=context.meter)
                start = time.perf_counter()
                ready = network.card.prepare(pixels)
                for i in inside:
                    y, x = (
                        round((at - first) / scale)
                        for at, first in ((rects[i].y, block.y), (rects[i].x, block.x))
                    )
                    tokens[i] = ready[:, y : y + side, x : x + side]
                charge += Cost(
                    bytes=reading.bytes,
                    pixels=reading.pixels,
                    read_s=reading.seconds,
                    prepare_s=time.perf_counter() - start,
                )
    except Exception as error:
        return _TokenGroup(patches, rects, tokens, charge, error)
    return _TokenGroup(patches, rects, tokens, charge)


def _group_reads(rects: list[Rect]) -> list[list[int]]:
    """Return which rectangles to read at once: all that lie on one lattice, if they fill it."""
    y, x = min(r.y for r in rects), min(r.x for r in rects)
    h, w = max(r.y1 for r in rects) - y, max(r.x1 for r in rects) - x
    first = rects[0]
    aligned = all(
        (r.h, r.w) == (first.h, first.w) and (r.y - y) % r.h == (r.x - x) % r.w == 0 for r in rects
    )
    if aligned and h * w <= MAX_READ_RATIO * len(rects) * first.area:
        return [list(range(len(rects)))]
    return [[i] for i in range(len(rects))]
