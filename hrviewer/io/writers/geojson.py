"""GeoJSON: a run's features as QuPath reads them, written as they are found."""

from __future__ import annotations

import json
from pathlib import Path

from hrviewer.io.geojson import as_geojson
from hrviewer.io.run_features import What, about, found, names_of, planned
from hrviewer.io.writers import Exportable, Progress

__all__ = ["Settings", "write"]


Settings = What


def write(run: Exportable, target: Path, what: Settings, progress: Progress) -> None:
    """Write one feature per patch, contour, point and annotation.

    Parameters
    ----------
    run : Exportable
        What to write.
    target : Path
        The file.
    what : Settings
        Which features.
    progress : callable
        Told how many are written.

    Raises
    ------
    UserError
        If the run does not hold what is asked for.
    """
    names, total = names_of(run), planned(run)
    with target.open("w", encoding="utf-8") as out:
        head = json.dumps(about(run))
        out.write(f'{{"type": "FeatureCollection", "hrviewer": {head}, "features": [')
        separator = "\n"
        for done, feature in enumerate(found(run, what)):
            out.write(separator + json.dumps(as_geojson(feature, names), allow_nan=False))
            separator = ",\n"
            progress(done, max(done, total))
        out.write("\n]}\n")
