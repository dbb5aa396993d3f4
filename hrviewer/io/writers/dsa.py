"""Digital Slide Archive annotation: patches and predictions of a run as its elements."""

from __future__ import annotations

import json
from pathlib import Path

from hrviewer.io.dsa import as_elements
from hrviewer.io.exportable import Exportable, ProgressCallback
from hrviewer.io.run_features import (
    FeatureSelection,
    id_namespace,
    iter_features,
    planned_patches,
    provenance,
)
from hrviewer.io.writers.base import RunWriter

__all__ = ["DsaWriter"]


class DsaWriter(RunWriter):
    """Digital Slide Archive writer."""

    suffixes = (".dsa.json",)
    description = "an annotation: Digital Slide Archive"
    Settings = FeatureSelection

    def write(
        self, run: Exportable, target: Path, settings: FeatureSelection, progress: ProgressCallback
    ) -> None:
        """Write one annotation; its attributes identify the run."""
        namespace, total = id_namespace(run), planned_patches(run)
        model, strategy = run.header["model"], run.header["strategy"]
        head = {
            "name": f"hrviewer: {model}, {strategy}",
            "description": f"Patches and predictions of model {model} with strategy {strategy}",
            "attributes": {"hrviewer": provenance(run)},
        }
        with target.open("w", encoding="utf-8") as out:
            out.write(json.dumps(head)[:-1] + ', "elements": [')
            separator = "\n"
            for done, feature in enumerate(iter_features(run, settings)):
                for element in as_elements(feature, namespace):
                    out.write(separator + json.dumps(element, allow_nan=False))
                    separator = ",\n"
                progress(done, max(done, total))
            out.write("\n]}\n")
