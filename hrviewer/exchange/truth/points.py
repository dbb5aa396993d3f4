"""Points: tables, GeoJSON, and the ``.mat`` files of the crowd counting data sets."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.errors import UserError
from hrviewer.exchange.truth.asked import Asked
from hrviewer.exchange.truth.boxes import read_coco
from hrviewer.truth import Truth, named

__all__ = ["read_csv", "read_json", "read_mat", "write_csv"]

POINTS = (("y", "x"), ("row", "col"), ("row", "column"), ("axis-0", "axis-1"))
"""Names of the columns that say where a point is; the last are napari's."""

CORNERS = (("ymin", "xmin", "ymax", "xmax"), ("y0", "x0", "y1", "x1"))
"""Of a box's corners."""

SIZES = (("y", "x", "h", "w"), ("y", "x", "height", "width"))
"""Of a box's first corner and its size."""

IMAGES = ("image_path", "image", "filename", "file")

KINDS = ("label", "class", "category", "name")


def read_csv(path: Path, image: Asked) -> Truth:
    """Read a table of points or boxes, with the names of its columns in the first row.

    Points are ``y, x`` (or row and col, axis-0 and axis-1), boxes ``xmin, ymin, xmax, ymax``
    (points may stand beside them) or ``y, x, h, w``. A column ``label`` or ``class`` names the
    classes; one called ``image`` or ``image_path`` tells whose the row is.
    """
    import pandas as pd

    try:
        table = pd.read_csv(path)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(f"{path.name} is no readable table: {error}") from None
    table.columns = [str(column).strip().lower() for column in table.columns]
    whose = first(table, IMAGES)
    if whose and len(table):
        names = table[whose].astype(str)
        table = table[names == image.among(path, names)]
    kinds = first(table, KINDS)
    labels = table[kinds].astype(str).tolist() if kinds else ["object"] * len(table)

    def numbers(columns: Sequence[str]) -> NDArray[np.float64]:
        return table[list(columns)].to_numpy(np.float64)

    corners, sizes, points = (first_set(table, known) for known in (CORNERS, SIZES, POINTS))
    if corners:
        ends = numbers(corners)
        boxes = np.hstack([ends[:, :2], ends[:, 2:] - ends[:, :2]])
        return named(labels, points=numbers(points) if points else None, boxes=boxes)
    if sizes:
        return named(labels, boxes=numbers(sizes))
    if points:
        return named(labels, points=numbers(points))
    raise UserError(
        f"{path.name} has the columns {', '.join(table.columns)}: name those of points y and x, "
        "those of boxes xmin, ymin, xmax and ymax"
    )


def write_csv(truth: Truth, path: Path) -> None:
    """Write objects as the table that `read_csv` reads."""
    import pandas as pd

    columns: dict[str, Any] = {"y": truth.points[:, 0], "x": truth.points[:, 1]}
    columns["label"] = np.array(truth.classes)[truth.kinds]
    if truth.boxes is not None:
        y, x, h, w = truth.boxes.T
        columns |= {"ymin": y, "xmin": x, "ymax": y + h, "xmax": x + w}
    pd.DataFrame(columns).to_csv(path, index=False)


def first(table: Any, names: Sequence[str]) -> str | None:
    """Return the first of these columns that there is."""
    return next((name for name in names if name in table), None)


def first_set(table: Any, known: Sequence[tuple[str, ...]]) -> tuple[str, ...] | None:
    """Return the first of these sets of columns that there is."""
    return next((names for names in known if set(names) <= set(table)), None)


def read_mat(path: Path, image: Asked) -> Truth:
    """Read the clicks of ShanghaiTech (``image_info``) or UCF-QNRF (``annPoints``)."""
    from scipy.io import loadmat

    try:
        held = loadmat(path)
    except Exception as error:  # a damaged file raises whatever
        raise UserError(
            f"{path.name} is no MATLAB file of version 4 to 7.2, as ShanghaiTech's are: {error}"
        ) from None
    if "image_info" in held:
        clicks = held["image_info"][0, 0]["location"][0, 0]
    elif "annPoints" in held:
        clicks = held["annPoints"]
    else:
        raise UserError(f"{path.name} holds neither image_info, as ShanghaiTech's, nor annPoints")
    points = np.asarray(clicks, np.float64).reshape(-1, 2)[:, ::-1]
    return named(["person"] * len(points), points=points)


