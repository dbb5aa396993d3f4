"""Postprocessing: from a network's output map to the prediction for a patch's core."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.engine.canvas import Box, MapKind, cell_edges, core_coverage
from hrviewer.engine.cost import Cost
from hrviewer.engine.inference_result import InferenceResult
from hrviewer.geometry import Patch, Rect
from hrviewer.models import ModelCard
from hrviewer.models.attention_pooling import pool

__all__ = [
    "as_box",
    "crop",
    "failed_result",
    "map_kind",
    "nothing",
    "skipped_result",
    "summarize_core",
]


NO_WEIGHT = -1e30
"""Logarithm of the weight, in attention pooling, of a place that does not count."""


def as_box(rect: Rect) -> Box:
    """Return a rectangle as a `Box`."""
    return float(rect.y), float(rect.x), float(rect.h), float(rect.w)


def map_kind(card: ModelCard) -> MapKind:
    """Return what resampling a map of this model must preserve: its sum or its mean."""
    return "mass" if card.counts else "intensity"


def summarize_core(
    card: ModelCard,
    values: NDArray[np.floating[Any]],
    box: Box,
    core: Rect,
    image: Rect,
    weights: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Return the prediction for a core, ``(k,)``: counts, areas, probabilities or an embedding.

    For a head with attention pooling it is a partial result of `pool`, which `combine_parts`
    combines. Cells without data, which are NaN, add nothing; their area is part of a mean's, which
    is corrected once for the whole region. Areas of all classes sum to that of the core, also where
    its border cuts cells. `weights`, of shape ``(rows, columns)``, is the part of each cell that
    counts, if that is not all of the core.
    """
    shape = (values.shape[1], values.shape[2])
    rows, columns = core_coverage(box, shape, core, image)
    inside = np.ix_(np.arange(len(values)), rows > 0, columns > 0)
    whole = np.outer(rows[rows > 0], columns[columns > 0])
    weights = whole if weights is None else weights[np.ix_(rows > 0, columns > 0)]
    part = values[inside].astype(np.float64)
    if card.output.attention:
        return pool(part.reshape(len(part), -1), weights.ravel())
    known = ~np.isnan(part).any(axis=0)  # cells without data add nothing
    part = np.where(known, part, 0)
    if map_kind(card) == "mass":
        total: NDArray[np.float64] = (part * weights).sum(axis=(1, 2))
        return total
    if card.task == "segmentation":
        best = part.argmax(axis=0) if len(part) > 1 else np.where(part[0] > 0.5, 0, -1)
        part = known * (np.arange(len(part))[:, None, None] == best)
    # Cells that the image's border cuts are smaller.
    heights, widths = (
        np.diff(cell_edges(start, length, n, limit))
        for start, length, n, limit in zip(box[:2], box[2:], shape, (image.h, image.w), strict=True)
    )
    sizes = np.outer(heights[rows > 0], widths[columns > 0])
    area = max(float((whole * sizes).sum()), 1e-12)
    mean: NDArray[np.float64] = (part * weights * sizes).sum(axis=(1, 2)) / area
    return mean * (core & image).area if card.task == "segmentation" else mean


def crop(
    output: NDArray[np.float32], box: Box, core: Rect, image: Rect, kind: MapKind
) -> tuple[NDArray[np.float32], Box]:
    """Return the part of a map that overlaps the core.

    Cells that extend over the image's border also cover padding; only the image's share of their
    mass counts.
    """
    _, rows, columns = output.shape
    if not rows or not columns:
        raise ValueError("the patch is smaller than one output cell")
    dy, dx = box[2] / rows, box[3] / columns
    if kind == "mass" and (box[0] + box[2] > image.h or box[1] + box[3] > image.w):
        inside = [
            np.clip((limit - start - np.arange(n) * step) / step, 0, 1)
            for start, n, step, limit in (
                (box[0], rows, dy, image.h),
                (box[1], columns, dx, image.w),
            )
        ]
        output = (output * np.outer(*inside)).astype(np.float32)
    cover_y, cover_x = core_coverage(box, (rows, columns), core, image)
    r, c = np.flatnonzero(cover_y > 0), np.flatnonzero(cover_x > 0)
    if not len(r) or not len(c):
        raise ValueError("the network's output does not reach the patch's core")
    part = np.ascontiguousarray(output[:, r[0] : r[-1] + 1, c[0] : c[-1] + 1])
    return part, (box[0] + r[0] * dy, box[1] + c[0] * dx, len(r) * dy, len(c) * dx)


def failed_result(
    patch: Patch, role: str, cost: Cost, k: int, error: BaseException
) -> InferenceResult:
    """Return the result of an inference that failed: NaN, with the error."""
    return InferenceResult(
        patch,
        role,
        np.full(k, np.nan),
        np.full((k, 1, 1), np.nan, np.float32),
        as_box(patch.core),
        cost,
        status="failed",
        error=f"{type(error).__name__}: {error}".splitlines()[0],
    )


def nothing(card: ModelCard) -> NDArray[np.float64]:
    """Return the prediction for a core of which nothing counts, ``(k,)``."""
    value = np.zeros(card.output_channels)
    if card.output.attention:
        value[-1] = NO_WEIGHT
    return value


def skipped_result(patch: Patch, role: str, card: ModelCard) -> InferenceResult:
    """Return the result of a patch outside the mask: nothing is there, at no cost."""
    value, box = nothing(card), as_box(patch.core)
    blank = np.full((len(value), 1, 1), np.nan, np.float32)
    return InferenceResult(patch, role, value, blank, box, Cost(), status="skipped")
