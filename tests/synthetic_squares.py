"""A synthetic image whose pixels and objects are obvious."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from hrviewer.geometry import Rect
from hrviewer.ground_truth import GroundTruth
from hrviewer.pyramid.synthetic import SyntheticImage

__all__ = ["Squares", "install"]


class Squares(SyntheticImage):
    """A square of 6 pixels, never cut by the image's border, about every 40 pixels."""

    title = "squares"
    classes = ("square", "other")
    version = 1

    def __init__(self, size: int, seed: int) -> None:
        super().__init__(size, seed)
        rng = np.random.default_rng(seed)
        self.corners = (np.indices((size // 40,) * 2).reshape(2, -1).T * 40).astype(np.int64)
        self.corners += rng.integers(0, 34, self.corners.shape)

    def render(self, rect: Rect, scale: int):
        inside = self.labels(rect)[::scale, ::scale] > 0
        y, x = np.mgrid[rect.y : rect.y1 : scale, rect.x : rect.x1 : scale]
        return np.stack([inside * 200, y % 256, x % 256], axis=-1).astype(np.uint8)

    def ground_truth(self, rect: Rect) -> GroundTruth:
        boxes = np.hstack([self.corners, np.full_like(self.corners, 6)]).astype(float)
        kinds = np.arange(len(boxes)) % 2
        return GroundTruth(self.corners + 3.0, self.classes, kinds, boxes).clip(rect)

    def labels(self, rect: Rect):
        out = np.zeros((rect.h, rect.w), np.int32)
        mine = [tuple(point) for point in (self.ground_truth(rect).points - 3).astype(int)]
        beyond = len(mine)
        for y, x in map(tuple, self.corners):
            part = Rect(y, x, 6, 6) & rect
            if part.empty:
                continue
            if (y, x) not in mine:
                beyond += 1
            number = mine.index((y, x)) + 1 if (y, x) in mine else beyond
            out[part.y - rect.y : part.y1 - rect.y, part.x - rect.x : part.x1 - rect.x] = number
        return out


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make ``sample:squares`` the only installed synthetic image."""
    entry = SimpleNamespace(name="squares", load=lambda: Squares)
    monkeypatch.setattr("hrviewer.pyramid.synthetic.entry_points", lambda group: [entry])
