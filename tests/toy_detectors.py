"""A detector whose objects are known: it finds the rectangles of an image of rectangles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects, label

from hrviewer.models import ModelCard, Network
from hrviewer.models.detection import Detections, non_max_suppression

TILE, STRIDE = 64, 4
CLASSES = ("cat", "dog")


def rectangles(
    h: int, w: int, n: int, *, side: tuple[int, int] = (4, 13), seed: int = 0
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return a black image with up to n rectangles apart from one another, and these.

    Red is the score, green is the class: ``(y, x, h, w, red, class)`` of each.
    """
    rng = np.random.default_rng(seed)
    image, rows = np.zeros((h, w, 3), np.uint8), []
    for _ in range(n):
        a, b = rng.integers(*side, 2)
        y, x = rng.integers(0, h - a + 1), rng.integers(0, w - b + 1)
        if image[max(0, y - 2) : y + a + 2, max(0, x - 2) : x + b + 2].any():
            continue
        red, kind = rng.integers(30, 256), rng.integers(0, 2)
        image[y : y + a, x : x + b] = red, 255 * kind, 0
        rows.append((y, x, a, b, red, kind))
    return image, np.array(rows, np.int64)


class Finder(Network):
    """Finds every rectangle, or the part of it that it sees, and each twice.

    The second box is one pixel farther and less certain, as detectors give several boxes.
    """

    def __init__(self, *, fixed: bool = False, stride: int = STRIDE, tile: int = TILE) -> None:
        card = ModelCard.model_validate(
            {
                "name": "finder",
                "task": "detection",
                "input": {"channels": "rgb", "scale": 1 / 255, "tile": tile, "fixed": fixed,
                          "multiple_of": stride, "letterbox": 0},
                "output": {"stride": stride, "classes": CLASSES, "decode": "yolov8"},
            }
        )  # fmt: skip
        super().__init__(card, "finder", "toy", "cpu")
        self.accepts_any_size = True

    def _run(self, batch: NDArray[np.float32]) -> Sequence[NDArray[np.float32]]:
        return [batch]

    def _count(self, h: int, w: int) -> float:
        return 100.0 * h * w

    def _decode(self, outputs: Any, size: Any, score: Any = None, overlap: Any = None) -> Any:
        return [self.find(tile, 0.3 if score is None else score, overlap) for tile in outputs[0]]

    def find(self, tile: NDArray[np.float32], score: float, overlap: float | None) -> Detections:
        """Return the boxes in one tile ``(3, h, w)``."""
        numbers, _ = label(tile[0] > 0.05)
        found = find_objects(numbers)
        boxes = np.array([(ys.start, xs.start, ys.stop, xs.stop) for ys, xs in found])
        boxes = boxes.reshape(-1, 4)
        reds = [float(tile[0][where].max()) for where in found]
        kinds = [int(tile[1][where].max() > 0.5) for where in found]
        twice = np.concatenate([boxes, boxes + np.array([0, 1, 0, 1])]).astype(np.float32)
        scores = np.array([*reds, *(0.9 * red for red in reds)], np.float32)
        classes = np.array([*kinds, *kinds], np.int64)
        known = scores >= score
        twice, scores, classes = twice[known], scores[known], classes[known]
        kept = non_max_suppression(twice, scores, classes, 0.45 if overlap is None else overlap)
        return Detections(twice[kept], scores[kept], classes[kept])
