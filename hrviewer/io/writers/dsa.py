"""The Digital Slide Archive's annotation: a run's features as its elements."""

from __future__ import annotations

import json
from pathlib import Path

from hrviewer.io.dsa import as_element
from hrviewer.io.run_features import What, about, found, names_of, planned
from hrviewer.io.writers import Exportable, Progress

__all__ = ["Settings", "write"]


Settings = What


def write(run: Exportable, target: Path, what: Settings, progress: Progress) -> None:
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
    names, total = names_of(run), planned(run)
    header = run.header
    head = {
        "name": f"hrviewer: {header['model']}, {header['strategy']}",
        "description": f"Where {header['strategy']} had {header['model']} look, and what it saw",
        "attributes": {"hrviewer": about(run)},
    }
    with target.open("w", encoding="utf-8") as out:
        out.write(json.dumps(head)[:-1] + ', "elements": [')
        separator = "\n"
        for done, feature in enumerate(found(run, what)):
            for element in as_element(feature, names):
                out.write(separator + json.dumps(element, allow_nan=False))
                separator = ",\n"
            progress(done, max(done, total))
        out.write("\n]}\n")
