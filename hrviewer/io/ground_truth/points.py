"""Points: tables, GeoJSON, and the ``.mat`` files of the crowd counting data sets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.errors import HrviewerError
from hrviewer.ground_truth import GroundTruth, ground_truth_from_labels
from hrviewer.io.dsa import is_dsa, read_dsa
from hrviewer.io.geojson import CLASS_KEYS, read_geojson, read_json_file
from hrviewer.io.ground_truth.boxes import read_coco
from hrviewer.io.ground_truth.image_ref import ImageRef

__all__ = ["read_csv", "read_json", "read_mat", "write_csv"]

POINT_COLUMNS = (
    ("y", "x"),
    ("y_px", "x_px"),
    ("row", "col"),
    ("row", "column"),
    ("axis-0", "axis-1"),
)
"""Names of the columns that say where a point is; the last are napari's."""

CORNER_COLUMNS = (("ymin", "xmin", "ymax", "xmax"), ("y0", "x0", "y1", "x1"))
"""Of a box's corners."""

SIZE_COLUMNS = (("y", "x", "h", "w"), ("y", "x", "height", "width"))
"""Of a box's first corner and its size."""

IMAGE_COLUMNS = ("image_path", "image", "filename", "file")


def read_csv(path: Path, image: ImageRef) -> GroundTruth:
    """Read a table of points or boxes, with the names of its columns in the first row.

    Points are ``y, x`` (or row and col, axis-0 and axis-1), boxes ``xmin, ymin, xmax, ymax``
    (points may stand beside them) or ``y, x, h, w``. A column ``label`` or ``class`` names the
    classes; one called ``image`` or ``image_path`` tells whose the row is.
    """
    import pandas as pd

    try:
        table = pd.read_csv(path)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise HrviewerError(f"{path.name} is no readable table: {error}") from None
    table.columns = [str(column).strip().lower() for column in table.columns]
    whose = first_column(table, IMAGE_COLUMNS)
    if whose and len(table):
        names = table[whose].astype(str)
        table = table[names == image.match(path, names)]
    kinds = first_column(table, CLASS_KEYS)
    labels = table[kinds].astype(str).tolist() if kinds else ["object"] * len(table)

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
    raise HrviewerError(
        f"{path.name} has the columns {', '.join(table.columns)}: name those of points y and x, "
        "those of boxes xmin, ymin, xmax and ymax"
    )


def write_csv(truth: GroundTruth, path: Path) -> None:
    """Write objects as the table that `read_csv` reads."""
    import pandas as pd

    columns: dict[str, Any] = {"y": truth.points[:, 0], "x": truth.points[:, 1]}
    columns["label"] = np.array(truth.classes)[truth.class_ids]
    if truth.boxes is not None:
        y, x, h, w = truth.boxes.T
        columns |= {"ymin": y, "xmin": x, "ymax": y + h, "xmax": x + w}
    pd.DataFrame(columns).to_csv(path, index=False)


def first_column(table: Any, names: Sequence[str]) -> str | None:
    """Return the first of these columns that there is."""
    return next((name for name in names if name in table), None)


def first_columns(table: Any, known: Sequence[tuple[str, ...]]) -> tuple[str, ...] | None:
    """Return the first of these sets of columns that there is."""
    return next((names for names in known if set(names) <= set(table)), None)


def read_mat(path: Path, image: ImageRef) -> GroundTruth:
    """Read the clicks of ShanghaiTech (``image_info``) or UCF-QNRF (``annPoints``)."""
    from scipy.io import loadmat

    try:
        held = loadmat(path)
    except Exception as error:  # a damaged file raises whatever
        raise HrviewerError(
            f"{path.name} is no MATLAB file of version 4 to 7.2, as ShanghaiTech's are: {error}"
        ) from None
    if "image_info" in held:
        clicks = held["image_info"][0, 0]["location"][0, 0]
    elif "annPoints" in held:
        clicks = held["annPoints"]
    else:
        raise HrviewerError(
            f"{path.name} holds neither image_info, as ShanghaiTech's, nor annPoints"
        )
    points = np.asarray(clicks, np.float64).reshape(-1, 2)[:, ::-1]
    return ground_truth_from_labels(["person"] * len(points), points=points)


def read_json(path: Path, image: ImageRef) -> GroundTruth:
    """Read GeoJSON, as QuPath writes it, COCO, or the Digital Slide Archive's annotations."""
    held = read_json_file(path)
    if isinstance(held, dict) and "annotations" in held:
        return read_coco(held, path, image)
    features = list((read_dsa if is_dsa(held) else read_geojson)(held, path))
    return ground_truth_from_labels(
        [feature.label for feature in features],
        points=np.array([feature.center for feature in features]),
        boxes=np.array([feature.box for feature in features]),
    )
