"""Outputs of DETR and RT-DETR: a set of queries, of which each is one object or none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hrviewer.models.activations import activate
from hrviewer.models.card import ModelCard
from hrviewer.models.decoders.base import Candidates, Decoder, boxes_from_centers

__all__ = ["Detr", "RtDetr"]

Floats = NDArray[np.float32]


class Detr(Decoder):
    """Logits ``(n, queries, classes + 1)``, the last for no object, and boxes ``(n, queries, 4)``.

    Boxes are centre and size as fractions of the input (Carion et al., *End-to-End Object Detection
    with Transformers*, ECCV 2020).
    """

    name = "detr"
    duplicates = False

    def decode(
        self, outputs: Sequence[Floats], card: ModelCard, score_threshold: float
    ) -> list[Candidates]:
        """Return the objects of each input: the best class of every query, by softmax."""
        k = len(card.classes)
        logits, boxes = split_queries(outputs, k + 1)
        if logits is None or boxes is None:
            raise self.mismatch(card, f"(queries, {k + 1}) and (queries, 4)", outputs)
        scores = activate(logits.transpose(0, 2, 1), "softmax").transpose(0, 2, 1)[..., :k]
        found = []
        for one, xywh in zip(scores, boxes, strict=True):
            best = one.argmax(axis=1)
            queries = np.flatnonzero(one.max(axis=1) >= score_threshold)
            placed = boxes_from_centers(xywh[queries] * card.input.tile)
            found.append(Candidates(placed, one[queries, best[queries]], best[queries]))
        return found


class RtDetr(Decoder):
    """Logits ``(n, queries, classes)`` and boxes, or ``(n, queries, 4 + classes)`` of both.

    In one array the scores are already 0 to 1 (Zhao et al., *DETRs Beat YOLOs on Real-time Object
    Detection*, CVPR 2024).
    """

    name = "rtdetr"
    duplicates = False

    def decode(
        self, outputs: Sequence[Floats], card: ModelCard, score_threshold: float
    ) -> list[Candidates]:
        """Return the objects of each input: every class of a query is one, by sigmoid."""
        k = len(card.classes)
        if len(outputs) == 1 and outputs[0].ndim == 3 and outputs[0].shape[2] == 4 + k:
            boxes, scores = outputs[0][..., :4], outputs[0][..., 4:]
        else:
            logits, split = split_queries(outputs, k)
            if logits is None or split is None:
                raise self.mismatch(card, f"(queries, {k}) and (queries, 4)", outputs)
            boxes, scores = split, activate(logits, "sigmoid")
        found = []
        for one, xywh in zip(scores, boxes, strict=True):
            queries, classes = np.nonzero(one >= score_threshold)
            placed = boxes_from_centers(xywh[queries] * card.input.tile)
            found.append(Candidates(placed, one[queries, classes], classes))
        return found


def split_queries(
    outputs: Sequence[Floats], channels: int
) -> tuple[Floats, Floats] | tuple[None, None]:
    """Return logits of so many channels and boxes, of outputs in any order; else None.

    Further outputs, as of a decoder's intermediate layers, are left out.
    """
    logits = [o for o in outputs if o.ndim == 3 and o.shape[2] == channels]
    boxes = [o for o in outputs if o.ndim == 3 and o.shape[2] == 4]
    if channels == 4:  # in the order of the export
        logits, boxes = logits[:1], boxes[1:]
    return (logits[0], boxes[0]) if logits and boxes else (None, None)
