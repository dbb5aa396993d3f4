"""Zip files with a model: unpacked once into the cache, without leaving its folder."""

from __future__ import annotations

import hashlib
import tempfile
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from hrviewer.errors import ModelError, write_error
from hrviewer.paths import cache_folder

__all__ = ["is_package", "unpack"]

MAX_BYTES = 8 << 30
"""Most bytes that a package may hold, unpacked."""
MAX_FILES = 1000


def is_package(path: Path, names: Iterable[str]) -> bool:
    """Whether a zip file has one of these files in its root."""
    if path.suffix.lower() != ".zip" or not path.is_file():
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return not set(names).isdisjoint(archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def unpack(path: Path) -> Path:
    """Return the folder of a zip file's contents, in the cache.

    Raises
    ------
    ModelError
        If a name in it leads out of its folder, it holds too much, or it is damaged.
    """
    stat = path.stat()
    key = f"{path.resolve()}\n{stat.st_size}\n{stat.st_mtime_ns}"
    folder = cache_folder() / "models" / hashlib.sha256(key.encode()).hexdigest()[:16]
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as unfinished:
            content = Path(unfinished) / "content"
            with zipfile.ZipFile(path) as archive:
                _extract(path, archive, content)
            if not folder.is_dir():  # another process may have been faster
                content.replace(folder)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, zlib.error) as error:
        raise ModelError(f"{path} is a damaged zip file ({error}): download it again") from None
    except OSError as error:
        raise write_error(folder, error) from None
    return folder


def _extract(path: Path, archive: zipfile.ZipFile, folder: Path) -> None:
    """Copy the files, counting bytes: the sizes that a zip file declares may be wrong."""
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    left = MAX_BYTES
    if len(entries) > MAX_FILES or sum(entry.file_size for entry in entries) > left:
        raise ModelError(f"{path} holds too much for a model: unpack it, and give its folder")
    for entry in entries:
        name = PurePosixPath(entry.filename)
        if name.is_absolute() or ".." in name.parts or "\\" in entry.filename:
            raise ModelError(
                f"{path} holds {entry.filename!r}, which leads out of its folder: do not use it"
            )
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(entry) as source, target.open("wb") as copy:
            while block := source.read(1 << 20):
                left -= len(block)
                if left < 0:
                    raise ModelError(
                        f"{path} holds too much for a model: unpack it, and give its folder"
                    )
                copy.write(block)
