"""GeoJSON: a run's features as QuPath reads them, written as they are found."""

from __future__ import annotations

import json
from pathlib import Path

from hrviewer.io.geojson import as_geojson
from hrviewer.io.run_features import (
    FeatureSelection,
    id_namespace,
    iter_features,
    planned_patches,
    provenance,
)
from hrviewer.io.writers import Exportable, ProgressCallback

__all__ = ["Settings", "write"]


Settings = FeatureSelection


def write(run: Exportable, target: Path, settings: Settings, progress: ProgressCallback) -> None:
    """Write one feature per patch, contour, point and annotation.

    Parameters
    ----------
    run : Exportable
        What to write.
    target : Path
        The file.
    settings : Settings
        Which features.
    progress : callable
        Told how many are written.

    Raises
    ------
    UserError
        If the run does not hold what is asked for.
    """
    names, total = id_namespace(run), planned_patches(run)
    with target.open("w", encoding="utf-8") as out:
        head = json.dumps(provenance(run))
        out.write(f'{{"type": "FeatureCollection", "hrviewer": {head}, "features": [')
        separator = "\n"
        for done, feature in enumerate(iter_features(run, settings)):
            out.write(separator + json.dumps(as_geojson(feature, names), allow_nan=False))
            separator = ",\n"
            progress(done, max(done, total))
        out.write("\n]}\n")
