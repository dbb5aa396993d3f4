"""GeoJSON in QuPath's form, in level-0 pixels ``(x, y)``."""

from __future__ import annotations

import colorsys
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import numpy as np

from hrviewer.errors import GroundTruthError, short_message
from hrviewer.io.features import Feature, Ring, signed_area

__all__ = [
    "CLASS_KEYS",
    "ROLE_COLORS",
    "as_geojson",
    "class_color",
    "class_colors",
    "class_label",
    "read_geojson",
    "read_json_file",
]

ROLE_COLORS = {
    "main": (253, 231, 37),
    "scanner": (122, 209, 81),
    "scout": (34, 168, 132),
    "head": (42, 120, 142),
    "encoder": (65, 68, 135),
    "transformer": (68, 1, 84),
}
"""Colors of model roles, from viridis."""

OKABE_ITO = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (213, 94, 0), (204, 121, 167))
"""Okabe and Ito's colors for classes, which color-blind people can distinguish."""

MAP_COLORS = ((86, 180, 233), (230, 159, 0), (0, 158, 115), (204, 121, 167), (213, 94, 0),
              (240, 228, 66), (0, 114, 178), (153, 153, 153))  # fmt: skip
"""The same and the rest of theirs, in the order of a map's classes."""

QUPATH_TYPES = {
    "patch": "tile",
    "point": "detection",
    "contour": "annotation",
    "object": "detection",
    "annotation": "annotation",
}
"""QuPath's object type of each kind of feature."""

CLASS_KEYS = ("label", "class", "category", "name")
"""Properties that may hold a class name, besides QuPath's ``classification``."""


NOT_ANNOTATIONS = "neither GeoJSON, COCO nor an annotation of the Digital Slide Archive"


def class_colors(labels: Sequence[str]) -> list[tuple[int, int, int]]:
    """Return a colour for each class of a map, by their order: neighbours are far apart.

    Examples
    --------
    >>> len(set(class_colors([f"class {i}" for i in range(40)])))
    40
    """
    return [MAP_COLORS[i] if i < len(MAP_COLORS) else hue_color(i) for i in range(len(labels))]


def hue_color(i: int) -> tuple[int, int, int]:
    """Return the i-th of colours whose hues are the golden angle apart, in three lightnesses."""
    parts = colorsys.hls_to_rgb(i * 0.618034 % 1, (0.35, 0.5, 0.65)[i % 3], 0.6)
    r, g, b = (round(255 * part) for part in parts)
    return r, g, b


def class_color(label: str) -> tuple[int, int, int]:
    """Return the color of a class, the same in every file."""
    return ROLE_COLORS.get(label) or OKABE_ITO[sum(map(ord, label)) % len(OKABE_ITO)]


def as_geojson(feature: Feature, namespace: UUID) -> dict[str, Any]:
    """Convert a feature to GeoJSON; its identifier is derived from `namespace`."""
    number = feature.number if feature.kind == "patch" else f"{feature.kind} {feature.number}"
    return {
        "type": "Feature",
        "id": str(uuid5(namespace, str(number))),
        "geometry": as_geometry(feature),
        "properties": {
            "objectType": QUPATH_TYPES[feature.kind],
            "name": feature.name,
            "classification": {"name": feature.label, "color": list(class_color(feature.label))},
            "measurements": dict(feature.measurements),
            "metadata": dict(feature.metadata),
        },
    }


def as_geometry(feature: Feature) -> dict[str, Any]:
    """Convert the point or polygons of a feature to a GeoJSON geometry."""
    if feature.point is not None:
        y, x = feature.point
        return {"type": "Point", "coordinates": [x, y]}
    parts = [
        [close_ring(ring, ccw=not i) for i, ring in enumerate(polygon)]
        for polygon in feature.polygons
    ]
    if len(parts) == 1:
        return {"type": "Polygon", "coordinates": parts[0]}
    return {"type": "MultiPolygon", "coordinates": parts}


def close_ring(ring: Ring, *, ccw: bool) -> list[list[float]]:
    """Repeat the first corner at the end of a ring, in the direction that RFC 7946 requires."""
    oriented = ring if (signed_area(ring) > 0) == ccw else ring[::-1]
    corners: list[list[float]] = oriented[:, ::-1].tolist()
    rounded = [[int(v) if v.is_integer() else v for v in corner] for corner in corners]
    return [*rounded, rounded[0]]


