"""Folders for caches and runs, and unused names in them.

No other module knows where these are. ``HRVIEWER_CACHE`` moves every cache, ``HRVIEWER_DATA``
everything that is kept: runs, comparisons and heads.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from hrviewer.errors import write_error

__all__ = [
    "CLAIM_PREFIX",
    "cache_folder",
    "data_folder",
    "is_vacant",
    "models_folder",
    "runs_folder",
    "unused_path",
]

CLAIM_PREFIX = ".hrviewer-claim-"
"""Beginning of the names of the files that `claims` writes."""

MAX_STEM = 120
"""Longest file name that is derived from an image's name, in characters."""


def cache_folder() -> Path:
    """Return the folder of caches: ``HRVIEWER_CACHE``, or the user's cache folder."""
    import platformdirs

    chosen = os.environ.get("HRVIEWER_CACHE")
    return Path(chosen or platformdirs.user_cache_dir("hrviewer", appauthor=False))


def data_folder() -> Path:
    """Return the folder of runs and other results: ``HRVIEWER_DATA``, or the user's data folder."""
    import platformdirs

    chosen = os.environ.get("HRVIEWER_DATA")
    return Path(chosen or platformdirs.user_data_dir("hrviewer", appauthor=False))


def runs_folder() -> Path:
    """Return the folder in which runs are written by default."""
    return data_folder() / "runs"


def models_folder() -> Path:
    """Return the folder of the user's own model bundles, which are found by name."""
    return data_folder() / "models"


def unused_path(folder: Path, stem: str, suffix: str = "", *, claim: bool = True) -> Path:
    """Return an unused path ``STEM``, ``STEM-2``, … in a folder.

    Parameters
    ----------
    folder : Path
        Made where it does not exist, if the name is claimed.
    stem : str
        The name; characters that file systems do not allow become ``_``.
    suffix : str
        Added to the name, as ``.run.zarr``.
    claim : bool
        Create the path as an empty folder, in one atomic step, so that no other process or thread
        gets the same one. Otherwise the name is only a proposal.

    Raises
    ------
    WriteError
        If the folder cannot be written to.
    """
    for path in _candidates(folder, stem, suffix):
        if not claim:
            if not os.path.lexists(path):
                return path
            continue
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path.mkdir()
        except FileExistsError:
            if not folder.is_dir():
                raise write_error(folder, NotADirectoryError(20, "it is not a folder")) from None
            continue
        except OSError as error:
            raise write_error(path, error) from None
        return path
    raise AssertionError("names are endless")


def is_vacant(path: Path) -> bool:
    """Return whether nothing is there, or a folder that `unused_path` or a claim created."""
    if not os.path.lexists(path):
        return True
    return path.is_dir() and all(entry.name.startswith(CLAIM_PREFIX) for entry in path.iterdir())


def _candidates(folder: Path, stem: str, suffix: str) -> Iterator[Path]:
    stem = re.sub(r"[^\w.-]+", "_", stem)[:MAX_STEM] or "unnamed"
    yield folder / f"{stem}{suffix}"
    number = 2
    while True:
        yield folder / f"{stem}-{number}{suffix}"
        number += 1
