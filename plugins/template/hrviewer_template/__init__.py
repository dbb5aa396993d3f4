"""An hrviewer plug-in to copy: a model bundle, its training task, a strategy, a synthetic image."""

from __future__ import annotations

from pathlib import Path

__all__ = ["bundle"]


def bundle() -> Path:
    """Return the folder of the model bundle ``dots``."""
    return Path(__file__).parent / "bundle"
