"""JSON of cards and bundles, of bounded size and depth."""

from __future__ import annotations

import json
from pathlib import Path

from hrviewer.errors import ModelError, short_message

__all__ = ["read_json"]

MAX_BYTES = 16 << 20


def read_json(path: Path) -> object:
    """Return the contents of a JSON file; raise `ModelError` if missing, large or not JSON."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES >> 20} MiB")
        found = json.loads(path.read_text("utf-8"))
        json.dumps(found, ensure_ascii=False).encode("utf-8")  # no half of a surrogate pair
        return found
    except FileNotFoundError:
        raise ModelError(f"{path} is missing: write the model card there") from None
    except (ValueError, OSError, RecursionError) as error:
        raise ModelError(
            f"{path} cannot be read as JSON ({short_message(error)}): correct it"
        ) from None
