"""Outputs with the suppression in the graph: one row per object, best first, zeros after them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from hrviewer.errors import ModelError
from hrviewer.models.card import ModelCard
from hrviewer.models.decoders.base import Candidates, Decoder, with_oriented_boxes
from hrviewer.models.decoders.masks import with_masks

__all__ = ["EndToEnd", "EndToEndMasks", "EndToEndOriented"]

Floats = NDArray[np.float32]


class EndToEnd(Decoder):
    """``(n, objects, 6)``: x0, y0, x1, y1 in pixels, score, class.

    Of a single class the last column may be missing.
    """

    name = "end2end"
    duplicates = False
    columns: ClassVar[int] = 6

    def decode(
        self, outputs: Sequence[Floats], card: ModelCard, score_threshold: float
    ) -> list[Candidates]:
        """Return the objects of each input."""
        raw = outputs[0]
        if self.columns == 6 and len(card.classes) == 1 and raw.ndim == 3 and raw.shape[2] == 5:
            raw = np.pad(raw, [(0, 0), (0, 0), (0, 1)])
        if raw.ndim != 3 or raw.shape[2] != self.columns:
            raise self.mismatch(card, f"(objects, {self.columns})", outputs)
        kept = [one[one[:, 4] >= score_threshold] for one in raw]
        k, last = len(card.classes), max(int(rows[:, 5].max(initial=0)) for rows in kept)
        if last >= k:
            raise ModelError(
                f"{card.name}: the network predicts the class {last}, counted from 0, but the card "
                f"has {k} classes: correct the card's output.classes"
            )
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
        return with_masks(found, rows[:, 6:], outputs[1][index], card.input.tile)


class EndToEndOriented(EndToEnd):
    """``(n, objects, 7)``: x, y, w, h in pixels, score, class, angle in radians."""

    name = "end2end-obb"
    columns = 7

    def _candidates(
        self, rows: Floats, index: int, outputs: Sequence[Floats], card: ModelCard
    ) -> Candidates:
        found = super()._candidates(rows, index, outputs, card)
        return with_oriented_boxes(found, rows[:, :4], rows[:, 6])
