"""Cache of measurements of networks: one JSON file per kind, in the cache folder.

If a file is damaged or of another version, or the folder cannot be written, the measurement is
repeated.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from hrviewer.checksum import digest, writer
from hrviewer.paths import cache_folder

__all__ = ["load_measurement", "store_measurement"]


def load_measurement(kind: str, key: str) -> Any:
    """Return a cached value, unchecked, or None if there is none."""
    return _read(_path(kind)).get(key)


def store_measurement(kind: str, key: str, value: Any) -> None:
    """Cache a value that JSON can represent."""
    path = _path(kind)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        values = {**_read(path), key: value}
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, prefix=path.name, delete=False, encoding="utf-8"
        ) as file:
            json.dump({"writer": writer(), "checksum": checksum(values), "values": values}, file)
        os.replace(file.name, path)


def _path(kind: str) -> Path:
    return cache_folder() / f"{kind}.json"


def _read(path: Path) -> dict[str, Any]:
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        values = kept["values"]
        if kept["writer"] == writer() and kept["checksum"] == checksum(values):
            return dict(values)
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        pass
    return {}


def checksum(values: object) -> str:
    """Return the checksum of values that JSON can represent."""
    return digest(json.dumps(values, sort_keys=True).encode())
