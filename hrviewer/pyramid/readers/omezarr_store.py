"""Where an OME-Zarr lies: a folder, a zip file, or behind a URL."""

from __future__ import annotations

import asyncio
import math
import os
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

from hrviewer.errors import ImageReadError
from hrviewer.pyramid.remote import is_url, network_error, range_cache, storage_options
from hrviewer.pyramid.zarr_tiles import MAX_CHUNK_BYTES

__all__ = ["is_zipped_zarr", "lacks_chunks", "open_node"]

MARKS = ("zarr.json", ".zgroup", ".zattrs", ".zarray")
ZIP_SUFFIXES = (".ozx", ".zip")

MAX_LISTED = 100_000
"""Chunks of an array, or shards, whose files are counted."""


def is_zipped_zarr(path: str) -> bool:
    """Whether a file is a zip of a Zarr hierarchy, at its root or in one folder."""
    return path.lower().endswith(ZIP_SUFFIXES) and _zip_root(path) is not None


def open_node(path: str) -> Any:
    """Open the group or array at a folder, in a zip file or behind a URL."""
    import zarr

    if is_url(path):
        try:
            options = storage_options(path)
            source = zarr.storage.FsspecStore.from_url(path, options, read_only=True)
            return zarr.open(_remote_store()(source, path), mode="r")
        except (OSError, ImportError) as error:
            raise network_error(path, error) from error
    if Path(path).is_file():
        with zipfile.ZipFile(path) as file:
            _check_members(path, file)
        store = zarr.storage.ZipStore(path, mode="r")
        return zarr.open(store, path=_zip_root(path) or None, mode="r")
    return zarr.open(path, mode="r")


def lacks_chunks(path: str, array: Any) -> bool:
    """Whether an array at a path lacks a chunk, or may: one behind a URL, or of very many chunks.

    Parameters
    ----------
    path : str
        Folder, zip file or URL that `open_node` opened.
    array : zarr.Array
        An array in it.
    """
    stored = array.shards or array.chunks
    expected: int = math.prod(
        -(-side // part) for side, part in zip(array.shape, stored, strict=True)
    )
    if is_url(path) or expected > MAX_LISTED:
        return True
    if Path(path).is_file():
        with zipfile.ZipFile(path) as file:
            names = [name for name in file.namelist() if name.startswith(f"{array.path}/")]
    else:
        names = [name for _, _, names in os.walk(Path(path) / array.path) for name in names]
    last = (name.rpartition("/")[2] for name in names)
    return sum(1 for name in last if name[:1] not in ("", ".") and name not in MARKS) < expected


def _check_members(path: str, file: zipfile.ZipFile) -> None:
    """Refuse compressed members that are larger than any chunk."""
    for member in file.infolist():
        if member.compress_type != zipfile.ZIP_STORED and member.file_size > MAX_CHUNK_BYTES:
            raise ImageReadError(
                f"{path}: {member.filename} is compressed and has {member.file_size / 1e6:,.0f} "
                "MB: zip the folder again without compression"
            )


def _zip_root(path: str) -> str | None:
    """Return the folder in a zip file that holds the root of a Zarr; None if there is none."""
    try:
        with zipfile.ZipFile(path) as file:
            names = file.namelist()
    except (OSError, zipfile.BadZipFile):
        return None
    roots = {name.rpartition("/")[0] for name in names if name.rpartition("/")[2] in MARKS}
    shallow = sorted(root for root in roots if root.count("/") == 0)
    return shallow[0] if shallow and ("" in roots or len(shallow) == 1) else None


@cache
def _remote_store() -> Any:
    from zarr.storage import WrapperStore

    class RemoteStore(WrapperStore[Any]):
        """Store behind a URL: chunks are cached on disk, failures are reported in one line."""

        def __init__(self, store: Any, url: str) -> None:
            super().__init__(store)
            self.url = url

        def _with_store(self, store: Any) -> Any:
            return type(self)(store, self.url)

        async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
            # Metadata are transferred every time: they distinguish versions.
            is_chunk = key.rpartition("/")[2] not in (*MARKS, ".zmetadata")
            name = f"{self.url} {key} {byte_range}"
            if is_chunk:
                data = await asyncio.to_thread(range_cache().get, name)
                if data is not None:
                    return prototype.buffer.from_bytes(data)
            try:
                value = await super().get(key, prototype, byte_range)
            except FileNotFoundError:
                return None
            except Exception as error:
                raise network_error(self.url, error) from error
            if is_chunk and value is not None:
                await asyncio.to_thread(range_cache().put, name, value.to_bytes())
            return value

    return RemoteStore
