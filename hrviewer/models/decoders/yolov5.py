"""The output of YOLOv5 and YOLOv7, without suppression in the graph."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hrviewer.models.card import ModelCard
from hrviewer.models.decoders.base import Candidates, Decoder, boxes_from_centers

__all__ = ["YoloV5"]

Floats = NDArray[np.float32]


class YoloV5(Decoder):
    """``(n, anchors, 5 + classes)``: x, y, w, h in pixels, objectness, then the classes' scores.

    As in the published inference, the best class of an anchor counts, with the product of both
    scores.
    """

    name = "yolov5"

    def decode(
        self, outputs: Sequence[Floats], card: ModelCard, score_threshold: float
    ) -> list[Candidates]:
        """Return the candidates of each input: the best class of every anchor."""
        raw, columns = outputs[0], 5 + len(card.classes)
        if raw.ndim != 3 or raw.shape[2] != columns:
            raise self.mismatch(card, f"(anchors, {columns})", outputs)
        found = []
        for one in raw:
            classes = one[:, 5:].argmax(axis=1)
            scores = one[:, 4] * np.take_along_axis(one[:, 5:], classes[:, None], 1)[:, 0]
            kept = np.flatnonzero(scores >= score_threshold)
            boxes = boxes_from_centers(one[kept, :4])
            found.append(Candidates(boxes, scores[kept], classes[kept]))
        return found
