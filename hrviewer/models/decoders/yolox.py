"""The output of YOLOX (Ge et al., *YOLOX: Exceeding YOLO Series in 2021*)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hrviewer.models.card import ModelCard
from hrviewer.models.decoders.base import Candidates, Decoder, boxes_from_centers

__all__ = ["YoloX"]

Floats = NDArray[np.float32]


class YoloX(Decoder):
    """``(n, anchors, 5 + classes)``, as exported by the authors: positions relative to cells.

    For every cell of every head: centre and logarithm of the size in strides, objectness, and the
    classes' scores (both already 0 to 1).
    """

    name = "yolox"

    def decode(
        self, outputs: Sequence[Floats], card: ModelCard, score_threshold: float
    ) -> list[Candidates]:
        """Return the candidates of each input: every class of a cell is one."""
        strides = card.output.stride
        strides = strides if isinstance(strides, tuple) else (int(strides),)
        cells = [_cells(card.input.tile, stride) for stride in strides]
        grid = np.concatenate(cells)
        raw = outputs[0]
        expected = len(grid), 5 + len(card.classes)
        if raw.ndim != 3 or raw.shape[1:] != expected:
            raise self.mismatch(card, str(expected), outputs)
        step = np.repeat(strides, [len(c) for c in cells]).astype(np.float32)[:, None]
        found = []
        for one in raw:
            scores = one[:, 4:5] * one[:, 5:]
            anchor, classes = np.nonzero(scores >= score_threshold)
            center = (one[anchor, :2] + grid[anchor]) * step[anchor]
            size = np.exp(one[anchor, 2:4]) * step[anchor]
            boxes = boxes_from_centers(np.concatenate([center, size], axis=1))
            found.append(Candidates(boxes, scores[anchor, classes], classes))
        return found


def _cells(tile: int, stride: int) -> Floats:
    """Return the corners ``(x, y)`` of a head's cells, in strides, in reading order."""
    y, x = np.mgrid[: tile // stride, : tile // stride]
    return np.stack([x, y], axis=-1).reshape(-1, 2).astype(np.float32)
