"""Cache of measurements of networks: one JSON file per kind, in the cache folder.

If a file is damaged or the folder cannot be written, the measurement is simply repeated.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

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
            json.dump(values, file, indent=1)
        os.replace(file.name, path)


def _path(kind: str) -> Path:
    return cache_folder() / f"{kind}.json"


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
