"""In: what is really there, from the files in which people keep it.

`points`, `boxes` and `labels` hold one reader per format, each ``read(path, image) -> Truth`` in
level-0 pixels of the image. What every file must live up to is checked here, once.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hrviewer.errors import HrviewerError
from hrviewer.geometry import Rect
from hrviewer.ground_truth import GroundTruth
from hrviewer.io.dsa import is_dsa, read_dsa
from hrviewer.io.features import Feature, rectangle
from hrviewer.io.geojson import read_geojson, read_json_file
from hrviewer.io.ground_truth.boxes import read_voc
from hrviewer.io.ground_truth.image_ref import ImageRef
from hrviewer.io.ground_truth.label_maps import is_label_map, read_labels
from hrviewer.io.ground_truth.points import read_csv, read_json, read_mat

__all__ = [
    "BORDER_TOLERANCE",
    "SUFFIXES",
    "ImageRef",
    "is_label_map",
    "read_features",
    "read_ground_truth",
    "read_region",
]

BORDER_TOLERANCE = 0.01
"""How far beyond the border, in sides of the image, a click still meant the border."""

GroundTruthReader = Callable[[Path, ImageRef], GroundTruth]

READERS: dict[str, GroundTruthReader] = {
    ".csv": read_csv,
    ".geojson": read_json,
    ".json": read_json,
    ".mat": read_mat,
    ".xml": read_voc,
    ".tif": read_labels,
    ".tiff": read_labels,
    ".zarr": read_labels,
}
"""By the name's ending. A new format is a reader and its line here."""

SUFFIXES = tuple(READERS)


def read_ground_truth(path: str | Path, image: str, shape: tuple[int, int]) -> GroundTruth:
    """Read an image's truth.

    CSV of points or boxes, GeoJSON of points or polygons, COCO, annotations of the
    Digital Slide Archive, ShanghaiTech's ``.mat``, Pascal
    VOC, and label maps (TIFF, OME-Zarr) in which every object has a number of its own.

    Parameters
    ----------
    path : str or Path
        The file.
    image : str
        The image's name: files that hold the truth of many are asked for this one.
    shape : tuple of int
        Its height and width, level-0 pixels.

    Returns
    -------
    Truth
        Centres of boxes, centroids of polygons and labels by area, or the points as they are.
        Objects clicked just beyond the border are moved onto it.

    Raises
    ------
    UserError
        If the file is missing, damaged, of an unknown format, without any object, or the truth
        of another image.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise HrviewerError(f"there is no truth in {path}: no such file or folder")
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        known = ", ".join(SUFFIXES)
        raise HrviewerError(f"{path.name} is no truth that hrviewer reads; give one of: {known}")
    if path.is_file() and os.path.getsize(path) == 0:
        raise HrviewerError(f"{path.name} is empty: it tells no truth")
    try:
        truth = reader(path, ImageRef(image, shape))
    except HrviewerError:
        raise
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise HrviewerError(f"{path.name} cannot be read as truth: {error}") from None
    if not len(truth) and not truth.is_annotated:
        raise HrviewerError(f"{path.name} holds no object: it tells no truth")
    return snap_to_image(truth, path, shape)


def snap_to_image(truth: GroundTruth, path: Path, shape: tuple[int, int]) -> GroundTruth:
    """Move what was clicked just beyond the border onto it; refuse what lies farther out."""
    points = truth.points
    if not np.isfinite(points).all():
        raise HrviewerError(f"{path.name} holds coordinates that are no numbers")
    sides = np.array(shape, float)
    slack = np.maximum(1.0, BORDER_TOLERANCE * sides)
    out = ((points < -slack) | (points > sides + slack)).any(axis=1)
    if out.any():
        y, x = points[out][0]
        raise HrviewerError(
            f"{path.name} is the truth of another image: {out.sum()} of {len(points)} objects lie "
            f"outside {shape[0]} × {shape[1]} pixels, the first at ({y:.6g}, {x:.6g})"
        )
    inside = np.clip(points, 0, np.nextafter(sides, 0))
    return truth.with_points(inside, source=str(path))


def read_region(path: str | Path, image: str, shape: tuple[int, int]) -> Rect:
    """Return the smallest rectangle around all that a file marks: a region of interest.

    Parameters
    ----------
    path, image, shape
        See `read_truth`.

    Raises
    ------
    UserError
        See `read_truth`; or if nothing but a single point is marked.
    """
    truth = read_ground_truth(path, image, shape)
    low, high = truth.points.min(axis=0), truth.points.max(axis=0)
    if truth.boxes is not None:
        low = np.minimum(low, truth.boxes[:, :2].min(axis=0))
        high = np.maximum(high, (truth.boxes[:, :2] + truth.boxes[:, 2:]).max(axis=0))
    (y, x), (y1, x1) = np.floor(low).astype(int).tolist(), np.ceil(high).astype(int).tolist()
    found = Rect(y, x, y1 - y, x1 - x) & Rect(0, 0, *shape)
    if found.empty:
        raise HrviewerError(
            f"{Path(path).name} marks no part of the image: draw a shape around one"
        )
    return found


def read_features(path: str | Path, image: str, shape: tuple[int, int]) -> list[Feature]:
    """Return what a file marks, with its outlines where it tells them, to be shown and edited.

    Parameters
    ----------
    path, image, shape
        See `read_truth`.

    Raises
    ------
    UserError
        See `read_truth`.
    """
    path = Path(path).expanduser()
    truth = read_ground_truth(path, image, shape)
    if path.suffix.lower() in (".json", ".geojson"):
        held = read_json_file(path)
        if is_dsa(held):
            return list(read_dsa(held, path))
        if not (isinstance(held, dict) and "annotations" in held):
            return list(read_geojson(held, path))
    labels = [truth.classes[kind] for kind in truth.class_ids]
    places: list[dict[str, Any]]
    if truth.boxes is None:
        places = [{"point": (float(y), float(x))} for y, x in truth.points]
    else:
        places = [{"polygons": (rectangle(*box),)} for box in truth.boxes.tolist()]
    return [
        Feature("annotation", label, number=i, **place)
        for i, (label, place) in enumerate(zip(labels, places, strict=True))
    ]
