"""Networks for crowds, as packs that hrviewer finds by their entry points."""

from __future__ import annotations

from pathlib import Path

__all__ = ["crowd"]


def crowd() -> Path:
    """Return the folder of the pack that counts people."""
    return Path(__file__).parent / "packs" / "crowd"
