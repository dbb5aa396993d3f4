"""GeoTIFF keys: the coordinate system of a page, and the affine map to it.

The keys name a registered system by its EPSG code; only of others, and of systems whose unit the
keys leave out, the definition comes from rasterio, where that is installed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from hrviewer.pyramid.georeference import Affine, Georeference

__all__ = ["read_georeference"]

PROJECTED, GEOGRAPHIC = 1, 2
PIXEL_IS_POINT = 2
USER_DEFINED = 32767
LINEAR_UNITS = {9001: 1.0, 9002: 0.3048, 9003: 1200 / 3937, 9036: 1000.0}
"""Metres by the EPSG code of a unit: metre, foot, US survey foot, kilometre."""
DEGREE = 9102


def read_georeference(page: Any) -> Georeference | None:
    """Return the place of a page of a TIFF; None without one that can be used."""
    try:
        keys = page.geotiff_tags or {}
        transform = _transform(keys)
        if transform is None or not all(map(math.isfinite, transform)):
            return None
        if _code(keys, "GTModelTypeGeoKey") == GEOGRAPHIC:
            if _code(keys, "GeogAngularUnitsGeoKey") not in (None, DEGREE):
                return None
            crs = _name(_code(keys, "GeographicTypeGeoKey"), page)
            return Georeference(crs, transform, geographic=True)
        code = _code(keys, "ProjectedCSTypeGeoKey")
        unit = _code(keys, "ProjLinearUnitsGeoKey")
        metres = keys.get("ProjLinearUnitSizeGeoKey") or LINEAR_UNITS.get(unit or 0)
        if metres is None and unit is None:
            metres = _registered_unit(code)
        return Georeference(_name(code, page), transform, metres and float(metres))
    except (TypeError, ValueError, KeyError, IndexError):  # a bad key never costs the image
        return None


def _transform(keys: Mapping[str, Any]) -> Affine | None:
    matrix = keys.get("ModelTransformation")
    scale, tie = keys.get("ModelPixelScale"), keys.get("ModelTiepoint")
    if matrix is not None:
        flat = [
            float(value) for row in matrix for value in (row if hasattr(row, "__len__") else [row])
        ]
        a, b, c, d, e, f = flat[0], flat[1], flat[3], flat[4], flat[5], flat[7]
    elif scale is not None and tie is not None and len(tie) >= 6:
        first = tie[0] if hasattr(tie[0], "__len__") else tie
        a, b, d, e = float(scale[0]), 0.0, 0.0, -float(scale[1])
        c, f = float(first[3]) - a * float(first[0]), float(first[4]) - e * float(first[1])
    else:
        return None
    if _code(keys, "GTRasterTypeGeoKey") == PIXEL_IS_POINT:
        c, f = c - (a + b) / 2, f - (d + e) / 2
    return a, b, c, d, e, f


def _code(keys: Mapping[str, Any], name: str) -> int | None:
    value = keys.get(name)
    return None if value is None else int(value)


def _name(code: int | None, page: Any) -> str:
    """Return the name of a coordinate system: its code, or its definition if rasterio reads it."""
    if code not in (None, 0, USER_DEFINED):
        return f"EPSG:{code}"
    try:
        import rasterio
    except ImportError:
        return ""
    try:
        with rasterio.open(page.parent.filehandle.path) as file:
            return "" if file.crs is None else str(file.crs.to_wkt())
    except (rasterio.errors.RasterioError, rasterio.errors.CRSError):
        return ""


def _registered_unit(code: int | None) -> float | None:
    """Return the metres of the unit of a registered system, if rasterio knows it."""
    try:
        from rasterio.crs import CRS
        from rasterio.errors import CRSError
    except ImportError:
        return None
    try:
        return None if code is None else float(CRS.from_epsg(code).linear_units_factor[1])
    except CRSError:
        return None
