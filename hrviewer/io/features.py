"""Features on an image: patches, contours, objects and annotations as points or polygons.

All annotation formats are written from and read into these. Coordinates are level-0 pixels
``(y, x)``; pixel centres lie at halves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hrviewer.escaping import printable

__all__ = [
    "Feature",
    "Kind",
    "Polygon",
    "Ring",
    "area_of",
    "bounding_box",
    "centroid",
    "rectangle",
    "signed_area",
]

Kind = Literal["patch", "contour", "point", "object", "annotation"]

Ring = NDArray[np.float64]
"""Corners, ``(n, 2)``; the first is not repeated."""

Polygon = tuple[Ring, ...]
"""Outer ring, then holes."""


@dataclass(frozen=True, slots=True, eq=False)
class Feature:
    """Polygons or a single point on an image.

    Parameters
    ----------
    kind : {"patch", "contour", "point", "object", "annotation"}
        Origin: a patch on which inference ran, the predictions, a peak of them, a detected object,
        a user.
    label : str
        Class.
    polygons : tuple of Polygon
        Parts; empty for a point.
    point : tuple of float, optional
        Position ``(y, x)`` of a feature without outline.
    name : str
        Display name.
    number : int
        Unique within its kind, and the same in every export of a run.
    measurements : mapping
        Numeric properties.
    metadata : mapping
        Text properties: a patch's status, an annotation's author and time.
    """

    kind: Kind
    label: str
    polygons: tuple[Polygon, ...] = ()
    point: tuple[float, float] | None = None
    name: str = ""
    number: int = 0
    measurements: Mapping[str, float] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Escape control characters, which files may have in their names."""
        for field_name in ("label", "name"):
            text = getattr(self, field_name)
            if not text.isprintable():
                object.__setattr__(self, field_name, printable(text))

    @property
    def center(self) -> tuple[float, float]:
        """The point, or the centroid of the polygons."""
        return centroid(self.polygons) if self.point is None else self.point

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Bounding box ``(y, x, h, w)``; empty for a point."""
        return (*self.point, 0.0, 0.0) if self.point is not None else bounding_box(self.polygons)


def rectangle(y: float, x: float, h: float, w: float) -> Polygon:
    """Return a rectangle's corners, anticlockwise in ``(x, y)`` as RFC 7946 requires."""
    corners = [[y, x], [y, x + w], [y + h, x + w], [y + h, x]]
    return (np.array(corners, np.float64),)


def signed_area(ring: Ring) -> float:
    """Return the area by the shoelace formula: positive for turns from x towards y."""
    # Relative to a corner, since products far from the origin lose digits.
    y, x = (ring - ring[0]).T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def area_of(polygons: Sequence[Polygon]) -> float:
    """Return the area of polygons without holes, in square pixels."""
    return sum(
        abs(signed_area(part[0])) - sum(abs(signed_area(hole)) for hole in part[1:])
        for part in polygons
    )


def bounding_box(polygons: Sequence[Polygon]) -> tuple[float, float, float, float]:
    """Return the bounding box ``(y, x, h, w)`` of polygons."""
    corners = np.concatenate([part[0] for part in polygons])
    low, high = corners.min(axis=0), corners.max(axis=0)
    (y, x), (h, w) = low.tolist(), (high - low).tolist()
    return y, x, h, w


def centroid(polygons: Sequence[Polygon]) -> tuple[float, float]:
    """Return the centroid of polygons with holes; the mean of the corners if they have no area.

    Returns
    -------
    tuple of float
        ``(y, x)``.
    """
    area, moment = 0.0, np.zeros(2)
    origin = polygons[0][0][0]
    for part in polygons:
        for i, ring in enumerate(part):
            a, b = ring - origin, np.roll(ring, -1, axis=0) - origin
            cross = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
            sign = np.sign(cross.sum()) * (-1 if i else 1)
            area += sign * cross.sum() / 2
            moment += sign * ((a + b) * cross[:, None]).sum(axis=0) / 6
    if area > 0:
        y, x = moment / area + origin
    else:
        y, x = np.concatenate([ring for part in polygons for ring in part]).mean(axis=0)
    return float(y), float(x)
