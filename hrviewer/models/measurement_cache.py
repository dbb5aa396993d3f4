"""What was measured of networks once, kept in the cache folder as one JSON file of each kind.

A file that is damaged, or a folder that cannot be written, is no obstacle: it is measured again.
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
    """Return what was kept, whatever it is now; None if nothing was."""
    return _read(_path(kind)).get(key)


def store_measurement(kind: str, key: str, value: Any) -> None:
    """Keep a value that JSON can write."""
    path = _path(kind)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = {**_read(path), key: value}
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, prefix=path.name, delete=False, encoding="utf-8"
        ) as file:
            json.dump(kept, file, indent=1)
        os.replace(file.name, path)


def _path(kind: str) -> Path:
    return cache_folder() / f"{kind}.json"


def _read(path: Path) -> dict[str, Any]:
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}
