"""GeoJSON: patches and predictions of a run in QuPath's form."""

from __future__ import annotations

from pathlib import Path

from hrviewer.io.exportable import Exportable, ProgressCallback
from hrviewer.io.feature_collection import write_feature_collection
from hrviewer.io.geojson import as_geojson
from hrviewer.io.run_features import FeatureSelection, provenance
from hrviewer.io.writers.base import RunWriter

__all__ = ["GeojsonWriter"]


class GeojsonWriter(RunWriter):
    """GeoJSON writer."""

    suffixes = (".geojson",)
    description = "patches, contours, points: QuPath, GIS"
    Settings = FeatureSelection

    def write(
        self, run: Exportable, target: Path, settings: FeatureSelection, progress: ProgressCallback
    ) -> None:
        """Write one feature per patch, contour, point and annotation, in bounded memory."""
        write_feature_collection(
            run,
            target,
            {"type": "FeatureCollection", "hrviewer": provenance(run)},
            "features",
            lambda feature, namespace: (as_geojson(feature, namespace),),
            settings,
            progress,
        )
