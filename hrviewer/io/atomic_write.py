"""Atomic writing: files and folders appear under their name only when they are complete."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from hrviewer.errors import HrviewerError, WriteError, write_error

__all__ = ["atomic_path", "require_new_path"]


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

    After an error nothing new exists under `path` and the temporary file is removed. Only a killed
    process leaves a hidden ``.hrviewer-….part``.

    Parameters
    ----------
    path : str or Path
        The final path; it must not exist.

    Raises
    ------
    HrviewerError
        If the path exists, its folder does not, or it cannot be written.
    """
    path = require_new_path(path)
    # The name is not part of it: a long name with an addition would be too long.
    part = path.with_name(f".hrviewer-{uuid4().hex}.part")
    try:
        yield part
        move_into_place(part, path)
    except HrviewerError:
        raise
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)


def move_into_place(part: Path, path: Path) -> None:
    """Rename, but never over a file that another process wrote in the meantime."""
    if part.is_dir():
        if os.path.lexists(path):
            raise WriteError(f"{path} exists: choose another name, or remove it first")
        os.rename(part, path)
        return
    try:
        os.link(part, path)
    except FileExistsError:
        raise WriteError(f"{path} exists: choose another name, or remove it first") from None
    except OSError:  # a file system without links
        os.rename(part, path)
