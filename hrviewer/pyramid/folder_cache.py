"""Cached folders by name, as decoded pictures and overviews, within a bound.

A folder is complete, because it gets its name only when it is finished. The least recently used
ones go first; those that are open in this process stay.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import weakref
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from hrviewer.errors import ImageReadError
from hrviewer.folders import sync_tree

__all__ = ["MAX_FOLDER_BYTES", "UNFINISHED", "FolderCache"]

MAX_FOLDER_BYTES = 20 << 30
"""Bytes of all folders of one kind together."""

UNFINISHED = "unfinished-"
"""Beginning of the names of folders that are being written or removed."""

_open_folders: Counter[Path] = Counter()
_lock = threading.Lock()


class FolderCache:
    """One folder, beside others of its kind.

    Parameters
    ----------
    path : Path
        The folder, whether it exists or not.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.close: Callable[[], object] = lambda: None
        """Release the folder; it may be removed from now on."""

    def open(self) -> bool:
        """Mark the folder as used, and keep it until `close`; return whether it is there."""
        with suppress(OSError):
            os.utime(self.path)
        if not self.path.is_dir():
            return False
        self.close()
        with _lock:
            _open_folders[self.path] += 1
        self.close = weakref.finalize(self, _release, self.path)
        return True

    def start(self) -> Path:
        """Return a new folder to write to."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=self.path.parent))

    def finish(self, unfinished: Path, limit: int | None = None) -> None:
        """Give a folder its name, unless another process was first, and remove old ones.

        Parameters
        ----------
        unfinished : Path
            From `start`.
        limit : int, optional
            Bytes of all folders together; `MAX_FOLDER_BYTES` by default.
        """
        with suppress(OSError):
            sync_tree(unfinished)  # a chunk that a power cut took would read as zeros
            unfinished.rename(self.path)
        if not self.open():
            raise ImageReadError(f"{self.path} cannot be written: check the folder of caches")
        self._remove_old(MAX_FOLDER_BYTES if limit is None else limit)

    def check(self, name: str) -> None:
        """Raise an error if the folder was removed: its missing chunks would read as zeros.

        Parameters
        ----------
        name : str
            Name of the image, for the message.
        """
        if not self.path.is_dir():
            raise ImageReadError(f"{name} was removed from {self.path.parent}; open it again")

    def _remove_old(self, limit: int) -> None:
        found = []
        for folder in self.path.parent.iterdir():
            with suppress(OSError):
                if folder.is_dir() and not folder.name.startswith(UNFINISHED):
                    found.append((folder.stat().st_mtime, _measure(folder), folder))
        total = sum(size for _, size, _ in found)
        for _, size, folder in sorted(found):
            if total <= limit:
                return
            with _lock, suppress(OSError):
                if _open_folders[folder]:
                    continue
                # Renamed first, so that no other process reads a half of it.
                gone = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=folder.parent))
                folder.rename(gone / folder.name)
                shutil.rmtree(gone, ignore_errors=True)
                total -= size


def _release(path: Path) -> None:
    with _lock:
        _open_folders[path] -= 1


def _measure(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
