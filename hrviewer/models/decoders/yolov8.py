"""Outputs of YOLOv8 and its successors with the same heads (v9, 11, 12), without suppression.

Each anchor has a centre and a size in pixels, and a score for each class; as in the published
inference the best class of an anchor counts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hrviewer.models.card import ModelCard
from hrviewer.models.decoders.base import (
    Candidates,
    Decoder,
    boxes_from_centers,
    with_oriented_boxes,
)
from hrviewer.models.decoders.masks import with_masks

__all__ = ["YoloV8", "YoloV8Masks", "YoloV8Oriented"]

Floats = NDArray[np.float32]


class YoloV8(Decoder):
    """``(n, 4 + classes, anchors)``: x, y, w, h, then the scores."""

    name = "yolov8"
    extra = 0

    def decode(
        self, outputs: Sequence[Floats], card: ModelCard, score_threshold: float
    ) -> list[Candidates]:
        """Return the candidates of each input: the best class of every anchor."""
        raw, k = outputs[0], len(card.classes)
        channels = 4 + k + self.extra
        if raw.ndim != 3 or raw.shape[1] != channels:
            raise self.mismatch(card, f"({channels}, anchors)", outputs)
        found = []
        for i, one in enumerate(raw):
            scores = one[4 : 4 + k]
            classes = scores.argmax(axis=0)
            best = np.take_along_axis(scores, classes[None], 0)[0]
            kept = np.flatnonzero(best >= score_threshold)
            rows = one[:, kept].T
            boxed = Candidates(boxes_from_centers(rows[:, :4]), best[kept], classes[kept])
            found.append(self._with_outlines(boxed, rows, [output[i] for output in outputs], card))
        return found

    def _with_outlines(
        self, boxed: Candidates, rows: Floats, outputs: Sequence[Floats], card: ModelCard
    ) -> Candidates:
        return boxed


class YoloV8Masks(YoloV8):
    """The same with 32 coefficients after the scores, and prototypes ``(n, 32, h / 4, w / 4)``.

    The mask of an object is the sigmoid of the prototypes' sum, weighted by its coefficients,
    within its box (Bolya et al., *YOLACT*, ICCV 2019).
    """

    name = "yolov8-seg"
    extra = 32

    def decode(
        self, outputs: Sequence[Floats], card: ModelCard, score_threshold: float
    ) -> list[Candidates]:
        """Return the candidates of each input, with the outline of the mask."""
        if len(outputs) != 2 or outputs[1].ndim != 4 or outputs[1].shape[1] != self.extra:
            rows = 4 + len(card.classes) + self.extra
            raise self.mismatch(card, f"({rows}, anchors) and (32, h / 4, w / 4)", outputs)
        return super().decode(outputs, card, score_threshold)

    def _with_outlines(
        self, boxed: Candidates, rows: Floats, outputs: Sequence[Floats], card: ModelCard
    ) -> Candidates:
        return with_masks(boxed, rows[:, -self.extra :], outputs[1], card.input.tile)


class YoloV8Oriented(YoloV8):
    """The same with the angle in radians after the scores: oriented boxes."""

    name = "yolov8-obb"
    extra = 1

    def _with_outlines(
        self, boxed: Candidates, rows: Floats, outputs: Sequence[Floats], card: ModelCard
    ) -> Candidates:
        return with_oriented_boxes(boxed, rows[:, :4], rows[:, -1])
