"""A region: a named part of an image, bounded by polygons."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hrviewer.errors import ParameterError
from hrviewer.geometry import Rect

if TYPE_CHECKING:
    import shapely

__all__ = ["Region"]

MAX_CROSSINGS, CROSSING_PAIRS = 200_000, 100_000
"""Of an outline with itself, and pairs of sides from which their number is estimated."""


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """A named part of an image, bounded by polygons that may have holes.

    Parameters
    ----------
    name : str
        Name, which identifies it in tables.
    shape : shapely.Polygon or shapely.MultiPolygon
        Valid polygons in level-0 pixels ``(x, y)``; see `from_polygons` for others.
    label : str
        Class, as of the annotation that it was read from.

    Examples
    --------
    >>> square = [[0, 0], [0, 10], [10, 10], [10, 0]]
    >>> hole = [[4, 4], [4, 6], [6, 6], [6, 4]]
    >>> region = Region.from_polygons([[square, hole]], "tumour")
    >>> region.area, region.bounds
    (96.0, Rect(y=0, x=0, h=10, w=10))
    """

    name: str
    shape: shapely.Polygon | shapely.MultiPolygon
    label: str = "region"

    @classmethod
    def from_polygons(
        cls, polygons: Sequence[Sequence[ArrayLike]], name: str, label: str = "region"
    ) -> Region:
        """Return the region of one or more polygons.

        Parameters
        ----------
        polygons : sequence of sequences of array, shape (n, 2)
            Parts: each an outer ring and its holes, corners ``(y, x)`` in level-0 pixels. Parts
            that overlap count once.
        name, label : str
            See the class.

        Raises
        ------
        ParameterError
            If a ring has less than three corners, a corner is no number, or there is no area.
        """
        import shapely

        parts = []
        for rings in filter(len, polygons):
            shapes = [shapely.Polygon(_corners(ring, name)) for ring in rings]
            # Not as one polygon: made valid, a hole that lies outside would become a part.
            outer, *holes = shapely.make_valid(shapes)
            parts.append(shapely.difference(outer, shapely.union_all(holes)))
        return cls(name, _polygonal(shapely.union_all(parts), name), label)

    @classmethod
    def from_rect(cls, rect: Rect, name: str = "region", label: str = "region") -> Region:
        """Return the region of a rectangle, which is not empty."""
        return cls(name, _polygonal(_box(rect), name), label)

    @classmethod
    def union(cls, regions: Sequence[Region], name: str = "regions") -> Region:
        """Return the region that one or more regions cover together."""
        import shapely

        shapes = [region.shape for region in regions]
        return cls(name, _polygonal(shapely.union_all(shapes), name))

    @property
    def area(self) -> float:
        """Area in square level-0 pixels."""
        return float(self.shape.area)

    @property
    def bounds(self) -> Rect:
        """The smallest rectangle of whole pixels that contains it."""
        x, y, x1, y1 = self.shape.bounds
        top, left = math.floor(y), math.floor(x)
        return Rect(top, left, math.ceil(y1) - top, math.ceil(x1) - left)

    def clip(self, rect: Rect) -> Region | None:
        """Return the part within a rectangle; None if there is none."""
        import shapely

        if self.bounds in rect:
            return self
        inside = shapely.intersection(self.shape, _box(rect))
        parts = _polygon_parts(inside)
        return replace(self, shape=_joined(parts)) if parts else None

    def touches(self, rect: Rect) -> bool:
        """Return whether a part of a rectangle lies inside, not only its border."""
        import shapely

        if (self.bounds & rect).empty:
            return False
        shapely.prepare(self.shape)
        box = _box(rect)
        return bool(shapely.intersects(self.shape, box) and not shapely.touches(self.shape, box))

    def contains(self, rect: Rect) -> bool:
        """Return whether a rectangle lies inside as a whole."""
        import shapely

        shapely.prepare(self.shape)
        return bool(shapely.covers(self.shape, _box(rect)))

    def intersect(self, other: Region) -> Region | None:
        """Return the part within another region, with this one's name; None if there is none."""
        import shapely

        parts = _polygon_parts(shapely.intersection(self.shape, other.shape))
        return replace(self, shape=_joined(parts)) if parts else None

    @property
    def digest(self) -> str:
        """Hash of the name, the class and the corners."""
        import shapely

        normal = shapely.to_wkb(shapely.normalize(self.shape))
        text = repr((self.name, self.label)).encode()
        return hashlib.blake2b(text + normal, digest_size=16).hexdigest()

    def outlines(self) -> list[NDArray[np.float64]]:
        """Return one open ring per part, ``(n, 2)`` in ``(y, x)``.

        A hole is joined to the outer ring by a cut without width, as where one line has to do.
        """
        import shapely

        joined = []
        for part in shapely.get_parts(self.shape):
            outer = shapely.get_coordinates(part.exterior)[:, ::-1]
            for hole in part.interiors:
                inner = shapely.get_coordinates(hole)[:, ::-1]
                away = np.hypot(*(outer[:, None] - inner[None]).transpose(2, 0, 1))
                at, start = np.unravel_index(int(away.argmin()), away.shape)
                turned = np.concatenate([inner[start:], inner[1 : start + 1]])
                outer = np.concatenate([outer[: at + 1], turned, outer[at:]])
            joined.append(outer[:-1])
        return joined

    def rings(self) -> list[NDArray[np.float64]]:
        """Return all rings, closed, ``(n, 2)`` in ``(y, x)``.

        Outer rings turn from x towards y, holes the other way.
        """
        import shapely

        oriented = shapely.orient_polygons(self.shape)
        return [
            shapely.get_coordinates(ring)[:, ::-1]
            for polygon in shapely.get_parts(oriented)
            for ring in shapely.get_rings(polygon)
        ]


