"""Networks for histology, as packs that hrviewer finds by their entry points."""

from __future__ import annotations

from pathlib import Path

__all__ = ["nuclei"]


def nuclei() -> Path:
    """Return the folder of the pack that counts nuclei."""
    return Path(__file__).parent / "packs" / "nuclei"
