"""Tokens: patches that are one joint input of a transformer, which share what it costs evenly."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hrviewer.engine.cost import Charge
from hrviewer.engine.inference_context import Sight
from hrviewer.engine.patch_result import Seen
from hrviewer.engine.postprocess import answer, as_box, crop, failed, kind_of
from hrviewer.engine.roles import native_scale
from hrviewer.geometry import Patch, Rect
from hrviewer.models import Network
from hrviewer.models.network import Floats
from hrviewer.strategies import Look

__all__ = ["Attended", "attended", "packs", "see_tokens"]

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
    sight: Sight, network: Network, request: Look, groups: list[list[int]]
) -> list[Seen]:
    """Joint inputs of many patches each, packed into one; every token bears its equal share.

    What is context bears nothing: its cost falls on the others of its group.
    """
    inputs = [_read_tokens(sight, network, request, members) for members in groups]
    whole = [group for group in inputs if group.error is None]
    native, _ = native_scale(network.card, sight.pyramid)
    boxes = np.array([r.astuple() for group in whole for r in group.rects], np.float64) / native
    lengths = [len(group.rects) for group in whole]
    error: Exception | None = None
    output, seconds = np.zeros((0, 1, 1, 1), np.float32), 0.0
    if whole:
        tokens = np.concatenate([group.tokens for group in whole])
        try:
            done = sight.device.call(
                lambda: network.join(tokens, boxes, lengths, request.merge), sight.priority
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
                seen.append(_said(sight, network, patch, rect, values, request.role, paid))
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


def attended(sight: Sight, request: Look, number: int) -> Attended | None:
    """Return where the tokens of one of a look's groups looked; None if nobody can tell.

    They are read and run once more: it is for a person who asks, and no run is charged for it.
    """
    network = sight.networks[request.role]
    members = [i for i, group in enumerate(request.group or ()) if group == number]
    if not network.attends or not members:
        return None
    read = _read_tokens(sight, network, request, members)
    if read.error is not None:
        raise read.error
    native, _ = native_scale(network.card, sight.pyramid)
    boxes = np.array([rect.astuple() for rect in read.rects], np.float64) / native
    weights, owner = (
        sight.device.call(lambda: network.attend(read.tokens, boxes, request.merge), sight.priority)
        .result()
        .output
    )
    answers = np.array([not patch.core.empty for patch in read.patches])
    return Attended(read.rects, answers, weights, owner)


def _said(
    sight: Sight,
    network: Network,
    patch: Patch,
    rect: Rect,
    values: Floats,
    role: str,
    charge: Charge,
) -> Seen:
    """Return what a token said of its core."""
    image, card = sight.pyramid.rect, network.card
    box = as_box(rect)
    if patch.core.empty:
        return Seen(patch, role, np.zeros(card.outputs), values, box, charge)
    if patch.core == rect and rect in image and kind_of(card) == "mass":
        value = values.sum((1, 2), dtype=np.float64)  # which is most of them
        return Seen(patch, role, value, values, box, charge)
    values, box = crop(values, box, patch.core, image, kind_of(card))
    value = answer(card, values, box, patch.core, image)
    return Seen(patch, role, value, values, box, charge)


def _read_tokens(sight: Sight, network: Network, request: Look, members: list[int]) -> _Group:
    """Read a group's tokens: neighbours of one scale together."""
    asked = [request.patches[i] for i in members]
    patches = [replace(patch, core=patch.core & sight.region) for patch in asked]
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
                with sight.meter.reading() as reading:
                    pixels = sight.pyramid.read(block, scale, fill="reflect", meter=sight.meter)
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
