"""Ground truth as points: tables, GeoJSON, and the ``.mat`` files of crowd counting datasets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.errors import GroundTruthError, short_message
from hrviewer.ground_truth import GroundTruth, ground_truth_from_labels
from hrviewer.io.csv_file import read_csv_file
from hrviewer.io.dsa import is_dsa, read_dsa
from hrviewer.io.geojson import CLASS_KEYS, read_geojson, read_json_file
from hrviewer.io.ground_truth.boxes import read_coco
from hrviewer.io.ground_truth.image_ref import ImageRef
from hrviewer.io.ground_truth.mat_check import check_mat
from hrviewer.io.ground_truth.object_outlines import outlines_of_polygons

__all__ = ["read_csv", "read_json", "read_mat", "write_csv"]

POINT_COLUMNS = (
    ("y", "x"),
    ("y_px", "x_px"),
    ("row", "col"),
    ("row", "column"),
    ("axis-0", "axis-1"),
)
"""Column names of points; the last are napari's."""

CORNER_COLUMNS = (("ymin", "xmin", "ymax", "xmax"), ("y0", "x0", "y1", "x1"))
"""Column names of the corners of boxes."""

SIZE_COLUMNS = (("y", "x", "h", "w"), ("y", "x", "height", "width"))
"""Column names of the first corner and size of boxes."""

IMAGE_COLUMNS = ("image_path", "image", "filename", "file")


def read_csv(path: Path, image: ImageRef) -> GroundTruth:
    """Read a table of points or boxes with column names in the first row.

    Points are ``y, x`` (or row and col, axis-0 and axis-1), boxes ``xmin, ymin, xmax, ymax``
    (optionally with points) or ``y, x, h, w``. A column ``label`` or ``class`` has the classes, a
    column ``image`` or ``image_path`` the image that a row belongs to.
    """
    table = read_csv_file(path, GroundTruthError)
    table.columns = [str(column).strip().lower() for column in table.columns]
    image_column = first_column(table, IMAGE_COLUMNS)
    if image_column and len(table):
        names = table[image_column].astype(str)
        table = table[names == image.match(path, names)]
    class_column = first_column(table, CLASS_KEYS)
    labels = table[class_column].astype(str).tolist() if class_column else ["object"] * len(table)

    def numbers(columns: Sequence[str]) -> NDArray[np.float64]:
        return table[list(columns)].to_numpy(np.float64)

    corners, sizes, points = (
        first_columns(table, known) for known in (CORNER_COLUMNS, SIZE_COLUMNS, POINT_COLUMNS)
    )
    if corners:
        ends = numbers(corners)
        boxes = np.hstack([ends[:, :2], ends[:, 2:] - ends[:, :2]])
        return ground_truth_from_labels(
            labels, points=numbers(points) if points else None, boxes=boxes
        )
    if sizes:
        return ground_truth_from_labels(labels, boxes=numbers(sizes))
    if points:
        return ground_truth_from_labels(labels, points=numbers(points))
    raise GroundTruthError(
        f"{path.name} has the columns {', '.join(table.columns)}: name the columns of points y and "
        "x, those of boxes xmin, ymin, xmax and ymax"
    )


def write_csv(ground_truth: GroundTruth, path: Path) -> None:
    """Write ground truth as a table for `read_csv`."""
    import pandas as pd

    columns: dict[str, Any] = {"y": ground_truth.points[:, 0], "x": ground_truth.points[:, 1]}
    columns["label"] = np.array(ground_truth.classes)[ground_truth.class_ids]
    if ground_truth.boxes is not None:
        y, x, h, w = ground_truth.boxes.T
        columns |= {"ymin": y, "xmin": x, "ymax": y + h, "xmax": x + w}
    pd.DataFrame(columns).to_csv(path, index=False)


def first_column(table: Any, names: Sequence[str]) -> str | None:
    """Return the first of these columns that a table has."""
    return next((name for name in names if name in table), None)


def first_columns(table: Any, known: Sequence[tuple[str, ...]]) -> tuple[str, ...] | None:
    """Return the first of these sets of columns that a table has."""
    return next((names for names in known if set(names) <= set(table)), None)


def read_mat(path: Path, image: ImageRef) -> GroundTruth:
    """Read the points of ShanghaiTech (``image_info``) or UCF-QNRF (``annPoints``)."""
    from scipy.io import loadmat

    try:
        check_mat(path)
        data = loadmat(path)
    except Exception as error:  # scipy raises many kinds of errors for damaged files
        raise GroundTruthError(
            f"{path.name} is not a readable MATLAB file of version 5 to 7.2: {short_message(error)}"
        ) from None
    if "image_info" in data:
        locations = data["image_info"][0, 0]["location"][0, 0]
    elif "annPoints" in data:
        locations = data["annPoints"]
    else:
        raise GroundTruthError(
            f"{path.name} has neither image_info (ShanghaiTech) nor annPoints (UCF-QNRF)"
        )
    points = np.asarray(locations, np.float64)
    if points.size == 0:
        points = np.zeros((0, 2))
    if points.ndim != 2 or points.shape[1] != 2:
        raise GroundTruthError(f"{path.name} has points of shape {points.shape}, not (n, 2)")
    points = points[:, ::-1]
    return ground_truth_from_labels(["person"] * len(points), points=points)


def read_json(path: Path, image: ImageRef) -> GroundTruth:
    """Read GeoJSON, COCO, or annotations of the Digital Slide Archive."""
    data = read_json_file(path)
    if isinstance(data, dict) and "annotations" in data:
        return read_coco(data, path, image)
    features = list((read_dsa if is_dsa(data) else read_geojson)(data, path))
    return ground_truth_from_labels(
        [feature.label for feature in features],
        points=np.array([feature.center for feature in features]),
        boxes=np.array([feature.box for feature in features]),
        outlines=outlines_of_polygons([feature.polygons for feature in features]),
    )
