"""Time to merge and to show many objects: ``python -m benchmarks.objects --objects 100000``.

One JSON object is printed. So many boxes of 20 to 40 pixels are spread over an image, each with
``--candidates`` boxes, as detectors give them.

``merge_s``
    Non-maximum suppression of all candidates (on a thread of its own, or in a script).
``draw_s``
    Drawing all objects as a raster of 1,400 × 900 screen pixels (on a worker thread).
``show_s``
    Showing that raster in its layer (on the window's thread).
``lines_draw_s``, ``lines_show_s``, ``lines``
    The same at full resolution, where objects are lines.
``oriented_merge_s``
    Non-maximum suppression of 9,000 oriented boxes at random places of 640 × 640 pixels.
``score_s``
    Another least score: drawing and showing.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

SCREEN = 900, 1400


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.objects", description=__doc__)
    parser.add_argument("--objects", type=int, default=100_000)
    parser.add_argument("--candidates", type=int, default=4)
    chosen = parser.parse_args(arguments)
    print(json.dumps(measure(chosen.objects, chosen.candidates), indent=1))


def measure(n: int, per_object: int) -> dict[str, Any]:
    """Return what was measured, in seconds."""
    from napari.layers import Image

    from hrviewer.app.maps.object_map import ObjectMap
    from hrviewer.geometry import Rect
    from hrviewer.objects import DetectedObjects, MergeSettings, merge_objects
    from hrviewer.viewer.layers.object_layers import ObjectLayers

    rng = np.random.default_rng(0)
    across = math.ceil(math.sqrt(n))
    side = 48 * across
    image = Rect(0, 0, side, side)
    index = np.arange(n)
    corner = 48.0 * np.stack([index // across, index % across], axis=1)
    boxes = np.concatenate([corner, rng.uniform(20, 40, (n, 2))], axis=1)
    candidates = DetectedObjects(
        np.repeat(boxes, per_object, axis=0) + rng.normal(0, 1, (n * per_object, 4)),
        rng.uniform(0.05, 1, n * per_object).astype(np.float32),
        np.repeat(rng.integers(0, 5, n), per_object),
    )

    def timed(work: Callable[[], Any]) -> tuple[float, Any]:
        start = time.perf_counter()
        result = work()
        return time.perf_counter() - start, result

    found: dict[str, Any] = {"objects": n, "candidates": len(candidates)}
    found["merge_s"], merged = timed(
        lambda: candidates.take(merge_objects(candidates, MergeSettings(score=0.05)))
    )
    objects = ObjectMap(image, [f"class {i}" for i in range(5)])
    objects.replace(merged)
    objects.score = 0.05
    layers = ObjectLayers(Image(np.zeros((64, 64))))
    layers.objects = objects

    def show(view: Rect, pixel: float) -> tuple[float, float]:
        draw_s, objects.drawing = timed(lambda: objects.draw(view, (pixel, pixel)))
        show_s, _ = timed(layers.refresh)
        return draw_s, show_s

    pixel = side / SCREEN[0]
    found["draw_s"], found["show_s"] = show(image, pixel)
    objects.score = 0.5
    found["score_s"] = sum(show(image, pixel))
    near = Rect(side // 2, side // 2, *SCREEN) & image
    found["lines_draw_s"], found["lines_show_s"] = show(near, 1.0)
    found["lines"] = len(layers.lines.data)
    oriented = oriented_boxes(9000, 640, rng)
    found["oriented_merge_s"], _ = timed(lambda: merge_objects(oriented, MergeSettings(score=0.05)))
    return found


def oriented_boxes(n: int, side: int, rng: np.random.Generator) -> Any:
    """Return oriented boxes of 20 to 120 pixels, of three classes."""
    from hrviewer.objects import DetectedObjects

    center, angle = rng.uniform(0, side, (n, 1, 2)), rng.uniform(0, math.pi, n)
    half = rng.uniform(10, 60, (n, 2))
    signs = np.array([[1, 1], [1, -1], [-1, -1], [-1, 1]])
    along, across = np.moveaxis(signs * half[:, None], -1, 0)
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    rings = center + np.stack([along * cos - across * sin, along * sin + across * cos], axis=2)
    low, high = rings.min(axis=1), rings.max(axis=1)
    return DetectedObjects(
        np.concatenate([low, high - low], axis=1),
        rng.uniform(0.05, 1, n).astype(np.float32),
        rng.integers(0, 3, n),
        lengths=np.full(n, 4),
        corners=rings.reshape(-1, 2),
    )


if __name__ == "__main__":
    main()
