"""Model bundle for histology, found by hrviewer through its entry point."""

from __future__ import annotations

from pathlib import Path

__all__ = ["nuclei"]


def nuclei() -> Path:
    """Return the folder of the model bundle that counts nuclei."""
    return Path(__file__).parent / "bundles" / "nuclei"
