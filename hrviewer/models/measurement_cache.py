"""Cache of measurements of networks: one JSON file per kind, in the cache folder; and of graphs.

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

from hrviewer.checksum import UnfitCopyError, digest, verify, with_checksum, writer
from hrviewer.paths import cache_folder

__all__ = ["load_data", "load_measurement", "store_data", "store_measurement"]

MAX_FILES = 64
"""Files of data of one kind that are kept; the oldest are deleted first."""
MAX_BYTES = 1 << 28
"""Size of the largest data that are kept."""


def load_measurement(kind: str, key: str) -> Any:
    """Return a cached value, unchecked, or None if there is none."""
    return _read(_path(kind)).get(key)


def store_measurement(kind: str, key: str, value: Any) -> None:
    """Cache a value that JSON can represent."""
    path = _path(kind)
    values = {**_read(path), key: value}
    kept = {"writer": writer(), "checksum": checksum(values), "values": values}
    _replace(path, json.dumps(kept).encode())


def load_data(kind: str, key: str) -> bytes | None:
    """Return cached bytes, or None if there are none, or damaged ones."""
    try:
        return verify((cache_folder() / kind / f"{key}.data").read_bytes())
    except (OSError, UnfitCopyError):
        return None


def store_data(kind: str, key: str, data: bytes) -> None:
    """Cache bytes, and delete the oldest of this kind beyond the limit."""
    folder = cache_folder() / kind
    if len(data) > MAX_BYTES:
        return
    _replace(folder / f"{key}.data", with_checksum(data))
    with contextlib.suppress(OSError):
        files = sorted(folder.glob("*.data"), key=lambda file: file.stat().st_mtime_ns)
        for file in files[:-MAX_FILES]:
            file.unlink()


def _replace(path: Path, data: bytes) -> None:
    """Write a file in one step; nothing if the folder cannot be written."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, delete=False) as file:
            file.write(data)
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
