"""Annotations of the Digital Slide Archive: large_image's JSON, level-0 pixels ``(x, y, z)``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import numpy as np

from hrviewer.errors import GroundTruthError
from hrviewer.io.features import Feature, Ring, rectangle
from hrviewer.io.geojson import class_color

__all__ = ["as_elements", "is_dsa", "read_dsa"]

ELLIPSE_CORNERS = 64
"""Corners of the polygon that replaces an ellipse."""


def as_elements(feature: Feature, namespace: UUID) -> Iterator[dict[str, Any]]:
    """Yield the elements of a feature, one for each of its parts.

    Measurements go into ``user``, which the archive stores unchanged.
    """
    r, g, b = class_color(feature.label)
    common: dict[str, Any] = {
        "label": {"value": feature.name or feature.label},
        "group": feature.label,
        "lineColor": f"rgb({r},{g},{b})",
        "user": {"kind": feature.kind, **feature.measurements, **feature.metadata},
    }
    key = f"{feature.kind} {feature.number}"
    if feature.point is not None:
        y, x = feature.point
        yield {"id": dsa_id(namespace, key), "type": "point", "center": [x, y, 0]} | common
        return
    for i, part in enumerate(feature.polygons):
        outer, *holes = [[[x, y, 0] for y, x in ring.tolist()] for ring in part]
        shape: dict[str, Any] = {"type": "polyline", "closed": True, "points": outer}
        if holes:
            shape["holes"] = holes
        yield {"id": dsa_id(namespace, f"{key} {i}")} | shape | common


def dsa_id(namespace: UUID, key: str) -> str:
    """Return an identifier in the archive's form: 24 hexadecimal digits."""
    return uuid5(namespace, key).hex[:24]


def is_dsa(data: Any) -> bool:
    """Return whether parsed JSON is an annotation or a list of annotations."""
    first = data[0] if isinstance(data, list) and data else data
    inner = first.get("annotation", first) if isinstance(first, dict) else None
    return isinstance(inner, dict) and isinstance(inner.get("elements"), list)


def read_dsa(data: Any, path: Path) -> Iterator[Feature]:
    """Yield the features of one or more annotations; arrows, images and grids are skipped.

    Raises
    ------
    HrviewerError
        If an element has no valid geometry.
    """
    number = 0
    for document in data if isinstance(data, list) else [data]:
        inner = document.get("annotation", document)
        for element in inner["elements"]:
            try:
                point, ring, holes = element_geometry(element)
                for numbers in (point, ring, *holes):
                    if numbers is not None and not np.isfinite(numbers).all():
                        raise ValueError("a coordinate is not finite")
            except (KeyError, TypeError, ValueError, IndexError, OverflowError):
                raise GroundTruthError(
                    f"{path.name}: element {number + 1} ({as_dict(element).get('type')}) has no "
                    "valid geometry: correct or remove it"
                ) from None
            if point is None and ring is None:
                continue
            about, user = as_dict(element.get("label")), as_dict(element.get("user"))
            name = about.get("value")
            label = element.get("group") or name or inner.get("name") or "object"
            yield Feature(
                "annotation",
                str(label),
                () if ring is None else ((ring, *holes),),
                point,
                str(name or ""),
                number,
                {k: float(v) for k, v in user.items() if isinstance(v, int | float)},
                {k: v for k, v in user.items() if isinstance(v, str) and k != "kind"},
            )
            number += 1


def as_dict(value: Any) -> dict[str, Any]:
    """Return a JSON object; an empty one for any other value."""
    return value if isinstance(value, dict) else {}


ElementGeometry = tuple[tuple[float, float] | None, Ring | None, tuple[Ring, ...]]


def element_geometry(element: dict[str, Any]) -> ElementGeometry:
    """Return an element's point, or its outline and holes; None for other elements."""
    kind = element["type"]
    if kind == "point":
        x, y = element["center"][:2]
        return (float(y), float(x)), None, ()
    if kind == "polyline" and element.get("closed"):
        return None, as_ring(element["points"]), tuple(map(as_ring, element.get("holes", ())))
    if kind in ("rectangle", "ellipse", "circle"):
        return None, element_outline(element, kind), ()
    return None, None, ()


def as_ring(points: Any) -> Ring:
    """Convert points ``(x, y, z)`` to a ring ``(y, x)``."""
    return np.asarray(points, np.float64)[:, 1::-1]


def element_outline(element: dict[str, Any], kind: str) -> Ring:
    """Return the outline of a rectangle, an ellipse or a circle, rotated about its centre."""
    x, y = element["center"][:2]
    if kind == "circle":
        h = w = 2 * float(element["radius"])
    else:
        h, w = float(element["height"]), float(element["width"])
    if kind == "rectangle":
        shape = rectangle(-h / 2, -w / 2, h, w)[0]
    else:
        angle = np.linspace(0, 2 * np.pi, ELLIPSE_CORNERS, endpoint=False)
        shape = np.column_stack([np.sin(angle) * h / 2, np.cos(angle) * w / 2])
    rotation = float(element.get("rotation") or 0)  # radians, from x towards y
    c, s = np.cos(rotation), np.sin(rotation)
    outline: Ring = shape @ np.array([[c, -s], [s, c]]) + (y, x)
    return outline
