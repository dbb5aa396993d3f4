"""Detection: decode raw outputs to boxes, suppress duplicates, count boxes per cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hrviewer.errors import ModelError
from hrviewer.models.card import ModelCard

__all__ = [
    "IOU_THRESHOLD",
    "SCORE_THRESHOLD",
    "Detections",
    "count_map",
    "decode",
    "letterbox",
    "non_max_suppression",
]

SCORE_THRESHOLD = 0.3
"""Minimum score of a box."""
IOU_THRESHOLD = 0.45
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
    """

    boxes: Floats
    scores: Floats
    classes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.scores)


def decode(
    raw: Floats,
    card: ModelCard,
    size: tuple[int, int],
    score_threshold: float = SCORE_THRESHOLD,
    iou_threshold: float = IOU_THRESHOLD,
) -> list[Detections]:
    """Decode YOLOX's raw output ``(n, anchors, 5 + classes)``.

    Parameters
    ----------
    raw
        For every cell of every head: centre and logarithm of the size in strides, objectness,
        and the classes' scores (both already 0 to 1).
    card
        Gives the heads' strides, the tile and the classes.
    size
        ``h, w`` of the image in the top left of the tile; boxes are clipped to it, and those
        whose centre is outside are dropped.
    score_threshold, iou_threshold
        Minimum score, and maximum intersection over union.

    Raises
    ------
    ModelError
        If the output's shape does not match the card's strides and classes.
    """
    strides = card.output.stride
    strides = strides if isinstance(strides, tuple) else (int(strides),)
    cells = [_cells(card.input.tile, stride) for stride in strides]
    grid = np.concatenate(cells)
    expected = len(grid), 5 + len(card.classes)
    if raw.ndim != 3 or raw.shape[1:] != expected:
        raise ModelError(
            f"{card.name}: output.stride, output.classes and input.tile make {expected} numbers, "
            f"but the network gives {raw.shape[1:]}: correct the card"
        )
    step = np.repeat(strides, [len(c) for c in cells]).astype(np.float32)[:, None]
    return [_decode_one(one, grid, step, size, score_threshold, iou_threshold) for one in raw]


def _cells(tile: int, stride: int) -> Floats:
    """Return the corners ``(x, y)`` of a head's cells, in strides, in reading order."""
    y, x = np.mgrid[: tile // stride, : tile // stride]
    return np.stack([x, y], axis=-1).reshape(-1, 2).astype(np.float32)


def _decode_one(
    raw: Floats,
    grid: Floats,
    step: Floats,
    size: tuple[int, int],
    score_threshold: float,
    iou_threshold: float,
) -> Detections:
    scores = raw[:, 4:5] * raw[:, 5:]
    anchor, classes = np.nonzero(scores >= score_threshold)
    scores = scores[anchor, classes]
    center = ((raw[anchor, :2] + grid[anchor]) * step[anchor])[:, ::-1]
    half = (np.exp(raw[anchor, 2:4]) * step[anchor] / 2)[:, ::-1]
    inside = ((center >= 0) & (center < size)).all(axis=1)
    boxes = np.concatenate([center - half, center + half], axis=1)[inside]
    boxes = np.clip(boxes, 0, [*size, *size]).astype(np.float32)
    scores, classes = scores[inside], classes[inside]
    keep = non_max_suppression(boxes, scores, classes, iou_threshold)
    return Detections(boxes[keep], scores[keep], classes[keep])


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
    remaining = np.argsort(-scores, kind="stable")
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    keep = []
    while remaining.size:
        best, remaining = remaining[0], remaining[1:]
        keep.append(best)
        low = np.maximum(boxes[best, :2], boxes[remaining, :2])
        high = np.minimum(boxes[best, 2:], boxes[remaining, 2:])
        common = np.clip(high - low, 0, None).prod(axis=1)
        same = common > iou_threshold * (area[best] + area[remaining] - common)
        remaining = remaining[~(same & (classes[remaining] == classes[best]))]
    return np.array(keep, np.int64)


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
