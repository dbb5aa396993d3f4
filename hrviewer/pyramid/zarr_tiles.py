"""Tiles of zarr arrays with any axes, and their stored bytes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import suppress
from contextvars import ContextVar
from functools import cache
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from hrviewer.errors import ImageReadError
from hrviewer.pyramid.checked_codecs import with_checked_codecs
from hrviewer.pyramid.tile_cache import DecodedTile

if TYPE_CHECKING:
    import zarr

__all__ = ["ZarrTiles", "plane_selection", "stored_parts", "to_yxc"]

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
_byte_counter: ContextVar[list[tuple[str, int]] | None] = ContextVar(
    "hrviewer_stored_bytes", default=None
)


@cache
def _counting_store() -> Any:
    from zarr.storage import LocalStore, WrapperStore

    class CountingStore(WrapperStore[Any]):
        """Store that lists the key and bytes of each value read, 0 for one that is missing.

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
                counter.append((key, 0 if value is None else len(value)))
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
        self._marks_missing = marks_missing
        self.tile = self._tile_side(chunk["y"]), self._tile_side(chunk["x"])

    @staticmethod
    def _tile_side(chunk: int) -> int:
        return chunk * max(1, MIN_TILE_SIDE // chunk)

    def read(self, y0: int, y1: int, x0: int, x1: int) -> DecodedTile:
        """Return a window and its stored bytes."""
        selection = plane_selection(self._axes, self._plane, (y0, y1, x0, x1))
        counter: list[tuple[str, int]] = []
        token = _byte_counter.set(counter)
        try:
            pixels = np.asarray(self._array[selection])
        finally:
            _byte_counter.reset(token)
        missing = {key for key, size in counter if size == 0}
        self.missing += len(missing)
        self.stored += len(counter) - len(missing)
        valid = self._valid(selection, missing) if missing and self._marks_missing else None
        size = sum(size for _, size in counter)
        return DecodedTile(to_yxc(pixels, self._axes, self._channels), size, valid=valid)

    def _valid(
        self, selection: Sequence[int | slice], missing: Set[str]
    ) -> np.ndarray[Any, np.dtype[Any]]:
        """Return where a selection has data in any channel, ``(h, w)``."""
        sizes = [
            len(range(*at.indices(n))) if isinstance(at, slice) else 1
            for at, n in zip(selection, self._array.shape, strict=True)
        ]
        stored = np.ones(sizes, bool)
        folder = f"{self._array.path}/" if self._array.path else ""
        for key, place in stored_parts(self._array, selection):
            stored[place] = folder + key not in missing
        planes = tuple(slice(None) if isinstance(at, slice) else 0 for at in selection)
        return np.asarray(to_yxc(stored[planes], self._axes, self._channels).any(axis=2))


def stored_parts(
    array: zarr.Array[Any], index: Sequence[int | slice]
) -> Iterator[tuple[str, tuple[slice, ...]]]:
    """Yield the key of each chunk (or shard) under an index, and its place in the selection.

    The selection has all axes; one that is indexed by a number has length 1.
    """
    spans, places = [], []
    for at, size, step in zip(index, array.shape, array.shards or array.chunks, strict=True):
        start, stop, _ = at.indices(size) if isinstance(at, slice) else (at, at + 1, 1)
        numbers = range(start // step, -(-stop // step))
        spans.append(numbers)
        places.append(
            [slice(max(0, n * step - start), min(stop, (n + 1) * step) - start) for n in numbers]
        )
    for chunk, place in zip(product(*spans), product(*places), strict=True):
        yield array.metadata.encode_chunk_key(chunk), place


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
