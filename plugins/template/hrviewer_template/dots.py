"""The synthetic image ``dots``: dark dots on a pale ground, in some places many, in most none."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from hrviewer.geometry import Rect
from hrviewer.ground_truth import GroundTruth
from hrviewer.pyramid.synthetic import SyntheticImage
from numpy.typing import NDArray

__all__ = ["Dots"]

CELL, RADIUS = 16, 3
"""Side of a cell, in pixels; it has at most one dot, wholly inside."""
MAX_BLOCK_PIXELS = 1 << 22
"""Pixels rendered at once for lower resolutions."""


class Dots(SyntheticImage):
    """Dots in one of eight blocks of 128 pixels, there in every other cell."""

    title: ClassVar[str] = "Dots"
    classes: ClassVar[tuple[str, ...]] = ("dot",)
    version: ClassVar[int] = 1

    def render(self, rect: Rect, scale: int) -> NDArray[np.uint8]:
        """Return full resolution, averaged: right for a template, slow for a large image."""
        rows = max(1, MAX_BLOCK_PIXELS // (rect.w * scale)) * scale
        bands = [
            self._downsampled(Rect(y, rect.x, min(rows, rect.y1 - y), rect.w), scale)
            for y in range(rect.y, rect.y1, rows)
        ]
        return np.repeat(np.concatenate(bands)[..., None], 3, axis=-1)

    def ground_truth(self, rect: Rect) -> GroundTruth:
        """Return the dots whose centre is in `rect`."""
        cells = Rect(rect.y // CELL, rect.x // CELL, 0, 0)
        rows = np.arange(cells.y, -(-rect.y1 // CELL))
        columns = np.arange(cells.x, -(-rect.x1 // CELL))
        there, y, x = self._dots(rows[:, None], columns[None, :])
        corner = np.stack(np.broadcast_arrays(rows[:, None], columns[None, :]), -1) * CELL
        points = (corner + np.stack([y, x], -1))[there] + 0.5
        boxes = np.column_stack([points - 0.5 - RADIUS, np.full_like(points, 2 * RADIUS + 1)])
        url = f"sample:dots?size={self.size}&seed={self.seed}"
        return GroundTruth(points, self.classes, boxes=boxes, source=url).clip(rect)

    def labels(self, rect: Rect) -> NDArray[np.int32]:
        """Return the instance map, numbered as in `ground_truth`."""
        around = rect.pad(RADIUS + 1)
        points = self.ground_truth(
            Rect(max(0, around.y), max(0, around.x), around.h, around.w)
        ).points
        low, high = (rect.y, rect.x), (rect.y1, rect.x1)
        outside = ~((points >= low) & (points < high)).all(axis=1)
        out = np.zeros((rect.h, rect.w), np.int32)
        ys, xs = np.ogrid[rect.y : rect.y1, rect.x : rect.x1]
        for number, (y, x) in enumerate(points[np.argsort(outside, kind="stable")], start=1):
            out[np.hypot(ys + 0.5 - y, xs + 0.5 - x) <= RADIUS] = number
        return out

    def _downsampled(self, rect: Rect, scale: int) -> NDArray[np.uint8]:
        ys, xs = np.arange(rect.y, rect.y1)[:, None], np.arange(rect.x, rect.x1)[None, :]
        there, y, x = (
            np.repeat(np.repeat(a, CELL, 0), CELL, 1)[
                rect.y % CELL : rect.y % CELL + rect.h, rect.x % CELL : rect.x % CELL + rect.w
            ]
            for a in self._dots(
                np.arange(rect.y // CELL, -(-rect.y1 // CELL))[:, None],
                np.arange(rect.x // CELL, -(-rect.x1 // CELL))[None, :],
            )
        )
        inside = there & ((ys % CELL - y) ** 2 + (xs % CELL - x) ** 2 <= RADIUS**2)
        gray = np.where(inside, 60, 215).astype(np.float32)
        if scale > 1:
            height, width = -(-rect.h // scale), -(-rect.w // scale)
            edge = (0, height * scale - rect.h), (0, width * scale - rect.w)
            gray = np.pad(gray, edge, mode="edge")
            gray = gray.reshape(height, scale, width, scale).mean(axis=(1, 3))
        return gray.round().astype(np.uint8)

    def _dots(
        self, rows: NDArray[np.int64], columns: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], ...]:
        """Return whether each cell holds a dot, and where in it."""
        block = self._random(rows // 8, columns // 8, 0) % 8 == 0
        chance = self._random(rows, columns, 1)
        reach = CELL - 2 * RADIUS
        y, x = RADIUS + chance // 2 % reach, RADIUS + chance // 64 % reach
        return block & (chance % 2 == 0), y, x

    def _random(
        self, rows: NDArray[np.int64], columns: NDArray[np.int64], stream: int
    ) -> NDArray[np.int64]:
        """Return numbers that depend on seed and place only (the mixer of splitmix64)."""
        with np.errstate(over="ignore"):
            z = rows.astype(np.uint64) << np.uint64(32) | columns.astype(np.uint64)
            z = z + np.uint64(0x9E3779B97F4A7C15) * np.uint64(2 * self.seed + stream + 1)
            z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
        return (z >> np.uint64(33)).astype(np.int64)
