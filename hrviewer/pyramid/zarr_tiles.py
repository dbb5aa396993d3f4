"""Tiles of zarr arrays with any axes, and their stored bytes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from hrviewer.errors import ImageReadError
from hrviewer.pyramid.checked_codecs import with_checked_codecs
from hrviewer.pyramid.tile_cache import DecodedTile

if TYPE_CHECKING:
    import zarr

__all__ = ["ZarrTiles", "plane_selection", "to_yxc"]

MAX_CHUNK_BYTES = 256 << 20
"""Of a decoded chunk."""

MIN_DECODED_LIMIT = 32 << 20
"""Bytes that any chunk may decode to. Zarr decodes up to ten at once."""

MIN_TILE_SIDE = 256
"""Pixels; smaller chunks are read together, since each takes zarr about a millisecond."""

SPATIAL = ("y", "x", "c")
"""Axes of a tile, in their order."""

# zarr works on its own event loop, but in the context of the calling thread: so the bytes of each
# thread are counted separately.
_byte_counter: ContextVar[list[int] | None] = ContextVar("hrviewer_stored_bytes", default=None)


@cache
def _counting_store() -> Any:
    from zarr.storage import LocalStore, WrapperStore

    class CountingStore(WrapperStore[Any]):
        """Store that lists the bytes of each value read through it, 0 for one that is missing.

        Whole files of more than `max_bytes` are refused before they are read.
        """

        def __init__(self, store: Any, max_bytes: int) -> None:
            super().__init__(store)
            self.max_bytes = max_bytes

        def _with_store(self, store: Any) -> Any:
            return type(self)(store, self.max_bytes)

        async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
            if byte_range is None and isinstance(self._store, LocalStore):
                await self._check_size(key)
            value = await super().get(key, prototype, byte_range)
            counter = _byte_counter.get()
            if counter is not None:
                counter.append(0 if value is None else len(value))
            return value

        async def _check_size(self, key: str) -> None:
            with suppress(FileNotFoundError):
                size = await self._store.getsize(key)
                if size > self.max_bytes:
                    raise ImageReadError(
                        f"{self._store.root / key} has {size / 1e6:,.0f} MB, which is more than "
                        "its pixels take: the file is damaged"
                    )

    return CountingStore


class ZarrTiles:
    """A plane of a zarr array, read as ``(h, w, c)``.

    Parameters
    ----------
    array : zarr.Array
        Any order of axes.
    axes : sequence of str
        Name of each of the array's axes; ``y`` and ``x`` are among them, ``c`` may be.
    plane : mapping
        Index on every other axis.
    channels : tuple of int, optional
        Channels to read; all by default.
    marks_missing : bool
        Whether pixels have no data where the store lacks their chunk (or shard) in all channels;
        otherwise they have the fill value. Chunks that a shard leaves out always have it.

    Attributes
    ----------
    missing, stored : int
        Values that were read, chunks or shards: those that the store lacks, and those that it has.
    """

    def __init__(
        self,
        array: zarr.Array[Any],
        axes: Sequence[str],
        plane: Mapping[str, int],
        channels: tuple[int, ...] | None = None,
        *,
        marks_missing: bool = False,
    ) -> None:
        import zarr

        self.missing = self.stored = 0
        self._axes = axes
        self._plane = plane
        self._channels = channels
        size = dict(zip(axes, array.shape, strict=True))
        count = size.get("c", 1) if channels is None else len(channels)
        self.shape = size["y"], size["x"], count
        chunk = dict(zip(axes, array.chunks, strict=True))
        chunk_bytes = math.prod(array.chunks) * array.dtype.itemsize
        name = str(array.store_path).removeprefix("file://")
        if chunk_bytes > MAX_CHUNK_BYTES:
            raise ImageReadError(
                f"{name} is stored in chunks of {chunk_bytes / 1e6:,.0f} MB: write it again in "
                "smaller ones"
            )
        stored_bytes = math.prod(array.shards or array.chunks) * array.dtype.itemsize
        store = _counting_store()(array.store, max(2 * stored_bytes, MIN_DECODED_LIMIT))
        counted = zarr.open_array(store, path=array.path, mode="r")
        self._array = with_checked_codecs(counted, name, max(2 * chunk_bytes, MIN_DECODED_LIMIT))
        self._refilled = with_other_fill(self._array) if marks_missing else None
        self.tile = self._tile_side(chunk["y"]), self._tile_side(chunk["x"])

    @staticmethod
    def _tile_side(chunk: int) -> int:
        return chunk * max(1, MIN_TILE_SIDE // chunk)

    def read(self, y0: int, y1: int, x0: int, x1: int) -> DecodedTile:
        """Return a window and its stored bytes."""
        selection = plane_selection(self._axes, self._plane, (y0, y1, x0, x1))
        counter: list[int] = []
        token = _byte_counter.set(counter)
        try:
            pixels = np.asarray(self._array[selection])
        finally:
            _byte_counter.reset(token)
        missing = counter.count(0)
        self.missing += missing
        self.stored += len(counter) - missing
        valid: Any = None
        if missing and self._refilled is not None:
            # A pixel that changes with the fill value is not stored.
            other = np.asarray(self._refilled[selection])
            valid = np.any(to_yxc(pixels == other, self._axes, self._channels), axis=2)
        return DecodedTile(to_yxc(pixels, self._axes, self._channels), sum(counter), valid=valid)


def with_other_fill(array: zarr.Array[Any]) -> zarr.Array[Any]:
    """Return an array with another value in the places of chunks that are not stored."""
    import zarr

    fill = array.metadata.fill_value
    other = array.dtype.type(fill is None or not np.any(fill))  # 1 for 0, 0 for others and NaN
    if fill is not None and np.isnan(fill):
        other = array.dtype.type(0)
    changed = replace(array.metadata, fill_value=other)
    return zarr.Array(zarr.AsyncArray(changed, array.store_path))


def plane_selection(
    axes: Sequence[str], plane: Mapping[str, int], window: tuple[int, int, int, int]
) -> tuple[int | slice, ...]:
    """Return the index of a window ``(y0, y1, x0, x1)`` of one plane of an array."""
    y0, y1, x0, x1 = window
    slices = {"y": slice(y0, y1), "x": slice(x0, x1), "c": slice(None)}
    return tuple(slices[axis] if axis in slices else plane.get(axis, 0) for axis in axes)


def to_yxc(
    pixels: np.ndarray[Any, np.dtype[Any]],
    axes: Sequence[str],
    channels: tuple[int, ...] | None,
) -> np.ndarray[Any, np.dtype[Any]]:
    """Return the pixels of a `plane_selection` as ``(h, w, c)``, with the given channels."""
    order = [axis for axis in axes if axis in SPATIAL]
    if "c" not in order:
        pixels, order = pixels[..., None], [*order, "c"]
    pixels = pixels.transpose([order.index(axis) for axis in SPATIAL])
    return pixels if channels is None else pixels[..., list(channels)]
