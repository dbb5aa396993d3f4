"""Direct loops without hrviewer: onnxruntime or torch on an input, and objects read plainly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tiny_models
from tiny_models import CLASSES, SIDE

Found = tuple[float, int, list[float]]
"""Score, class and box (y0, x0, y1, x1) of an object."""


def run_onnx(path: Path, batch: np.ndarray) -> list[np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: batch})


def run_module(x: np.ndarray, dense: bool = False) -> np.ndarray:
    import torch

    with torch.inference_mode():
        return tiny_models.module(dense=dense)(torch.from_numpy(x)).numpy()


def first_axes(pixels: np.ndarray, mean: Any = 0, std: Any = 1) -> np.ndarray:
    """Return pixels of 0-255 as ``(1, C, h, w)``, scaled to 0-1 and normalised."""
    x = (pixels.astype(np.float32) / 255 - mean) / std
    return np.ascontiguousarray(x.transpose(2, 0, 1)[None], np.float32)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def overlap(a: list[float], b: list[float]) -> float:
    h = min(a[2], b[2]) - max(a[0], b[0])
    w = min(a[3], b[3]) - max(a[1], b[1])
    common = max(h, 0) * max(w, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return common / max(sum(areas) - common, 1e-9)


def suppress(found: list[Found]) -> list[Found]:
    """Keep the objects that overlap no better one of their class."""
    kept: list[Found] = []
    for score, c, box in sorted(found, key=lambda one: -one[0]):
        if all(c != d or overlap(box, other) <= 0.45 for _, d, other in kept):
            kept.append((score, c, box))
    return kept


def read_objects(
    kind: str, outputs: list[np.ndarray], *, with_duplicates: bool = False
) -> list[Found]:
    """Read the objects of one input, one anchor or query after another, best first."""
    found = [one for one in _candidates(kind, outputs) if one[0] >= 0.3]
    inside = [
        (score, c, [min(max(v, 0), SIDE) for v in box])
        for score, c, box in found
        if 0 <= (box[0] + box[2]) / 2 < SIDE and 0 <= (box[1] + box[3]) / 2 < SIDE
    ]
    if kind in ("detect", "segment", "yolox") and not with_duplicates:
        return suppress(inside)
    return sorted(inside, key=lambda one: -one[0])


def _candidates(kind: str, outputs: list[np.ndarray]) -> list[Found]:
    k, found = len(CLASSES), []
    if kind in ("detect", "segment"):
        for column in outputs[0][0].T:
            scores = column[4 : 4 + k]
            found.append((float(scores.max()), int(scores.argmax()), box_of(*column[:4])))
    elif kind == "detect-nms":
        for x0, y0, x1, y1, score, c in outputs[0][0]:
            found.append((float(score), int(c), [y0, x0, y1, x1]))
    elif kind == "rtdetr":
        for row in outputs[0][0]:
            for c, score in enumerate(row[4:]):
                found.append((float(score), c, box_of(*row[:4] * SIDE)))
    elif kind == "detr":
        for logits, box in zip(outputs[0][0], outputs[1][0] * SIDE, strict=True):
            scores = np.exp(logits) / np.exp(logits).sum()
            c = int(scores[:-1].argmax())
            found.append((float(scores[c]), c, box_of(*box)))
    elif kind == "yolox":
        centers, steps = tiny_models.cells()
        for row, (x, y), s in zip(outputs[0][0], centers.T, steps, strict=True):
            w, h = np.exp(row[2:4]) * s
            box = box_of(x - s / 2 + row[0] * s, y - s / 2 + row[1] * s, w, h)
            found += [(float(score), c, box) for c, score in enumerate(row[4] * row[5:])]
    return found


def box_of(x: float, y: float, w: float, h: float) -> list[float]:
    return [y - h / 2, x - w / 2, y + h / 2, x + w / 2]
