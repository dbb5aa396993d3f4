"""GeoJSON: patches and predictions of a run in QuPath's form."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from hrviewer.errors import RunError
from hrviewer.io.exportable import Exportable, ProgressCallback
from hrviewer.io.feature_collection import write_feature_collection
from hrviewer.io.geojson import as_geojson
from hrviewer.io.map_coordinates import (
    geojson_crs,
    georeference_of,
    locate_feature,
    not_georeferenced,
)
from hrviewer.io.run_features import FeatureSelection, provenance
from hrviewer.io.writers.base import RunWriter

__all__ = ["GeojsonSettings", "GeojsonWriter"]


class GeojsonSettings(FeatureSelection):
    """Features and their coordinates."""

    coordinates: Literal["pixels", "map"] = Field(
        "pixels",
        title="Coordinates",
        description="Pixels of level 0 for QuPath, or those of the image's map for QGIS",
    )


class GeojsonWriter(RunWriter):
    """GeoJSON writer."""

    suffixes = (".geojson",)
    description = "patches, objects, contours, points: QuPath, GIS"
    Settings = GeojsonSettings

    def write(
        self, run: Exportable, target: Path, settings: GeojsonSettings, progress: ProgressCallback
    ) -> None:
        """Write one feature per patch, contour, point and annotation, in bounded memory."""
        head: dict[str, Any] = {"type": "FeatureCollection", "hrviewer": provenance(run)}
        place = georeference_of(run) if settings.coordinates == "map" else None
        if settings.coordinates == "map":
            if place is None:
                raise RunError(str(not_georeferenced(run)))
            head["crs"] = geojson_crs(place)
        write_feature_collection(
            run,
            target,
            head,
            "features",
            lambda feature, namespace: (
                as_geojson(feature if place is None else locate_feature(feature, place), namespace),
            ),
            settings,
            progress,
        )
