"""Features of a georeferenced image in the coordinates of its map."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from hrviewer.errors import RunError
from hrviewer.io.exportable import Exportable
from hrviewer.io.features import Feature, Ring
from hrviewer.pyramid.georeference import Georeference

__all__ = ["geojson_crs", "georeference_of", "locate_feature", "not_georeferenced"]

LONGITUDE_LATITUDE = "urn:ogc:def:crs:OGC:1.3:CRS84"
"""Name of WGS 84 with longitude first, as GeoJSON has it."""


def georeference_of(run: Exportable) -> Georeference | None:
    """Return the place of a run's image, None without one."""
    return Georeference.from_record(run.header["image"].get("georeference"))


def not_georeferenced(run: Exportable, other: str = "geojson, in pixels") -> str | None:
    """Return why a run has no map coordinates, naming another format; None if it has them."""
    if georeference_of(run) is not None:
        return None
    return f"{run.header['image']['path']} is not georeferenced: choose {other}"


def locate_feature(feature: Feature, place: Georeference) -> Feature:
    """Return a feature with map coordinates ``(y, x)`` in place of pixels.

    Examples
    --------
    >>> place = Georeference("EPSG:32633", (0.5, 0, 1000, 0, -0.5, 2000))
    >>> locate_feature(Feature("point", "tree", point=(10, 20)), place).point
    (1995.0, 1010.0)
    """
    if feature.point is not None:
        x, y = place.locate(*feature.point)
        return replace(feature, point=(y, x))
    polygons = tuple(
        tuple(_locate_ring(ring, place) for ring in polygon) for polygon in feature.polygons
    )
    return replace(feature, polygons=polygons)


def _locate_ring(ring: Ring, place: Georeference) -> Ring:
    a, b, c, d, e, f = place.transform
    y, x = ring[:, 0], ring[:, 1]
    return np.stack([d * x + e * y + f, a * x + b * y + c], axis=1)


def geojson_crs(place: Georeference) -> dict[str, Any]:
    """Return the member ``crs`` of a GeoJSON file: that of 2008, which QGIS and GDAL read.

    Raises
    ------
    RunError
        If the coordinate system has no EPSG code.
    """
    authority, _, number = place.crs.partition(":")
    if authority != "EPSG":
        raise RunError("the image's coordinate system has no EPSG code: choose geopackage")
    name = LONGITUDE_LATITUDE if number == "4326" else f"urn:ogc:def:crs:EPSG::{number}"
    return {"type": "name", "properties": {"name": name}}
