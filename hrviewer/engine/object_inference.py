"""From a detector's predictions in one input to candidates for objects of the image."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.engine.canvas import Box, core_coverage
from hrviewer.engine.cost import Cost
from hrviewer.engine.inference_result import InferenceResult
from hrviewer.geometry import Patch, Rect
from hrviewer.models import ModelCard
from hrviewer.models.detection import Detections
from hrviewer.objects import MAX_CANDIDATES, DetectedObjects, count_classes, merge_objects

__all__ = ["PixelMapping", "count_map", "locate_objects", "object_result", "shift_and_scale"]

PixelMapping = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""From points ``(y, x)`` of an input, shape (n, 2), to level-0 pixels."""


def shift_and_scale(rect: Rect, scale: float) -> PixelMapping:
    """Return the mapping of an input that begins at the corner of `rect`."""
    corner = np.array([rect.y, rect.x])
    return lambda points: points * scale + corner


def locate_objects(
    detections: Detections, mapping: PixelMapping, core: Rect, image: Rect
) -> DetectedObjects:
    """Return the predictions of one input as candidates in level-0 pixels.

    Boxes are cut at the image's border; those whose center lies outside are left out. Of more than
    `MAX_CANDIDATES` the best stay.

    Parameters
    ----------
    detections : Detections
        Predictions in the input.
    mapping : callable
        From the input to the image. A box becomes the smallest upright one around its mapped
        outline.
    core : Rect
        The patch's core.
    image : Rect
        The whole image.
    """
    best = np.argsort(-detections.scores, kind="stable")[:MAX_CANDIDATES]
    y0, x0, y1, x1 = detections.boxes[best].astype(np.float64).T
    n = len(best)
    # Corners and the middles of edges: a warp bends edges.
    ym, xm = (y0 + y1) / 2, (x0 + x1) / 2
    around = np.stack([y0, x0, y0, xm, y0, x1, ym, x1, y1, x1, y1, xm, y1, x0, ym, x0], axis=1)
    placed = mapping(around.reshape(-1, 2)).reshape(n, 8, 2)
    low, high = placed.min(axis=1), placed.max(axis=1)
    middle = (low + high) / 2
    limits = np.array([image.y1, image.x1], float)
    inside = ((middle >= (image.y, image.x)) & (middle < limits)).all(axis=1)
    low, high = np.clip(low, 0, limits), np.clip(high, 0, limits)
    rings = (
        [mapping(np.asarray(detections.outlines[i], np.float64)) for i in best.tolist()]
        if detections.outlines
        else []
    )
    rings = [np.clip(ring, 0, limits) for ring in rings]
    objects = DetectedObjects(
        np.concatenate([low, high - low], axis=1),
        detections.scores[best].astype(np.float32),
        detections.classes[best].astype(np.int64),
        lengths=np.array([len(ring) for ring in rings], np.int64),
        corners=np.concatenate(rings) if rings else np.zeros((0, 2)),
    ).take(inside)
    return replace(objects, in_core=objects.are_inside(core))


def object_result(
    detections: Detections,
    mapping: PixelMapping,
    box: Box,
    cell: float,
    patch: Patch,
    role: str,
    card: ModelCard,
    image: Rect,
) -> InferenceResult:
    """Return the result of a patch on which a detector ran; its cost is added by the caller.

    Parameters
    ----------
    detections, mapping, image
        See `locate_objects`.
    box, cell
        See `count_map`.
    patch : Patch
        The patch.
    role : str
        Role of the network.
    card : ModelCard
        Gives the classes and the thresholds.
    """
    k = card.prediction_channels
    objects = locate_objects(detections, mapping, patch.core, image)
    found = objects.take(merge_objects(objects, card.merge_settings))
    counts, extent = count_map(found, k, box, cell, patch.core, image)
    value = count_classes(found, k)
    return InferenceResult(patch, role, value, counts, extent, Cost(), objects=objects)


def count_map(
    found: DetectedObjects, k: int, box: Box, cell: float, core: Rect, image: Rect
) -> tuple[NDArray[np.float32], Box]:
    """Count the objects of a core in cells, for the map of counts.

    A map of counts is resampled by area, and only the part of a cell inside core and image is
    painted; a cell's objects all lie there, so their number is divided by that part first.

    Parameters
    ----------
    found : DetectedObjects
        Objects with centers in the core.
    k : int
        Number of classes.
    box : tuple of float
        Extent of the input, ``(y, x, h, w)`` in level-0 pixels; cells begin at its corner.
    cell : float
        Side of a cell, level-0 pixels.
    core, image : Rect
        The core, and the whole image.

    Returns
    -------
    ndarray of float32, shape (k, rows, columns)
        The counts, over the cells that meet the core.
    tuple of float
        Their extent.
    """
    first = [
        math.floor((low - start) / cell + 1e-9)
        for low, start in zip((core.y, core.x), box, strict=False)
    ]
    end = [
        math.ceil((high - start) / cell - 1e-9)
        for high, start in zip((core.y1, core.x1), box, strict=False)
    ]
    shape = max(1, end[0] - first[0]), max(1, end[1] - first[1])
    y, x = box[0] + first[0] * cell, box[1] + first[1] * cell
    out: NDArray[Any] = np.zeros((k, *shape))
    at = np.floor((found.centers - (y, x)) / cell).astype(np.intp)
    at = np.clip(at, 0, np.array(shape) - 1)
    np.add.at(out, (found.class_ids, at[:, 0], at[:, 1]), 1)
    extent = (y, x, shape[0] * cell, shape[1] * cell)
    rows, columns = core_coverage(extent, shape, core, image)
    part = np.outer(rows, columns)
    return (out / np.where(part > 0, part, 1)).astype(np.float32), extent