def _box(rect: Rect) -> shapely.Polygon:
    """Return a rectangle as a polygon."""
    import shapely

    return shapely.box(rect.x, rect.y, rect.x1, rect.y1)


def _corners(ring: ArrayLike, name: str) -> NDArray[np.float64]:
    """Return a ring's corners as ``(x, y)``."""
    corners = np.asarray(ring, np.float64)
    if corners.ndim != 2 or corners.shape[1] != 2 or len(corners) < 3:
        raise ParameterError(f"region {name!r} has a ring without three corners: draw it again")
    if not np.isfinite(corners).all():
        raise ParameterError(f"region {name!r} has a corner that is not a number: correct it")
    if estimate_crossings(corners) > MAX_CROSSINGS:
        raise ParameterError(
            f"region {name!r} has an outline that crosses itself more than {MAX_CROSSINGS:,} "
            "times: draw it again"
        )
    return corners[:, ::-1]


def estimate_crossings(corners: NDArray[np.float64]) -> float:
    """Estimate how often a ring crosses itself, from random pairs of its sides.

    Making a ring valid takes time and memory in proportion to its crossings, which grow with the
    square of its corners.
    """
    n = len(corners)
    if n * (n - 1) // 2 <= MAX_CROSSINGS:
        return 0.0
    first, second = np.random.default_rng(0).integers(0, n, (2, CROSSING_PAIRS))
    a, b, c, d = (corners[at % n] for at in (first, first + 1, second, second + 1))

    def side(p: NDArray[np.float64], q: NDArray[np.float64], of: NDArray[np.float64]) -> Any:
        (py, px), (qy, qx), (y, x) = p.T, q.T, of.T
        return np.sign((qy - py) * (x - px) - (qx - px) * (y - py))

    with np.errstate(over="ignore", invalid="ignore"):
        cross = (side(a, b, c) * side(a, b, d) < 0) & (side(c, d, a) * side(c, d, b) < 0)
    return float(cross.mean()) * n * (n - 1) / 2


def _polygon_parts(shape: Any) -> list[Any]:
    """Return the polygons with an area among the parts of a shape."""
    import shapely

    parts = shapely.get_parts(shape)
    # make_valid and intersections may nest collections, and leave lines and points.
    flat = np.concatenate([shapely.get_parts(part) for part in parts]) if len(parts) else parts
    kind = shapely.get_type_id(flat)
    return list(flat[(kind == shapely.GeometryType.POLYGON) & (shapely.area(flat) > 0)])


def _joined(parts: list[Any]) -> Any:
    """Return polygons as one shape."""
    import shapely

    return parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)


def _polygonal(shape: Any, name: str) -> Any:
    """Return the polygons of a shape.

    Raises
    ------
    ParameterError
        If it has no area.
    """
    parts = _polygon_parts(shape)
    if not parts:
        raise ParameterError(f"region {name!r} has no area: draw an outline around one")
    return _joined(parts)
