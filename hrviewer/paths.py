"""Where things that can be computed again are kept."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cache_folder"]


def cache_folder() -> Path:
    """Return the folder; the environment variable ``HRVIEWER_CACHE`` names another one."""
    import platformdirs

    chosen = os.environ.get("HRVIEWER_CACHE")
    return Path(chosen or platformdirs.user_cache_dir("hrviewer", appauthor=False))
