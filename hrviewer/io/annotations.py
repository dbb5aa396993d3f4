"""What a person drew over a run: kept in its folder, with who and when.

``annotations.geojson`` is replaced in one step, so that it is always whole.
"""

from __future__ import annotations

import getpass
import json
import os
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

from hrviewer.errors import write_error
from hrviewer.io.features import Feature
from hrviewer.io.geojson import as_geojson, read_geojson, read_json_file

__all__ = ["ANNOTATIONS_FILE", "current_user", "read_annotations", "timestamp", "write_annotations"]

ANNOTATIONS_FILE = "annotations.geojson"


def current_user() -> str:
    """Return who sits at this machine."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # nobody by that number
        return "unknown"


def timestamp() -> str:
    """Return the time, ISO 8601, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def read_annotations(run: Path) -> list[Feature]:
    """Return what was drawn over the run in a folder; nothing if nobody did.

    Raises
    ------
    UserError
        If the file is damaged.
    """
    path = run / ANNOTATIONS_FILE
    return list(read_geojson(read_json_file(path), path)) if path.is_file() else []


def write_annotations(run: Path, annotations: Iterable[Feature]) -> None:
    """Replace what was drawn over a run.

    Raises
    ------
    UserError
        If it cannot be written; what was kept before, is kept.
    """
    names = uuid5(NAMESPACE_URL, f"hrviewer:{run.name}")
    path, new = run / ANNOTATIONS_FILE, run / f".{ANNOTATIONS_FILE}.new"
    features = [as_geojson(feature, names) for feature in annotations]
    try:
        new.write_text(
            json.dumps({"type": "FeatureCollection", "features": features}, allow_nan=False),
            "utf-8",
        )
        os.replace(new, path)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise write_error(path, error) from error
