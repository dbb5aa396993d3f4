"""Vector files of maps, as shapefiles and GeoPackages, as features in pixels of an image.

pyogrio reads them; coordinates in another system than the image's are projected by rasterio.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.errors import GroundTruthError
from hrviewer.io.features import Feature
from hrviewer.pyramid.georeference import Georeference

__all__ = ["MAP_SUFFIXES", "read_map_features"]

MAP_SUFFIXES = (".gpkg", ".shp", ".fgb")

NAMES, CLASSES = ("name", "id", "label"), ("class", "label", "type", "classification")
"""Columns that name a feature, and that hold its class, in order of preference."""


def read_map_features(path: Path, place: Georeference | None) -> Iterator[Feature]:
    """Yield the polygons of a vector file.

    Raises
    ------
    GroundTruthError
        If the image has no place on a map, the file none, or they cannot be read.
    """
    import shapely

    try:
        from pyogrio import list_layers, raw
    except ImportError:
        raise GroundTruthError(f"{path.name} needs pyogrio: pip install 'hrviewer[geo]'") from None
    if place is None:
        raise GroundTruthError(
            f"{path.name} is in map coordinates, and the image has none: give outlines in pixels"
        )
    number = 0
    for layer, kind in list_layers(path):
        if kind is not None and "Polygon" not in kind and kind != "Unknown":
            continue
        meta, _, geometry, columns = raw.read(path, layer=layer)
        shapes = shapely.from_wkb(geometry)
        fields = {str(n).lower(): column for n, column in zip(meta["fields"], columns, strict=True)}
        to_pixels = pixels_from(place, meta["crs"], path)
        for i, shape in enumerate(shapes):
            parts = [] if shape is None else [
                part for part in shapely.get_parts(shape)
                if shapely.get_type_id(part) == shapely.GeometryType.POLYGON
            ]  # fmt: skip
            if not parts:
                continue
            polygons = tuple(
                tuple(
                    to_pixels(shapely.get_coordinates(ring)[:-1])
                    for ring in shapely.get_rings(part)
                )
                for part in parts
            )
            label = first_text(fields, CLASSES, i) or layer
            name = first_text(fields, NAMES, i)
            yield Feature("annotation", label, polygons, name=name, number=number)
            number += 1


def pixels_from(place: Georeference, crs: str | None, path: Path) -> Any:
    """Return the function from coordinates ``(x, y)`` of a system to pixels ``(y, x)``."""
    a, b, c, d, e, f = place.transform
    inverse = np.linalg.inv(np.array([[a, b], [d, e]]))

    def to_pixels(points: NDArray[np.float64]) -> NDArray[np.float64]:
        if crs and place.crs and crs != place.crs:
            points = project(points, crs, place.crs, path)
        return np.asarray(((points - (c, f)) @ inverse.T)[:, ::-1])

    return to_pixels


def project(
    points: NDArray[np.float64], source: str, target: str, path: Path
) -> NDArray[np.float64]:
    """Return points in another coordinate system."""
    try:
        from rasterio.errors import CRSError
        from rasterio.warp import transform
    except ImportError:
        raise GroundTruthError(
            f"{path.name} has another coordinate system than the image, which needs rasterio: pip "
            "install 'hrviewer[geo]'"
        ) from None
    try:
        x, y = transform(source, target, *points.T)[:2]
    except CRSError as error:
        raise GroundTruthError(f"{path.name} cannot be projected: {error}") from None
    return np.stack([x, y], axis=1)


def first_text(fields: dict[str, Any], names: tuple[str, ...], row: int) -> str:
    """Return the first of some columns that has a text in a row."""
    found = (fields[name][row] for name in names if name in fields)
    return next((str(value) for value in found if value is not None and str(value).strip()), "")