def read_json(path: Path, image: Asked) -> Truth:
    """Read GeoJSON in level-0 pixels ``(x, y)``, as QuPath writes it, or COCO."""
    try:
        held = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path.name} is no readable JSON: {error}") from None
    if isinstance(held, dict) and "annotations" in held:
        return read_coco(held, path, image)
    labels, points, boxes = [], [], []
    for label, point, box in shapes(held, path):
        labels.append(label)
        points.append(point)
        boxes.append(box)
    return named(labels, points=np.array(points), boxes=np.array(boxes))


Shape = tuple[str, tuple[float, float], tuple[float, float, float, float]]


def shapes(held: Any, path: Path) -> Iterator[Shape]:
    """Yield the class, the point and the box ``(y, x, h, w)`` of every object."""
    features = held
    if isinstance(held, dict):
        features = held["features"] if held.get("type") == "FeatureCollection" else [held]
    if not isinstance(features, list):
        raise UserError(f"{path.name} is neither GeoJSON nor COCO")
    for feature in features:
        if not isinstance(feature, dict) or feature.get("type") != "Feature":
            raise UserError(f"{path.name} is neither GeoJSON nor COCO")
        label = kind_of(feature.get("properties") or {})
        geometry = feature.get("geometry")
        if geometry is None:
            continue
        kind, where = geometry["type"], geometry["coordinates"]
        if kind in ("Point", "MultiPoint"):
            for x, y, *_ in [where] if kind == "Point" else where:
                yield label, (y, x), (y, x, 0.0, 0.0)
        elif kind in ("Polygon", "MultiPolygon"):
            rings = where if kind == "Polygon" else [ring for part in where for ring in part]
            # A part's first ring runs round it, the others round its holes.
            outer = [len(part) for part in ([where] if kind == "Polygon" else where)]
            yield label, *centroid(rings, outer)
        else:
            raise UserError(f"{path.name} holds a {kind}: only points and polygons are counted")


def kind_of(properties: dict[str, Any]) -> str:
    """Return a feature's class, as QuPath or others name it."""
    known = properties.get("classification")
    if isinstance(known, dict) and known.get("name"):
        return str(known["name"])
    return str(next((properties[key] for key in KINDS if properties.get(key)), "object"))


def centroid(
    rings: Sequence[Sequence[Sequence[float]]], counts: Sequence[int]
) -> tuple[tuple[float, float], tuple[float, float, float, float]]:
    """Return the centroid by area and the box of polygons with holes.

    Parameters
    ----------
    rings : sequence
        Of every polygon the outer ring, then its holes; ``(x, y)``.
    counts : sequence of int
        How many rings each polygon has.
    """
    area, moment = 0.0, np.zeros(2)
    starts = set(np.cumsum([0, *counts[:-1]]).tolist())
    corners = [np.asarray(ring, np.float64)[:, 1::-1] for ring in rings]
    every = np.concatenate(corners)
    # Relative to a corner: far from the origin the products would lose digits.
    origin = every[0]
    for i, ring in enumerate(corners):
        a, b = ring - origin, np.roll(ring, -1, axis=0) - origin
        cross = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
        sign = np.sign(cross.sum()) * (1 if i in starts else -1)
        area += sign * cross.sum() / 2
        moment += sign * ((a + b) * cross[:, None]).sum(axis=0) / 6
    low, high = every.min(axis=0), every.max(axis=0)
    y, x = moment / area + origin if area > 0 else every.mean(axis=0)
    (y0, x0), (h, w) = low.tolist(), (high - low).tolist()
    return (float(y), float(x)), (y0, x0, h, w)
