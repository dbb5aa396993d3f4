"""From a detector's raw output to boxes, and from boxes to a count per cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hrviewer.errors import HrviewerError
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
"""The score below which a box is not kept."""
IOU_THRESHOLD = 0.45
"""The intersection over union above which two boxes of a class are one thing."""

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """What was found in one input, best first.

    Attributes
    ----------
    boxes : NDArray[np.float32]
        ``(m, 4)``: y0, x0, y1, x1 in input pixels.
    scores : NDArray[np.float32]
        ``(m,)``, 0 to 1.
    classes : NDArray[np.int64]
        ``(m,)``, into the card's classes.
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
    """Return what YOLOX's raw output ``(n, anchors, 5 + classes)`` says.

    Parameters
    ----------
    raw
        For every cell of every head: centre and logarithm of the size in strides, objectness,
        and the classes' scores (both already 0 to 1).
    card
        Says the heads' strides, the tile and the classes.
    size
        ``h, w`` of the picture in the tile's top left; boxes are clipped to it, and those whose
        centre is outside are dropped.
    score, overlap
        What is kept.

    Raises
    ------
    UserError
        Where the output is not as long as the card's strides and classes make it.
    """
    strides = card.output.stride
    strides = strides if isinstance(strides, tuple) else (int(strides),)
    cells = [_cells(card.input.tile, stride) for stride in strides]
    grid = np.concatenate(cells)
    want = len(grid), 5 + len(card.classes)
    if raw.ndim != 3 or raw.shape[1:] != want:
        raise HrviewerError(
            f"{card.name}: output.stride, output.classes and input.tile make {want} numbers, "
            f"but the network gives {raw.shape[1:]}: correct the card"
        )
    step = np.repeat(strides, [len(c) for c in cells]).astype(np.float32)[:, None]
    return [_decode_one(one, grid, step, size, score_threshold, iou_threshold) for one in raw]


def _cells(tile: int, stride: int) -> Floats:
    """Corners ``(x, y)`` of a head's cells, in strides, in reading order."""
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
    kept = non_max_suppression(boxes, scores, classes, iou_threshold)
    return Detections(boxes[kept], scores[kept], classes[kept])


def non_max_suppression(
    boxes: Floats, scores: Floats, classes: NDArray[np.int64], iou_threshold: float = IOU_THRESHOLD
) -> NDArray[np.int64]:
    """Return which boxes stay when, of each class, those that overlap a better one go.

    Parameters
    ----------
    boxes
        ``(m, 4)``: y0, x0, y1, x1.
    scores, classes
        ``(m,)``.
    overlap
        Intersection over union above which two are one thing.

    Returns
    -------
    NDArray[np.int64]
        Indices, best first; of equal scores the first.
    """
    left = np.argsort(-scores, kind="stable")
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    kept = []
    while left.size:
        best, left = left[0], left[1:]
        kept.append(best)
        low = np.maximum(boxes[best, :2], boxes[left, :2])
        high = np.minimum(boxes[best, 2:], boxes[left, 2:])
        common = np.clip(high - low, 0, None).prod(axis=1)
        same = common > iou_threshold * (area[best] + area[left] - common)
        left = left[~(same & (classes[left] == classes[best]))]
    return np.array(kept, np.int64)


def count_map(detections: Sequence[Detections], card: ModelCard, size: tuple[int, int]) -> Floats:
    """Return ``(n, k, h / stride, w / stride)``: how many centres of each class lie in each cell.

    So a detector answers the question that a density answers: its map sums to a count.
    """
    stride = card.stride
    shape = -(-size[0] // stride), -(-size[1] // stride)
    out = np.zeros((len(detections), card.output_channels, *shape), np.float32)
    for one, things in zip(out, detections, strict=True):
        center = (things.boxes[:, :2] + things.boxes[:, 2:]) / 2 // stride
        y, x = np.minimum(center.astype(np.int64), np.array(shape) - 1).T
        np.add.at(one, (things.classes, y, x), 1)
    return out


def letterbox(pixels: NDArray[np.uint8], card: ModelCard) -> tuple[NDArray[np.uint8], float]:
    """Shrink or enlarge a picture to the card's tile, keeping its shape, and fill the rest.

    Parameters
    ----------
    pixels
        ``(h, w, c)``.
    card
        Says the tile and what fills it (``input.letterbox``).

    Returns
    -------
    NDArray[np.uint8]
        ``(tile, tile, c)``, the picture in the top left.
    float
        Tile pixels per picture pixel: divide boxes by it.
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
