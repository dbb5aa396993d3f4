"""Digital Slide Archive annotation: patches and predictions of a run as its elements."""

from __future__ import annotations

from pathlib import Path

from hrviewer.io.dsa import as_elements
from hrviewer.io.exportable import Exportable, ProgressCallback
from hrviewer.io.feature_collection import write_feature_collection
from hrviewer.io.run_features import FeatureSelection, provenance
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
        model, strategy = run.header["model"], run.header["strategy"]
        head = {
            "name": f"hrviewer: {model}, {strategy}",
            "description": f"Patches and predictions of model {model} with strategy {strategy}",
            "attributes": {"hrviewer": provenance(run)},
        }
        write_feature_collection(run, target, head, "elements", as_elements, settings, progress)
