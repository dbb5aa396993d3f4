"""Outputs with the suppression in the graph: one row per object, best first, zeros after them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from hrviewer.models.card import ModelCard
from hrviewer.models.decoders.base import (
    Candidates,
    Decoder,
    boxes_from_centers,
    oriented_corners,
)
from hrviewer.models.decoders.masks import mask_outline

__all__ = ["EndToEnd", "EndToEndMasks", "EndToEndOriented"]

Floats = NDArray[np.float32]


class EndToEnd(Decoder):
    """``(n, objects, 6)``: x0, y0, x1, y1 in pixels, score, class."""

    name = "end2end"
    duplicates = False
    columns: ClassVar[int] = 6

    def decode(
        self, outputs: Sequence[Floats], card: ModelCard, score_threshold: float
    ) -> list[Candidates]:
        """Return the objects of each input."""
        raw = outputs[0]
        if raw.ndim != 3 or raw.shape[2] != self.columns:
            raise self.mismatch(card, f"(objects, {self.columns})", outputs)
        kept = [one[one[:, 4] >= score_threshold] for one in raw]
        if any(len(rows) and rows[:, 5].max() >= len(card.classes) for rows in kept):
            raise self.mismatch(card, f"classes below {len(card.classes)} in its", outputs)
        return [self._candidates(rows, i, outputs, card) for i, rows in enumerate(kept)]

    def _candidates(
        self, rows: Floats, index: int, outputs: Sequence[Floats], card: ModelCard
    ) -> Candidates:
        boxes = np.ascontiguousarray(rows[:, [1, 0, 3, 2]])
        return Candidates(boxes, rows[:, 4], rows[:, 5].astype(np.int64))


class EndToEndMasks(EndToEnd):
    """The same with 32 mask coefficients, and prototypes ``(n, 32, h / 4, w / 4)``."""

    name = "end2end-seg"
    columns = 6 + 32

    def _candidates(
        self, rows: Floats, index: int, outputs: Sequence[Floats], card: ModelCard
    ) -> Candidates:
        if len(outputs) != 2:
            raise self.mismatch(card, "(objects, 38) and (32, h / 4, w / 4)", outputs)
        found = super()._candidates(rows, index, outputs, card)
        outline = partial(
            mask_outline, found.boxes, rows[:, 6:], outputs[1][index], card.input.tile
        )
        return Candidates(found.boxes, found.scores, found.classes, outline)


class EndToEndOriented(EndToEnd):
    """``(n, objects, 7)``: x, y, w, h in pixels, score, class, angle in radians."""

    name = "end2end-obb"
    columns = 7

    def _candidates(
        self, rows: Floats, index: int, outputs: Sequence[Floats], card: ModelCard
    ) -> Candidates:
        corners = oriented_corners(rows[:, :4], rows[:, 6])
        boxes = boxes_from_centers(rows[:, :4])
        if len(corners):
            boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
        classes = rows[:, 5].astype(np.int64)
        return Candidates(boxes, rows[:, 4], classes, corners.__getitem__)
