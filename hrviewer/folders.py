"""Folders that are brought to the disk as a whole, or removed as a whole."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

__all__ = [
    "finish_zarr_writes",
    "remove_folder",
    "sync_file",
    "sync_files",
    "sync_folder",
    "sync_tree",
]

PATIENCE_S = 60.0
"""Seconds that writes in flight may take, as to a network file system that does not respond."""


def sync_tree(folder: Path) -> None:
    """Bring all files below a folder, and their names, to the disk.

    Raises
    ------
    OSError
        If a file cannot be written, as on a full disk that had promised the space.
    """
    for parent, _, names in os.walk(folder):
        for name in names:
            sync_file(Path(parent, name))
        sync_folder(Path(parent))


def sync_file(file: Path) -> None:
    """Bring a file to the disk, but not its name; OSError if it cannot be written."""
    with file.open("rb+") as stream:
        os.fsync(stream.fileno())


def sync_files(files: Iterable[Path], root: Path) -> None:
    """Bring files below a folder to the disk, with their names and those of their folders.

    Raises
    ------
    OSError
        If one cannot be written.
    """
    parents: set[Path] = set()
    for file in files:
        sync_file(file)
        parents |= {parent for parent in file.parents if parent.is_relative_to(root)}
    for parent in parents:
        sync_folder(parent)


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk, where the system can (Windows does it itself)."""
    if os.name != "posix":
        return
    with suppress(OSError):  # some network file systems refuse
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_folder(folder: Path) -> None:
    """Remove a folder, also if writing an array in it failed or was interrupted a moment ago."""
    finish_zarr_writes()
    shutil.rmtree(folder, ignore_errors=True)


def finish_zarr_writes() -> None:
    """Wait until zarr has ended what it is writing.

    A call that fails on one chunk ends at once, while its other chunks are still being written;
    these would make files again in a folder that was removed, or that another process has claimed.
    """
    module = sys.modules.get("zarr.core.sync")
    if module is None or module.loop[0] is None:
        return
    with suppress(TimeoutError, RuntimeError):  # RuntimeError: zarr's loop is ending
        module.sync(wait_for_tasks(), timeout=PATIENCE_S)


async def wait_for_tasks() -> None:
    """Wait for the other tasks of an event loop that are there now."""
    import asyncio

    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        await asyncio.wait(others)
