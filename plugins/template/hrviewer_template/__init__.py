"""A plug-in of hrviewer to copy: a pack, its lessons, a strategy and a scene."""

from __future__ import annotations

from pathlib import Path

__all__ = ["pack"]


def pack() -> Path:
    """Return the folder of the pack ``dots``."""
    return Path(__file__).parent / "pack"
