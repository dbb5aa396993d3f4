"""The Digital Slide Archive's annotation: a run's features as its elements."""

from __future__ import annotations

import json
from pathlib import Path

from hrviewer.io.dsa import as_elements
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
    """Write one annotation; its attributes say where it comes from.

    Parameters
    ----------
    run, target, what, progress
        See `hrviewer.io.writers.geojson.write`.

    Raises
    ------
    UserError
        If the run does not hold what is asked for.
    """
    names, total = id_namespace(run), planned_patches(run)
    header = run.header
    head = {
        "name": f"hrviewer: {header['model']}, {header['strategy']}",
        "description": f"Where {header['strategy']} had {header['model']} look, and what it saw",
        "attributes": {"hrviewer": provenance(run)},
    }
    with target.open("w", encoding="utf-8") as out:
        out.write(json.dumps(head)[:-1] + ', "elements": [')
        separator = "\n"
        for done, feature in enumerate(iter_features(run, settings)):
            for element in as_elements(feature, names):
                out.write(separator + json.dumps(element, allow_nan=False))
                separator = ",\n"
            progress(done, max(done, total))
        out.write("\n]}\n")
