"""Place of an image on Earth: its coordinate system, and the affine map from pixels to it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

__all__ = ["Affine", "Georeference"]

Affine = tuple[float, float, float, float, float, float]
"""``(a, b, c, d, e, f)``: x = a · column + b · row + c, y = d · column + e · row + f."""

SEMI_MAJOR_AXIS, ECCENTRICITY_SQUARED = 6_378_137.0, 0.00669437999014
"""Of the ellipsoid WGS 84, metres; others differ by less than 0.1 %."""

WEB_MERCATOR = {"EPSG:3857", "EPSG:3785", "EPSG:900913"}
"""Systems whose metres grow with the latitude."""


@dataclass(frozen=True)
class Georeference:
    """Place of an image on Earth.

    Attributes
    ----------
    crs : str
        Coordinate system, as ``EPSG:32633``; WKT where it has no code, and empty if not known.
    transform : tuple of float
        See `Affine`; whole numbers of columns and rows are the corners of pixels.
    metres : float, optional
        Metres per unit of the coordinates; None for degrees, and where it is not known.
    geographic : bool
        Whether the coordinates are longitude and latitude, in degrees.
    """

    crs: str
    transform: Affine
    metres: float | None = None
    geographic: bool = False

    @classmethod
    def from_record(cls, record: Mapping[str, Any] | None) -> Self | None:
        """Return the georeference that a run recorded, None without one."""
        if record is None:
            return None
        return cls(**{**record, "transform": tuple(record["transform"])})

    def to_record(self) -> dict[str, Any]:
        """Return the fields as JSON."""
        return {**asdict(self), "transform": list(self.transform)}

    def locate(self, y: float, x: float) -> tuple[float, float]:
        """Return the coordinates ``(x, y)`` of a position in level-0 pixels.

        Examples
        --------
        >>> Georeference("EPSG:32633", (0.2, 0, 500_000, 0, -0.2, 5_000_000)).locate(10, 20)
        (500004.0, 4999998.0)
        """
        a, b, c, d, e, f = self.transform
        return a * x + b * y + c, d * x + e * y + f

    def describe(self, y: float, x: float) -> str:
        """Return the coordinates of a position as text, to a tenth of a pixel."""
        if self.geographic:
            longitude, latitude = self.locate(y, x)
            north, east = "NS"[latitude < 0], "EW"[longitude < 0]
            return f"{abs(latitude):.6f}° {north}, {abs(longitude):.6f}° {east}"
        step = math.hypot(self.transform[0], self.transform[3])
        digits = max(0, min(6, 1 - math.floor(math.log10(step)))) if step else 0
        east_, north_ = self.locate(y, x)
        name = self.crs if self.crs.startswith("EPSG:") else ""
        return f"{east_:.{digits}f} E, {north_:.{digits}f} N {name}".rstrip()

    def pixel_size(self, shape: tuple[int, int]) -> tuple[float, float] | None:
        """Return micrometres per pixel ``(y, x)`` on the ground, at the image's centre.

        Parameters
        ----------
        shape : tuple of int
            Height and width in pixels.
        """
        a, b, _, d, e, _ = self.transform
        _, y = self.locate(shape[0] / 2, shape[1] / 2)
        if self.geographic:
            along_x, along_y = metres_per_degree(y)
        elif self.metres is not None:
            along_x = along_y = self.metres
            if self.crs in WEB_MERCATOR:
                along_x = along_y = 1 / math.cosh(y / SEMI_MAJOR_AXIS)
        else:
            return None
        sides = math.hypot(b * along_x, e * along_y), math.hypot(a * along_x, d * along_y)
        if not all(0 < side < math.inf for side in sides):
            return None
        return sides[0] * 1e6, sides[1] * 1e6


def metres_per_degree(latitude: float) -> tuple[float, float]:
    """Return the metres of a degree of longitude and of latitude, on the ellipsoid WGS 84.

    Examples
    --------
    >>> [round(metres) for metres in metres_per_degree(0)], round(metres_per_degree(60)[0])
    ([111319, 110574], 55800)
    """
    radians = math.radians(max(-90.0, min(90.0, latitude)))
    root = 1 - ECCENTRICITY_SQUARED * math.sin(radians) ** 2
    along_x = SEMI_MAJOR_AXIS / math.sqrt(root) * math.cos(radians)
    along_y = SEMI_MAJOR_AXIS * (1 - ECCENTRICITY_SQUARED) / root**1.5
    return math.radians(along_x), math.radians(along_y)
