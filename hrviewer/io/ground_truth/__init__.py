"""Readers of ground truth and annotation files.

`points`, `boxes` and `label_maps` have one function per format, ``read(path, image)``, which
returns a `GroundTruth` in level-0 pixels of the image. The checks common to all formats are here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hrviewer.errors import GroundTruthError, HrviewerError, short_message
from hrviewer.ground_truth import GroundTruth
from hrviewer.io.features import Feature, rectangle
from hrviewer.io.ground_truth.boxes import read_voc
from hrviewer.io.ground_truth.image_ref import ImageRef
from hrviewer.io.ground_truth.label_maps import is_label_map, read_labels
from hrviewer.io.ground_truth.outlines import read_outlines
from hrviewer.io.ground_truth.points import read_csv, read_json, read_mat

__all__ = [
    "BORDER_TOLERANCE",
    "MISMATCHES",
    "SUFFIXES",
    "ImageRef",
    "existing_file",
    "is_label_map",
    "read_features",
    "read_ground_truth",
]

BORDER_TOLERANCE = 0.01
"""Distance from which points beyond the border are moved onto it, as a fraction of the side."""

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
"""Reader of each file suffix."""

SUFFIXES = tuple(READERS)

TEXT_SUFFIXES = (".geojson", ".json", ".xml")
MAX_TEXT_BYTES = 512 << 20
"""Of a file that is parsed as a whole, which takes several times its size."""

MISMATCHES = (ValueError, TypeError, AttributeError, RecursionError)
"""Errors of values that have another type than expected."""


def read_ground_truth(path: str | Path, image: str, shape: tuple[int, int]) -> GroundTruth:
    """Read the ground truth of an image.

    Formats: CSV of points or boxes, GeoJSON of points or polygons, COCO, Pascal VOC, annotations of
    the Digital Slide Archive, ShanghaiTech's ``.mat``, and label maps (TIFF, OME-Zarr) with one id
    per object.

    Parameters
    ----------
    path : str or Path
        The file.
    image : str
        Name of the image; selects it in files that cover several images.
    shape : tuple of int
        Height and width of the image, level-0 pixels.

    Returns
    -------
    GroundTruth
        Points as given, centres of boxes, centroids of polygons and labels. Points just beyond the
        border are moved onto it.

    Raises
    ------
    HrviewerError
        If the file is missing, damaged, empty, of an unknown format or about another image.
    """
    path = existing_file(path)
    try:
        ground_truth = READERS[path.suffix.lower()](path, ImageRef(image, shape))
    except HrviewerError:
        raise
    except (OSError, LookupError, ArithmeticError, *MISMATCHES) as error:
        why = short_message(error)
        raise GroundTruthError(f"{path.name} cannot be read as ground truth: {why}") from None
    if ground_truth.boxes is not None and (ground_truth.boxes[:, 2:] < 0).any():
        raise GroundTruthError(
            f"{path.name} has a box whose end comes before its beginning: correct or remove it"
        )
    if not len(ground_truth) and not ground_truth.is_annotated:
        raise GroundTruthError(
            f"{path.name} contains no annotations, so it cannot be used as ground truth"
        )
    return snap_to_image(ground_truth, path, shape)


def existing_file(path: str | Path, more: Sequence[str] = ()) -> Path:
    """Return the path of a file of annotations, checked before it is read.

    Parameters
    ----------
    path : str or Path
        The file.
    more : sequence of str
        Suffixes of further formats.

    Raises
    ------
    HrviewerError
        If it is missing, empty, too large or of an unknown format.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise GroundTruthError(f"there are no annotations at {path}: no such file or folder")
    if not (path.is_file() or path.is_dir()):
        raise GroundTruthError(f"{path.name} is a device or pipe, not a file")
    if path.suffix.lower() not in (*READERS, *more):
        known = ", ".join([*SUFFIXES, *more])
        raise GroundTruthError(
            f"{path.name} is not a known format of ground truth; use one of: {known}"
        )
    if path.is_file() and os.path.getsize(path) == 0:
        raise GroundTruthError(f"{path.name} is empty: choose another file as ground truth")
    if path.suffix.lower() in TEXT_SUFFIXES and os.path.getsize(path) > MAX_TEXT_BYTES:
        raise GroundTruthError(
            f"{path.name} has more than {MAX_TEXT_BYTES >> 20} MiB: divide it, or save it as .csv"
        )
    return path


def snap_to_image(ground_truth: GroundTruth, path: Path, shape: tuple[int, int]) -> GroundTruth:
    """Move points just beyond the border onto it; raise an error for points farther out."""
    points = ground_truth.points
    if not np.isfinite(points).all():
        raise GroundTruthError(f"{path.name} contains coordinates that are not numbers")
    sides = np.array(shape, float)
    slack = np.maximum(1.0, BORDER_TOLERANCE * sides)
    out = ((points < -slack) | (points > sides + slack)).any(axis=1)
    if out.any():
        y, x = points[out][0]
        raise GroundTruthError(
            f"{path.name} is about another image: {out.sum()} of {len(points)} objects lie "
            f"outside {shape[0]} × {shape[1]} pixels, the first at ({y:.6g}, {x:.6g})"
        )
    inside = np.clip(points, 0, np.nextafter(sides, 0))
    return ground_truth.with_points(inside, source=str(path))


def read_features(path: str | Path, image: str, shape: tuple[int, int]) -> list[Feature]:
    """Read annotations as features, with outlines if the file has them.

    Parameters
    ----------
    path, image, shape
        See `read_ground_truth`.

    Raises
    ------
    HrviewerError
        See `read_ground_truth`.
    """
    path = Path(path).expanduser()
    ground_truth = read_ground_truth(path, image, shape)
    if path.suffix.lower() in (".json", ".geojson"):
        return list(read_outlines(path, ImageRef(image, shape)))
    labels = [ground_truth.classes[class_id] for class_id in ground_truth.class_ids]
    places: list[dict[str, Any]]
    if ground_truth.boxes is None:
        places = [{"point": (float(y), float(x))} for y, x in ground_truth.points]
    else:
        places = [{"polygons": (rectangle(*box),)} for box in ground_truth.boxes.tolist()]
    return [
        Feature("annotation", label, number=i, **place)
        for i, (label, place) in enumerate(zip(labels, places, strict=True))
    ]
