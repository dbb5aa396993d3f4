"""Atomic writing: files and folders appear under their name only when they are complete."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hrviewer.claims import claim
from hrviewer.errors import HrviewerError, WriteError, write_error
from hrviewer.folders import finish_zarr_writes, remove_folder, sync_file, sync_folder, sync_tree
from hrviewer.paths import CLAIM_PREFIX

__all__ = ["atomic_path", "remove_leftovers", "replace_file", "require_new_path"]

PART_PREFIX, PART_SUFFIX, KEY_LENGTH = ".hrviewer-", ".part", 32
"""Of the names of temporary files: ``.hrviewer-KEY.part``, the key a digest of the final name."""

LEFTOVER_NAME = re.compile(
    rf"{re.escape(PART_PREFIX)}(?P<part>[0-9a-f]{{{KEY_LENGTH}}}){re.escape(PART_SUFFIX)}"
    rf"|{re.escape(CLAIM_PREFIX)}(?P<claim>[0-9a-f]{{{KEY_LENGTH}}})-\d+"
)


def require_new_path(path: str | Path) -> Path:
    """Check that a path does not exist and that its folder does; return it expanded.

    Raises
    ------
    HrviewerError
        If the path exists, its folder does not, or the name is not a valid file name.
    """
    path = Path(path).expanduser()
    if "\0" in str(path):
        raise WriteError(f"{str(path)!r} holds a null character: leave it out")
    try:
        if os.path.lexists(path):
            raise WriteError(f"{path} exists: choose another name, or remove it first")
        if not path.parent.is_dir():
            raise WriteError(f"there is no folder {path.parent}: create it first")
    except WriteError:
        raise
    except OSError as error:
        raise write_error(path, error) from None
    return path


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder, and rename what is written there at the end.

    After an error nothing new exists under `path` and the temporary file is removed. A killed
    process leaves a hidden ``.hrviewer-….part``; the next writer into the folder removes it. At the
    end all of it is on the disk: a power cut leaves everything, or nothing under this name.

    Parameters
    ----------
    path : str or Path
        The final path; it must not exist.

    Raises
    ------
    HrviewerError
        If the path exists, its folder does not, it cannot be written, or another process writes it.
    """
    path = require_new_path(path)
    # The name itself is not part of it: a long name with an addition would be too long.
    key = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:KEY_LENGTH]
    with claim(path.parent, key, path):
        require_new_path(path)  # an earlier writer may just have finished
        remove_leftovers(path.parent)
        part = path.with_name(f"{PART_PREFIX}{key}{PART_SUFFIX}")
        try:
            remove(part)
            try:
                yield part
            except BaseException:
                finish_zarr_writes()
                raise
            move_into_place(part, path)
        except HrviewerError:
            raise
        except OSError as error:
            raise write_error(path, error) from error
        finally:
            with suppress(OSError):
                remove(part)


def replace_file(path: Path, data: bytes) -> None:
    """Write a file, or replace it in one step, so that a power cut leaves the old or the new one.

    The bytes are on the disk before they get their name, and the name before this returns.

    Raises
    ------
    OSError
        If it cannot be written; the old file stays.
    """
    new = path.with_name(f"{path.name}.new")
    try:
        with new.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(new, path)
    except OSError:
        with suppress(OSError):
            new.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left: temporary files that nobody claims, and dead claims."""
    names = (LEFTOVER_NAME.fullmatch(path.name) for path in folder.glob(f"{PART_PREFIX}*"))
    for key in {name["part"] or name["claim"] for name in names if name}:
        part = folder / f"{PART_PREFIX}{key}{PART_SUFFIX}"
        with suppress(OSError), claim(folder, key, part):  # which removes a dead one
            remove(part)


def remove(part: Path) -> None:
    """Remove a file or folder, where there is one."""
    if part.is_dir() and not part.is_symlink():
        remove_folder(part)
    else:
        part.unlink(missing_ok=True)


def move_into_place(part: Path, path: Path) -> None:
    """Rename, but never over a file that another process wrote in the meantime."""
    if part.is_dir():
        if os.path.lexists(path):
            raise WriteError(f"{path} exists: choose another name, or remove it first")
        sync_tree(part)
        os.rename(part, path)
        sync_folder(path.parent)
        return
    sync_file(part)
    try:
        os.link(part, path)
    except FileExistsError:
        raise WriteError(f"{path} exists: choose another name, or remove it first") from None
    except OSError:  # a file system without links
        os.rename(part, path)
    sync_folder(path.parent)
