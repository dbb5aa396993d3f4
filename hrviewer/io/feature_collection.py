"""JSON files of a run's features, written one feature after another in bounded memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

from hrviewer.io.exportable import Exportable, ProgressCallback
from hrviewer.io.features import Feature
from hrviewer.io.run_features import (
    FeatureSelection,
    id_namespace,
    iter_features,
    planned_patches,
)

__all__ = ["write_feature_collection"]


def write_feature_collection(
    run: Exportable,
    target: Path,
    head: Mapping[str, Any],
    key: str,
    convert: Callable[[Feature, UUID], Iterable[Mapping[str, Any]]],
    settings: FeatureSelection,
    progress: ProgressCallback,
) -> None:
    """Write an object with the members of `head` and, last, the list of converted features.

    Parameters
    ----------
    run : Exportable
        The run.
    target : Path
        The file to write.
    head : mapping
        Members of the JSON object before the list.
    key : str
        Name of the list.
    convert : callable
        Returns the elements of the list for a feature, given the namespace of the run's ids.
    settings : FeatureSelection
        Which features.
    progress : callable
        Called with the features written and those expected.
    """
    namespace, total = id_namespace(run), planned_patches(run)
    with target.open("w", encoding="utf-8") as out:
        out.write(f"{json.dumps(head)[:-1]}, {json.dumps(key)}: [")
        separator = "\n"
        for done, feature in enumerate(iter_features(run, settings)):
            for element in convert(feature, namespace):
                out.write(separator + json.dumps(element, allow_nan=False))
                separator = ",\n"
            progress(done, max(done, total))
        out.write("\n]}\n")
