"""Annotations of a run, saved in its folder with author and time.

``annotations.geojson`` is replaced atomically, so that it is always complete.
"""

from __future__ import annotations

import getpass
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

from hrviewer.errors import write_error
from hrviewer.io.atomic_write import replace_file
from hrviewer.io.features import Feature
from hrviewer.io.geojson import as_geojson, read_geojson, read_json_file

__all__ = ["ANNOTATIONS_FILE", "current_user", "read_annotations", "timestamp", "write_annotations"]

ANNOTATIONS_FILE = "annotations.geojson"


def current_user() -> str:
    """Return the login name of the user."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # the user id has no name
        return "unknown"


def timestamp() -> str:
    """Return the current time, ISO 8601, UTC, in seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def read_annotations(run: Path) -> list[Feature]:
    """Return the annotations in a run folder; an empty list without any.

    Raises
    ------
    HrviewerError
        If the file is damaged.
    """
    path = run / ANNOTATIONS_FILE
    return list(read_geojson(read_json_file(path), path)) if path.is_file() else []


def write_annotations(run: Path, annotations: Iterable[Feature]) -> None:
    """Replace the annotations of a run.

    Raises
    ------
    HrviewerError
        If they cannot be written; the previous ones remain.
    """
    namespace = uuid5(NAMESPACE_URL, f"hrviewer:{run.name}")
    path = run / ANNOTATIONS_FILE
    features = [as_geojson(feature, namespace) for feature in annotations]
    text = json.dumps({"type": "FeatureCollection", "features": features}, allow_nan=False)
    try:
        replace_file(path, text.encode("utf-8"))
    except OSError as error:
        raise write_error(path, error) from error
