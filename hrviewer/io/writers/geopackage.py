"""GeoPackage: patches and predictions of a run in map coordinates, for QGIS; uses pyogrio."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np

from hrviewer.io.exportable import Exportable, ProgressCallback
from hrviewer.io.features import Feature
from hrviewer.io.map_coordinates import georeference_of, locate_feature, not_georeferenced
from hrviewer.io.run_features import FeatureSelection, iter_features, planned_patches
from hrviewer.io.writers.base import RunWriter

__all__ = ["GeopackageWriter"]

BATCH = 4096
"""Features that are written at once."""

LAYERS = {
    "patch": "patches",
    "contour": "contours",
    "point": "points",
    "object": "objects",
    "annotation": "annotations",
}
"""Layer of each kind of feature."""


class GeopackageWriter(RunWriter):
    """GeoPackage writer: a layer for each kind of feature, its measurements as columns."""

    suffixes = (".gpkg",)
    description = "patches, objects, contours, points on the map: QGIS"
    Settings = FeatureSelection

    def unsupported_reason(self, run: Exportable) -> str | None:
        """Return why a run has no map coordinates."""
        try:
            import pyogrio  # noqa: F401
        except ImportError:
            return "GeoPackage needs pyogrio: pip install 'hrviewer[geo]'"
        return not_georeferenced(run)

    def write(
        self, run: Exportable, target: Path, settings: FeatureSelection, progress: ProgressCallback
    ) -> None:
        """Write one feature per patch, contour, point and annotation, in bounded memory."""
        place = georeference_of(run)
        assert place is not None
        # The format demands its own suffix.
        part, total, done = target.with_name(f"{target.name}.gpkg"), planned_patches(run), 0
        try:
            for kind, features in groupby(iter_features(run, settings), lambda one: one.kind):
                columns: list[str] = []
                for group in _batches(features):
                    located = [locate_feature(feature, place) for feature in group]
                    _append(part, LAYERS[kind], located, columns, place.crs)
                    done += len(group)
                    progress(done, max(done, total))
            part.rename(target)
        finally:
            part.unlink(missing_ok=True)


def _batches(features: Iterator[Feature]) -> Iterator[Sequence[Feature]]:
    while group := list(islice(features, BATCH)):
        yield group


def _append(
    path: Path, layer: str, features: Sequence[Feature], columns: list[str], crs: str
) -> None:
    """Append features to a layer; the first batch decides its columns of measurements."""
    import shapely
    from pyogrio import raw

    new = not columns
    if new:
        measured = dict.fromkeys(name for one in features for name in one.measurements)
        columns += ["class", "name", "number", *measured]
    rows = [(one.label, one.name, one.number) for one in features]
    values = [
        *(np.array(column, object) for column in list(zip(*rows, strict=True))[:2]),
        np.array([row[2] for row in rows], np.int64),
        *(
            np.array([one.measurements.get(name, np.nan) for one in features], np.float64)
            for name in columns[3:]
        ),
    ]
    points = {feature.point is not None for feature in features}
    kind = "Unknown" if len(points) > 1 else "Point" if points == {True} else "MultiPolygon"
    raw.write(
        path,
        shapely.to_wkb(np.array([_geometry(one) for one in features], object)),
        values,
        columns,
        layer=layer,
        driver="GPKG",
        geometry_type=kind,
        crs=crs or None,
        append=path.exists() and not new,
    )


def _geometry(feature: Feature) -> Any:
    """Return a feature as shapely's point or polygons, in ``(x, y)``."""
    import shapely

    if feature.point is not None:
        return shapely.Point(feature.point[1], feature.point[0])
    return shapely.MultiPolygon(
        [(part[0][:, ::-1], [hole[:, ::-1] for hole in part[1:]]) for part in feature.polygons]
    )
