"""A run's objects as one of napari's layer-data tuples, without napari."""

from __future__ import annotations

from typing import Any

import numpy as np

from hrviewer.io.exportable import Exportable
from hrviewer.io.geojson import class_color
from hrviewer.io.object_table import has_objects, read_objects
from hrviewer.objects import outlines_as_lines

__all__ = ["object_tuples"]

MAX_OBJECTS = 5000
"""Most objects of a layer, the most confident: napari takes seconds for many more."""


def object_tuples(
    run: Exportable, pixel_size: tuple[float, float] | None
) -> list[tuple[Any, dict[str, Any], str]]:
    """Return the outlines of a detector's objects in the colors of their classes, as vectors.

    Returns
    -------
    list of tuple
        One ``(data, settings, "vectors")``; none of a model that detects no objects. Where only
        the most confident objects are part of it, its name gives their number and that of all.
    """
    if not has_objects(run):
        return []
    _, objects, classes = read_objects(run)
    total = len(objects)
    objects = objects.take(np.arange(min(total, MAX_OBJECTS)))
    lines, owner = outlines_as_lines(objects)
    # Pixel centres are at whole numbers in a layer, at halves in level-0 pixels.
    lines[:, 0] -= 0.5
    colors = np.array([class_color(name) for name in classes]).reshape(-1, 3) / 255
    settings = {
        "name": "objects" if total <= MAX_OBJECTS else f"objects ({len(objects):,} of {total:,})",
        "vector_style": "line",
        "edge_color": np.c_[colors[objects.class_ids[owner]], np.ones(len(owner))],
        "edge_width": max(1.0, float(np.median(objects.boxes[:, 2:])) / 20) if total else 1.0,
        "opacity": 1.0,
        "scale": pixel_size or (1.0, 1.0),
        "units": ("pixel", "pixel") if pixel_size is None else ("um", "um"),
        "metadata": {"hrviewer": {"overlay": "objects"}},
    }
    return [(lines, settings, "vectors")]
