"""Model bundle for crowds, found by hrviewer through its entry point."""

from __future__ import annotations

from pathlib import Path

__all__ = ["crowd"]


def crowd() -> Path:
    """Return the folder of the model bundle that counts people."""
    return Path(__file__).parent / "bundles" / "crowd"
