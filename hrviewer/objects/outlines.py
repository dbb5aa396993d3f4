"""Outlines of objects as lines, to be drawn, and those of masks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hrviewer.objects.detected_objects import DetectedObjects

__all__ = ["corners_of_polygons", "mask_ring", "outlines_as_lines"]


def outlines_as_lines(
    objects: DetectedObjects,
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Return all edges of outlines as ``(start, direction)``, and the object of each."""
    boxed = np.flatnonzero(objects.lengths == 0)
    y, x, h, w = objects.boxes[boxed].T
    corners = np.stack([y, x, y, x + w, y + h, x + w, y + h, x], axis=1).reshape(-1, 4, 2)
    starts = [corners.reshape(-1, 2)]
    ends = [np.roll(corners, -1, axis=1).reshape(-1, 2)]
    owner = [np.repeat(boxed, 4)]
    if objects.has_outlines:
        lengths = objects.lengths
        following = np.arange(1, len(objects.corners) + 1)
        last = np.cumsum(lengths)[lengths > 0]
        following[last - 1] = last - lengths[lengths > 0]
        starts.append(objects.corners)
        ends.append(objects.corners[following])
        owner.append(np.repeat(np.arange(len(objects)), lengths))
    start, end = np.concatenate(starts), np.concatenate(ends)
    return np.stack([start, end - start], axis=1), np.concatenate(owner)


def corners_of_polygons(polygons: object) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return outlines as `DetectedObjects` has them: ``lengths`` and ``corners``.

    Parameters
    ----------
    polygons : array of shapely.Polygon, shape (n,)
        In ``(x, y)``; None has no corners. Holes are left out.
    """
    import shapely

    rings = shapely.get_exterior_ring(np.asarray(polygons, object))
    corners, index = shapely.get_coordinates(rings, return_index=True)
    last = np.r_[index[1:] != index[:-1], True] if len(index) else np.zeros(0, bool)
    lengths = np.bincount(index[~last], minlength=len(rings)).astype(np.int64)
    return lengths, corners[~last, ::-1]


def mask_ring(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the longest outline of a mask, ``(c, 2)``, half-way between the centers of cells.

    A cell's center is half a cell from its corner, so that the outline contains the centers of all
    cells of the mask and of no other.
    """
    from skimage.measure import find_contours

    lines = find_contours(np.pad(mask, 1).astype(np.float32), 0.5)
    ring = max(lines, key=len)[:-1] - 0.5
    # Corners in the middle of straight edges are left out.
    before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    turns = np.abs(before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]) > 1e-9
    return np.asarray(ring[turns])
