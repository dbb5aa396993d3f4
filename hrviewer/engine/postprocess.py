"""What a network's output says of a patch's core."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.engine.canvas import Box, MapKind, core_coverage
from hrviewer.engine.cost import Cost
from hrviewer.engine.patch_result import InferenceResult
from hrviewer.geometry import Patch, Rect
from hrviewer.models import ModelCard
from hrviewer.models.attention_pooling import pool

__all__ = ["as_box", "crop", "failed_result", "map_kind", "summarize_core"]


def as_box(rect: Rect) -> Box:
    """Return a rectangle as what a map covers."""
    return float(rect.y), float(rect.x), float(rect.h), float(rect.w)


def map_kind(card: ModelCard) -> MapKind:
    """Return what moving this network's map from grid to grid must keep."""
    return "mass" if card.task in ("density", "detection") else "intensity"


def summarize_core(
    card: ModelCard, values: NDArray[np.floating[Any]], box: Box, core: Rect, image: Rect
) -> NDArray[np.float64]:
    """Return what a map says of a core, ``(k,)``: counts, areas, probabilities, a code.

    Of a head that attends it is what `pool` returns, to be joined with what others say.
    """
    rows, columns = core_coverage(box, (values.shape[1], values.shape[2]), core, image)
    inside = np.ix_(np.arange(len(values)), rows > 0, columns > 0)
    weights = np.outer(rows[rows > 0], columns[columns > 0])
    part = values[inside].astype(np.float64)
    if card.output.attention:
        return pool(part.reshape(len(part), -1), weights.ravel())
    if card.task == "segmentation":
        cell = (box[2] / values.shape[1]) * (box[3] / values.shape[2])
        best = part.argmax(axis=0) if len(part) > 1 else np.where(part[0] > 0.5, 0, -1)
        part = cell * (np.arange(len(part))[:, None, None] == best)
    total: NDArray[np.float64] = (part * weights).sum(axis=(1, 2))
    # Counts and areas add up; everything else is a mean.
    additive = map_kind(card) == "mass" or card.task == "segmentation"
    return total if additive else total / max(float(weights.sum()), 1e-12)


def crop(
    output: NDArray[np.float32], box: Box, core: Rect, image: Rect, kind: MapKind
) -> tuple[NDArray[np.float32], Box]:
    """Return the part of a map that touches the core.

    Cells that hang over the image's border hold what was filled in there; of their mass only the
    image's part counts.
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
    """Return a look that gave nothing."""
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
