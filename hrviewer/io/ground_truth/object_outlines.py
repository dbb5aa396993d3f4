"""Outlines of annotated objects, from the polygons of their files."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hrviewer.ground_truth import OutlineReader
from hrviewer.io.features import Polygon, area_of

__all__ = ["outlines_of_polygons"]


def outlines_of_polygons(objects: Sequence[tuple[Polygon, ...]]) -> OutlineReader | None:
    """Return the outlines of objects, of several polygons the largest.

    None where an object has no polygon, or all are upright rectangles, as boxes are.
    """
    import shapely

    if not objects or not all(objects):
        return None
    largest = [max(polygons, key=lambda one: area_of([one])) for polygons in objects]
    shapes = np.empty(len(largest), object)
    for i, (outer, *holes) in enumerate(largest):
        shapes[i] = shapely.Polygon(outer[:, ::-1], [hole[:, ::-1] for hole in holes])
    boxed = shapely.area(shapes) >= 0.999 * shapely.area(shapely.envelope(shapes))
    return None if boxed.all() else shapes.__getitem__
