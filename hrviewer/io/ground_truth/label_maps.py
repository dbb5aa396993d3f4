"""Label maps: TIFF or OME-Zarr images whose pixels hold object ids; 0 is background."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hrviewer.errors import GroundTruthError, HrviewerError
from hrviewer.geometry import Rect
from hrviewer.ground_truth import GroundTruth, ground_truth_from_labels
from hrviewer.io.ground_truth.image_ref import ImageRef
from hrviewer.objects import mask_ring
from hrviewer.pyramid import Pyramid, open_pyramid

__all__ = ["is_label_map", "iter_windows", "open_labels", "read_labels"]

WINDOW = 2048
"""Side of the windows that are read at once, in pixels."""


def is_label_map(path: str | Path) -> bool:
    """Return whether a file is named like a label map."""
    return Path(path).suffix.lower() in (".tif", ".tiff", ".zarr")


def open_labels(path: Path, image: ImageRef) -> Pyramid:
    """Open a label map of the image's size.

    Raises
    ------
    HrviewerError
        If it has several channels, is not of an integer type, or has another size.
    """
    labels = open_pyramid(find_label_array(path))
    if labels.channels != 1 or labels.dtype.kind not in "ui":
        labels.close()
        raise GroundTruthError(
            f"{path.name} is not a label map: it has {labels.channels} × {labels.dtype} per pixel, "
            "not one integer"
        )
    try:
        image.check_size(path, *labels.plane_shape)
    except HrviewerError:
        labels.close()
        raise
    return labels


def find_label_array(path: Path) -> str:
    """Return the path of the labels in an OME-Zarr image, or of the image itself."""
    inner = path / "labels"
    if inner.is_dir():
        named = sorted(child for child in inner.iterdir() if child.is_dir())
        if named:
            return str(named[0])
    return str(path)


def iter_windows(shape: tuple[int, int], step: int = WINDOW) -> Iterator[Rect]:
    """Yield windows that cover an image."""
    bounds = Rect(0, 0, *shape)
    for y in range(0, shape[0], step):
        for x in range(0, shape[1], step):
            yield Rect(y, x, step, step) & bounds


def read_labels(path: Path, image: ImageRef) -> GroundTruth:
    """Read every object's centroid and box, a window at a time."""
    parts: list[NDArray[np.float64]] = []
    with open_labels(path, image) as labels:
        for rect in iter_windows(labels.plane_shape):
            rows = measure_objects(
                labels.levels[0].read(rect.y, rect.y1, rect.x, rect.x1)[..., 0], rect
            )
            if len(rows):
                parts.append(rows)
            if len(parts) > 64:
                parts = [merge_measurements(parts)]
    if not parts:
        return ground_truth_from_labels([])
    rows = merge_measurements(parts)
    points = rows[:, 2:4] / rows[:, 1:2]
    boxes = np.hstack([rows[:, 4:6], rows[:, 6:8] - rows[:, 4:6]])
    return ground_truth_from_labels(
        ["object"] * len(rows),
        points=points,
        boxes=boxes,
        outlines=partial(read_label_outlines, path, image, rows[:, 0].astype(np.int64), boxes),
    )


def read_label_outlines(
    path: Path,
    image: ImageRef,
    numbers: NDArray[np.int64],
    boxes: NDArray[np.float64],
    which: NDArray[np.intp],
) -> NDArray[np.object_]:
    """Return the outlines of some objects of a label map, of several parts the longest.

    Parameters
    ----------
    path, image
        As in `read_labels`.
    numbers, boxes : ndarray
        Object ids and ``(y, x, h, w)`` of all objects.
    which : ndarray of int
        Indices of the objects.
    """
    import shapely

    outlines = np.empty(len(which), object)
    with open_labels(path, image) as labels:
        for i, at in enumerate(which):
            y, x, h, w = boxes[at].astype(int)
            values = labels.levels[0].read(y, y + h, x, x + w)[..., 0]
            ring = mask_ring(values == numbers[at]) + np.array([y, x])
            outlines[i] = shapely.Polygon(ring[:, ::-1])
    return outlines


def measure_objects(values: NDArray[np.integer], rect: Rect) -> NDArray[np.float64]:
    """Measure the part of each object in a window.

    Returns
    -------
    ndarray, shape (n, 8)
        Object id, area, sums of y and of x over pixel centres, and corners y0, x0, y1, x1.
    """
    y, x = np.nonzero(values)
    numbers, index = np.unique(values[y, x], return_inverse=True)
    n = len(numbers)
    out = np.empty((n, 8))
    out[:, 0], out[:, 1] = numbers, np.bincount(index, minlength=n)
    for i, (at, start) in enumerate(((y, rect.y), (x, rect.x))):
        out[:, 2 + i] = np.bincount(index, at + (start + 0.5), minlength=n)
        low, high = np.full(n, np.inf), np.full(n, -np.inf)
        np.minimum.at(low, index, at + start)
        np.maximum.at(high, index, at + start + 1)
        out[:, 4 + i], out[:, 6 + i] = low, high
    return out


def merge_measurements(parts: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Merge the measurements of objects in several windows."""
    rows = np.concatenate(parts)
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    starts = np.flatnonzero(np.diff(rows[:, 0], prepend=np.nan) != 0)
    return np.hstack(
        [
            rows[starts, :1],
            np.add.reduceat(rows[:, 1:4], starts),
            np.minimum.reduceat(rows[:, 4:6], starts),
            np.maximum.reduceat(rows[:, 6:8], starts),
        ]
    )
