"""What runs that were killed, or failed early, leave in their folders."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hrviewer.claims import claim_folder, clear_folder
from hrviewer.errors import HrviewerError, WriteError
from hrviewer.paths import is_vacant

__all__ = ["has_results", "is_unfinished", "keeping_results", "remove_leftovers"]

log = logging.getLogger(__name__)


def has_results(path: Path) -> bool:
    """Return whether a run folder has results of a run that is not complete."""
    return any((path / "journal").glob("*.results"))


@contextmanager
def keeping_results(path: Path, *, is_new: bool) -> Iterator[None]:
    """Clear the folder of a new run that is refused, or fails before its first result.

    It is also cleared before: a run may have been killed before its header was written.
    """
    if is_new:
        clear_folder(path)
    try:
        yield
    except HrviewerError:
        if is_new and not has_results(path):
            clear_folder(path)
        raise


def remove_leftovers(path: Path) -> None:
    """Remove what a process left in a complete run that was killed at its very end."""
    log.info("%s is complete: nothing to resume", path)
    with suppress(WriteError), claim_folder(path):  # which removes a dead claim
        shutil.rmtree(path / "journal", ignore_errors=True)


def is_unfinished(path: Path) -> bool:
    """Return whether a folder was left by a run that ended before its first result."""
    begun = path.is_dir() and not (path / "run.json").exists() and not has_results(path)
    return begun and (is_vacant(path) or (path / "journal").is_dir())