def read_json_file(path: Path) -> Any:
    """Parse a JSON file.

    Raises
    ------
    HrviewerError
        If it is not valid JSON.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise GroundTruthError(f"{path.name} is not valid JSON: {short_message(error)}") from None


def read_geojson(data: Any, path: Path) -> Iterator[Feature]:
    """Yield the features of parsed GeoJSON; a MultiPoint becomes one feature per point.

    Raises
    ------
    HrviewerError
        If it is not GeoJSON, or contains other geometries than points and polygons.
    """
    features = data
    if isinstance(data, dict):
        features = data.get("features") if data.get("type") == "FeatureCollection" else [data]
    if not isinstance(features, list):
        raise GroundTruthError(f"{path.name} is {NOT_ANNOTATIONS}")
    for number, feature in enumerate(features):
        if not isinstance(feature, dict) or feature.get("type") != "Feature":
            raise GroundTruthError(f"{path.name} is {NOT_ANNOTATIONS}")
        try:
            yield from parse_feature(feature, number)
        except GroundTruthError as error:
            raise GroundTruthError(f"{path.name} {error}") from None
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError):
            raise GroundTruthError(
                f"{path.name}: feature {number + 1} has no valid geometry or properties: correct "
                "or remove it"
            ) from None


def parse_feature(feature: dict[str, Any], number: int) -> Iterator[Feature]:
    """Yield the features of one of GeoJSON; none without a geometry."""
    properties = feature.get("properties") or {}
    place = feature.get("geometry")
    if place is None:
        return
    common: dict[str, Any] = {
        "label": class_label(properties),
        "name": str(properties.get("name") or ""),
        "number": number,
        "measurements": parse_measurements(properties.get("measurements")),
        "metadata": parse_metadata(properties.get("metadata")),
    }
    kind, corners = place["type"], place["coordinates"]
    if kind in ("Point", "MultiPoint"):
        for x, y, *_ in [corners] if kind == "Point" else corners:
            yield Feature("annotation", point=(finite(y), finite(x)), **common)
    elif kind in ("Polygon", "MultiPolygon"):
        parts = [corners] if kind == "Polygon" else corners
        polygons = tuple(tuple(map(open_ring, part)) for part in parts)
        yield Feature("annotation", polygons=polygons, **common)
    else:
        raise GroundTruthError(f"contains a {kind}: only points and polygons are supported")


def open_ring(ring: Any) -> Ring:
    """Convert a closed ring to ``(y, x)`` without the repeated corner."""
    corners = np.asarray(ring, np.float64)[:, 1::-1]
    if not np.isfinite(corners).all():
        raise ValueError("a coordinate is not finite")
    return corners[:-1] if len(corners) > 1 and (corners[0] == corners[-1]).all() else corners


def finite(value: Any) -> float:
    """Return a finite number.

    Raises
    ------
    ValueError, TypeError, OverflowError
        If it is none.
    """
    number = float(value)
    if not math.isfinite(number):
        raise ValueError("a number is not finite")
    return number


def class_label(properties: Mapping[str, Any]) -> str:
    """Return a feature's class from QuPath's classification or other common properties."""
    known = properties.get("classification")
    if isinstance(known, dict) and known.get("name"):
        return str(known["name"])
    return str(next((properties[key] for key in CLASS_KEYS if properties.get(key)), "object"))


def parse_measurements(data: Any) -> dict[str, float]:
    """Return numeric measurements; older QuPath versions list names and values."""
    if isinstance(data, list):
        data = {entry.get("name"): entry.get("value") for entry in data if isinstance(entry, dict)}
    if not isinstance(data, dict):
        return {}
    numbers = ((str(name), float(v)) for name, v in data.items() if isinstance(v, int | float))
    return {name: v for name, v in numbers if math.isfinite(v)}  # QuPath writes NaN


def parse_metadata(data: Any) -> dict[str, str]:
    """Return metadata as text."""
    return {str(k): str(v) for k, v in data.items()} if isinstance(data, dict) else {}
