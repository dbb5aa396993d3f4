"""The survey's baselines in the fewest lines: onnxruntime and Pillow, nothing of hrviewer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image

CELLS = ("full", "uniform/4", "uniform/16", "cut/4", "cut/16")


def counts(model: Callable[[np.ndarray], np.ndarray], photo: Image.Image) -> dict[str, float]:
    """Return the counts of a model of grey values on a photo, by condition."""

    def predict(picture: Image.Image) -> float:
        grey = np.asarray(picture.convert("L"), np.float32)
        return float(model(grey[None, None]).sum(dtype=np.float64))

    w, h = photo.size

    def cut(n: int) -> float:
        ys, xs = ([side * i // n for i in range(n + 1)] for side in (h, w))
        boxes = [(xs[j], ys[i], xs[j + 1], ys[i + 1]) for i in range(n) for j in range(n)]
        return sum(predict(photo.crop(box)) for box in boxes)

    def shrunk(n: int) -> float:
        return predict(photo.resize((w // n, h // n), Image.Resampling.BOX))

    return dict(zip(CELLS, (predict(photo), shrunk(2), shrunk(4), cut(2), cut(4)), strict=True))


def mean_errors(
    model: Callable[[np.ndarray], np.ndarray], asked: Iterable[tuple[Path, int]]
) -> dict[str, float]:
    """Return the mean absolute error by condition."""
    errors = []
    for path, truth in asked:
        with Image.open(path) as photo:
            errors.append([abs(count - truth) for count in counts(model, photo).values()])
    return dict(zip(CELLS, np.mean(errors, axis=0).tolist(), strict=True))
