"""Levels of a pyramid as read-only zarr and dask arrays.

The store holds one array, ``(h, w, c)``, in zarr format 3 with uncompressed chunks, independent of
the file's format. Nothing is copied beforehand: a chunk is made on request from tiles that come
through the shared tile cache.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from zarr.abc.store import (
    ByteRequest,
    OffsetByteRequest,
    RangeByteRequest,
    Store,
    SuffixByteRequest,
)

if TYPE_CHECKING:
    import zarr
    from zarr.core.buffer import Buffer, BufferPrototype

    from hrviewer.pyramid.level import Level

__all__ = ["LevelStore", "as_dask", "as_zarr"]

METADATA = "zarr.json"
MAX_THREADS = 8
"""Chunks of a level that are decoded at the same time, at most."""


def as_zarr(level: Level) -> zarr.Array[Any]:
    """Return a level as a read-only zarr array ``(h, w, c)``.

    Examples
    --------
    >>> as_zarr(image.levels[0])[:256, :256].shape
    (256, 256, 3)
    """
    import zarr

    return zarr.open_array(LevelStore(level), mode="r")


def as_dask(level: Level) -> Any:
    """Return a level as a lazy dask array ``(h, w, c)``.

    Examples
    --------
    >>> float(as_dask(image.levels[0])[:512, :512].mean().compute())
    200.0
    """
    import dask.array as da

    # A few tiles to a task: dask's overhead per task is that of decoding a small tile.
    th, tw, c = level.chunks
    rows, columns = max(1, 1024 // th), max(1, 1024 // tw)
    chunks = (th * rows, tw * columns, c)
    name = f"level-{level.image_key}-{level.index}"
    return da.from_array(as_zarr(level), chunks=chunks, name=name, meta=np.empty(0))


class LevelStore(Store):
    """Read-only zarr store of one level."""

    supports_writes = False
    supports_deletes = False
    supports_listing = True
    supports_partial_writes = False

    def __init__(self, level: Level) -> None:
        super().__init__(read_only=True)
        self.level = level
        # Not the event loop's own threads: a level that is stored in zarr needs that loop for its
        # pixels, and would deadlock once all of them wait for it.
        self._threads = ThreadPoolExecutor(MAX_THREADS, "hrviewer-chunk")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LevelStore) and other.level is self.level

    def __hash__(self) -> int:
        return hash((self.level.image_key, self.level.index))

    def with_read_only(self, read_only: bool = False) -> LevelStore:
        """Return a store over the same level; it cannot be written."""
        if not read_only:
            raise ValueError("an image is read-only")
        return LevelStore(self.level)

    def _metadata(self) -> bytes:
        level = self.level
        return json.dumps(
            {
                "zarr_format": 3,
                "node_type": "array",
                "shape": level.shape,
                "data_type": level.dtype.name,
                "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": level.chunks}},
                "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
                "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
                "fill_value": 0,
                "dimension_names": ["y", "x", "c"],
                "attributes": {},
            }
        ).encode()

    def _chunk(self, row: int, column: int) -> np.ndarray[Any, np.dtype[Any]] | None:
        (h, w, c), (th, tw, _) = self.level.shape, self.level.chunks
        y, x = row * th, column * tw
        if not (0 <= y < h and 0 <= x < w):
            return None
        pixels = self.level.read(y, min(y + th, h), x, min(x + tw, w))
        if pixels.shape[:2] != (th, tw):  # zarr stores chunks at the border in full
            padded = np.zeros((th, tw, c), pixels.dtype)
            padded[: pixels.shape[0], : pixels.shape[1]] = pixels
            pixels = padded
        return pixels.astype(pixels.dtype.newbyteorder("<"), copy=False)

    def _value(self, key: str) -> np.ndarray[Any, np.dtype[np.uint8]] | None:
        if key == METADATA:
            return np.frombuffer(self._metadata(), np.uint8)
        parts = key.split("/")
        if len(parts) != 4 or parts[0] != "c" or parts[3] != "0":
            return None
        chunk = self._chunk(int(parts[1]), int(parts[2]))
        return None if chunk is None else chunk.reshape(-1).view(np.uint8)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return the metadata or a chunk; it is decoded off zarr's event loop."""
        loop = asyncio.get_running_loop()
        value = await loop.run_in_executor(self._threads, self._value, key)
        if value is None:
            return None
        match byte_range:
            case RangeByteRequest(start, end):
                value = value[start:end]
            case OffsetByteRequest(offset):
                value = value[offset:]
            case SuffixByteRequest(suffix):
                value = value[-suffix:]
        return prototype.buffer.from_array_like(value)

    async def get_partial_values(
        self,
        prototype: BufferPrototype,
        key_ranges: Iterable[tuple[str, ByteRequest | None]],
    ) -> list[Buffer | None]:
        """Return several values, or parts of them."""
        return [await self.get(key, prototype, part) for key, part in key_ranges]

    async def exists(self, key: str) -> bool:
        """Whether a key exists."""
        return key in list(self._iter_keys())

    def _iter_keys(self) -> Iterable[str]:
        (h, w, _), (th, tw, _) = self.level.shape, self.level.chunks
        yield METADATA
        for row in range(-(-h // th)):
            for column in range(-(-w // tw)):
                yield f"c/{row}/{column}/0"

    async def list(self) -> AsyncIterator[str]:
        """Yield every key."""
        for key in self._iter_keys():
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Yield every key with a prefix."""
        for key in self._iter_keys():
            if key.startswith(prefix):
                yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Yield the names directly below a prefix."""
        prefix = f"{prefix.rstrip('/')}/" if prefix else ""
        below = (key[len(prefix) :] for key in self._iter_keys() if key.startswith(prefix))
        for name in dict.fromkeys(key.split("/")[0] for key in below):
            yield name

    async def set(self, key: str, value: Buffer) -> None:
        """Raise: an image is read-only."""
        self._check_writable()

    async def delete(self, key: str) -> None:
        """Raise: an image is read-only."""
        self._check_writable()
