"""Discs whose StarDist, Cellpose and HoVer-Net maps are known in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.models import ModelCard, Network

RAYS = 32


def discs(h: int, w: int, n: int, *, seed: int = 0, gap: float = 3.0) -> NDArray[np.float64]:
    """Return up to n discs inside an image, ``(y, x, radius)``, at least a gap apart."""
    rng = np.random.default_rng(seed)
    found: list[tuple[float, float, float]] = []
    for _ in range(n):
        r = rng.uniform(6, 11)
        y, x = rng.uniform(r + 1, h - r - 1), rng.uniform(r + 1, w - r - 1)
        if all(np.hypot(y - a, x - b) > r + s + gap for a, b, s in found):
            found.append((y, x, r))
    return np.array(found)


def masks(h: int, w: int, found: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the label map of discs, from 1: a pixel is inside if its center is."""
    labels = np.zeros((h, w), np.int64)
    ys, xs = np.mgrid[:h, :w] + 0.5
    for i, (y, x, r) in enumerate(found, 1):
        labels[np.hypot(ys - y, xs - x) < r] = i
    return labels


def maps(decode: str, h: int, w: int, found: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the exact maps of a format, ``(channels, h, w)``."""
    ys, xs = np.mgrid[:h, :w] + 0.5
    labels = masks(h, w, found)
    inside = labels > 0
    y, x, r = np.concatenate([[[0, 0, 1]], found])[labels].transpose(2, 0, 1)
    dy, dx = ys - y, xs - x
    away = np.hypot(dy, dx)
    if decode == "stardist":
        angles = 2 * np.pi * np.arange(RAYS) / RAYS
        b = dy * np.sin(angles)[:, None, None] + dx * np.cos(angles)[:, None, None]
        rays = -b + np.sqrt(np.maximum(b**2 - away**2 + r**2, 0))
        probability = np.where(inside, 1 - away / r, 0)
        return np.concatenate([probability[None], np.where(inside, rays, 0)]).astype(np.float32)
    if decode == "cellpose":
        length = 5 / np.maximum(away, 1e-6)
        flow = [np.where(inside, -d * length, 0) for d in (dy, dx)]
        return np.stack([*flow, np.where(inside, 8.0, -8.0)]).astype(np.float32)
    hv = [np.where(inside, d / r, 0) for d in (dx, dy)]
    return np.stack([~inside, inside, *hv]).astype(np.float32)


class Maps(Network):
    """Gives the maps that the image consists of."""

    def __init__(self, decode: str, channels: int, *, tile: int = 96, fixed: bool = False) -> None:
        card = ModelCard.model_validate(
            {
                "name": decode,
                "task": "instances",
                "input": {"channels": channels, "tile": tile, "fixed": fixed, "letterbox": 0},
                "output": {"stride": 1, "classes": ["cell"], "decode": decode},
            }
        )
        super().__init__(card, "maps", "toy", "cpu")
        self.accepts_any_size = True

    def _run(self, batch: NDArray[np.float32]) -> Sequence[NDArray[np.float32]]:
        return [batch]

    def _count(self, h: int, w: int) -> float:
        return 1.0 * h * w


def overlaps(rings: Sequence[NDArray[Any]], found: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the best intersection over union of each disc with the outlines."""
    import shapely

    real = shapely.buffer(shapely.points(found[:, 1], found[:, 0]), found[:, 2], quad_segs=32)
    own = np.array([shapely.Polygon(ring[:, ::-1]) for ring in rings], object)
    common = shapely.area(shapely.intersection(real[:, None], own[None]))
    union = shapely.area(real)[:, None] + shapely.area(own)[None] - common
    return np.asarray((common / union).max(axis=1))
