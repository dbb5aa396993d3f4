"""GeoJSON: patches and predictions of a run in QuPath's form."""

from __future__ import annotations

import json
from pathlib import Path

from hrviewer.io.exportable import Exportable, ProgressCallback
from hrviewer.io.geojson import as_geojson
from hrviewer.io.run_features import (
    FeatureSelection,
    id_namespace,
    iter_features,
    planned_patches,
    provenance,
)
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
        namespace, total = id_namespace(run), planned_patches(run)
        with target.open("w", encoding="utf-8") as out:
            head = json.dumps(provenance(run))
            out.write(f'{{"type": "FeatureCollection", "hrviewer": {head}, "features": [')
            separator = "\n"
            for done, feature in enumerate(iter_features(run, settings)):
                out.write(separator + json.dumps(as_geojson(feature, namespace), allow_nan=False))
                separator = ",\n"
                progress(done, max(done, total))
            out.write("\n]}\n")
