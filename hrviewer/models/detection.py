"""Detection: objects in an input, from candidates that a decoder finds, and their counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hrviewer.models.card import ModelCard
from hrviewer.models.decoders import DECODERS, Candidates
from hrviewer.objects import MAX_CANDIDATES, DetectedObjects, MergeSettings, suppress

__all__ = [
    "IOU_THRESHOLD",
    "SCORE_THRESHOLD",
    "Detections",
    "count_map",
    "decode",
    "letterbox",
    "non_max_suppression",
]

SCORE_THRESHOLD: float = MergeSettings().score
"""Minimum score of a box."""
IOU_THRESHOLD: float = MergeSettings().overlap
"""Intersection over union above which two boxes of a class are the same object."""
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """Boxes predicted in one input, best first.

    Attributes
    ----------
    boxes : NDArray[np.float32]
        ``(m, 4)``: y0, x0, y1, x1 in input pixels.
    scores : NDArray[np.float32]
        ``(m,)``, 0 to 1.
    classes : NDArray[np.int64]
        ``(m,)``, indices into the card's classes.
    outlines : tuple of NDArray
        Corners ``(y, x)`` of each object in input pixels, where it is no upright box: of an
        oriented box or an instance. Empty for boxes.
    """

    boxes: Floats
    scores: Floats
    classes: NDArray[np.int64]
    outlines: tuple[NDArray[np.floating], ...] = ()

    def __len__(self) -> int:
        return len(self.scores)


def decode(
    outputs: Sequence[Floats],
    card: ModelCard,
    size: tuple[int, int],
    score_threshold: float = SCORE_THRESHOLD,
    iou_threshold: float = IOU_THRESHOLD,
) -> list[Detections]:
    """Decode a detector's raw outputs by the card's ``output.decode``.

    Parameters
    ----------
    outputs
        The outputs for a batch; see `hrviewer.models.decoders`.
    card
        Gives the format, the tile and the classes.
    size
        ``h, w`` of the image in the top left of the tile; boxes are clipped to it, and those
        whose centre is outside are dropped.
    score_threshold, iou_threshold
        Minimum score, and maximum intersection over union: 1 suppresses nothing.

    Raises
    ------
    ModelError
        If the outputs' shapes do not match the card.
    """
    decoder = DECODERS[str(card.output.decode)]
    overlap = iou_threshold if decoder.duplicates else 1.0
    return [
        _select(candidates, size, score_threshold, overlap)
        for candidates in decoder.decode(outputs, card, score_threshold)
    ]


def _select(
    candidates: Candidates, size: tuple[int, int], score: float, overlap: float
) -> Detections:
    """Return the objects of an input, from its candidates."""
    boxes = candidates.boxes.reshape(-1, 4)
    center = (boxes[:, :2] + boxes[:, 2:]) / 2
    centered = ((center >= 0) & (center < size)).all(axis=1)
    inside = np.flatnonzero(centered & (candidates.scores >= score))
    boxes = np.clip(boxes, 0, [*size, *size]).astype(np.float32)[inside]
    scores, classes = candidates.scores[inside], candidates.classes[inside]
    keep = non_max_suppression(boxes, scores, classes, overlap)[:MAX_CANDIDATES]
    outline = candidates.outline
    outlines = () if outline is None else tuple(outline(int(i)) for i in inside[keep])
    return Detections(boxes[keep], scores[keep], classes[keep], outlines)


def non_max_suppression(
    boxes: Floats, scores: Floats, classes: NDArray[np.int64], iou_threshold: float = IOU_THRESHOLD
) -> NDArray[np.int64]:
    """Return the indices of boxes that overlap no better box of their class.

    Parameters
    ----------
    boxes
        ``(m, 4)``: y0, x0, y1, x1.
    scores, classes
        ``(m,)``.
    iou_threshold
        Intersection over union above which two boxes are the same object.

    Returns
    -------
    NDArray[np.int64]
        Indices, best first; ties keep their order.
    """
    order = np.argsort(-scores, kind="stable")
    if iou_threshold >= 1:
        return order
    y0, x0, y1, x1 = boxes.astype(np.float64).T
    objects = DetectedObjects(np.stack([y0, x0, y1 - y0, x1 - x0], axis=1), scores, classes)
    kept = suppress(objects, classes, iou_threshold) == np.arange(len(objects))
    return np.asarray(order[kept[order]], np.int64)


def count_map(detections: Sequence[Detections], card: ModelCard, size: tuple[int, int]) -> Floats:
    """Count the box centres of each class in each cell, ``(n, k, h / stride, w / stride)``.

    A detector's predictions are thereby comparable to a density: the map sums to a count.
    """
    stride = card.stride
    shape = -(-size[0] // stride), -(-size[1] // stride)
    out = np.zeros((len(detections), card.output_channels, *shape), np.float32)
    for one, found in zip(out, detections, strict=True):
        center = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2 // stride
        y, x = np.minimum(center.astype(np.int64), np.array(shape) - 1).T
        np.add.at(one, (found.classes, y, x), 1)
    return out


def letterbox(pixels: NDArray[np.uint8], card: ModelCard) -> tuple[NDArray[np.uint8], float]:
    """Resize an image to fit the card's tile, keeping its aspect ratio, and fill the rest.

    Parameters
    ----------
    pixels
        ``(h, w, c)``.
    card
        Gives the tile and the fill value (``input.letterbox``).

    Returns
    -------
    NDArray[np.uint8]
        ``(tile, tile, c)``, the image in the top left.
    float
        Tile pixels per image pixel: divide boxes by it.
    """
    from PIL import Image

    h, w, c = pixels.shape
    side = card.input.tile
    ratio = min(side / h, side / w)
    small = Image.fromarray(pixels).resize(
        (max(1, int(w * ratio)), max(1, int(h * ratio))), Image.Resampling.BILINEAR
    )
    out = np.full((side, side, c), card.input.letterbox or 0, np.uint8)
    out[: small.height, : small.width] = np.asarray(small)
    return out, ratio
