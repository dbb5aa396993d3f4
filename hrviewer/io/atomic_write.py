"""How a file comes to be whole or not at all: written beside its place, then renamed."""

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
    """Return a path under which nothing is yet, in a folder that is there.

    Raises
    ------
    UserError
        If the place is taken, missing, or no name for a file.
    """
    path = Path(path).expanduser()
    if "\0" in str(path):
        raise WriteError(f"{str(path)!r} holds a character that no name can hold: leave it out")
    try:
        if os.path.lexists(path):
            raise WriteError(f"{path} exists: choose another name, or remove it first")
        if not path.parent.is_dir():
            raise WriteError(f"there is no folder {path.parent}: make it first")
    except WriteError:
        raise
    except OSError as error:
        raise write_error(path, error) from None
    return path


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a place beside `path`; what was written there, file or folder, is renamed at the end.

    Whatever goes wrong, nothing stands under `path` that was not there before, and nothing is
    left beside it, unless the process is killed: then a hidden ``.hrviewer-….part`` is.

    Parameters
    ----------
    path : str or Path
        Where; nothing may be there yet.

    Raises
    ------
    UserError
        If the place is taken, missing, full or not to be written to.
    """
    path = require_new_path(path)
    # No part of the name is used: what is added to a long one would be too long.
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
    """Rename, but never over what somebody else wrote in the meantime."""
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
