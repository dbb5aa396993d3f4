"""Tiles of zarr arrays with any axes, and their stored bytes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from hrviewer.errors import ImageReadError
from hrviewer.pyramid.chunk_size import decodes_within
from hrviewer.pyramid.tile_cache import DecodedTile

if TYPE_CHECKING:
    import zarr

__all__ = ["ZarrTiles", "plane_selection", "to_yxc"]

MAX_CHUNK_BYTES = 256 << 20
"""Of a decoded chunk."""

MIN_DECODED_LIMIT = 256 << 20
"""Bytes that any chunk may decode to: larger than usual chunks, so that they need no check."""

MIN_TILE_SIDE = 256
"""Pixels; smaller chunks are read together, since each takes zarr about a millisecond."""

SPATIAL = ("y", "x", "c")
"""Axes of a tile, in their order."""

# zarr works on its own event loop, but in the context of the calling thread: so the bytes of each
# thread are counted separately.
_chunk_check: ContextVar[Callable[[Any, str, bool], None] | None] = ContextVar(
    "hrviewer_chunk_check", default=None
)
_byte_counter: ContextVar[list[int] | None] = ContextVar("hrviewer_stored_bytes", default=None)


@cache
def _counting_store() -> Any:
    from zarr.storage import WrapperStore

    class CountingStore(WrapperStore[Any]):
        """Store that lists the bytes of each value read through it, 0 for one that is missing."""

        async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
            value = await super().get(key, prototype, byte_range)
            counter = _byte_counter.get()
            if counter is not None:
                counter.append(0 if value is None else len(value))
            check = _chunk_check.get()
            if check is not None and value is not None:
                check(value, key, byte_range is not None)
            return value

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

    Attributes
    ----------
    missing, stored : int
        Values that were read, chunks or shards: those that the store lacks, and those that it has.
        A missing one is legal and stands for the fill value.
    """

    def __init__(
        self,
        array: zarr.Array[Any],
        axes: Sequence[str],
        plane: Mapping[str, int],
        channels: tuple[int, ...] | None = None,
    ) -> None:
        import zarr

        self.missing = self.stored = 0
        self._array = zarr.open_array(_counting_store()(array.store), path=array.path, mode="r")
        self._axes = axes
        self._plane = plane
        self._channels = channels
        size = dict(zip(axes, array.shape, strict=True))
        count = size.get("c", 1) if channels is None else len(channels)
        self.shape = size["y"], size["x"], count
        chunk = dict(zip(axes, array.chunks, strict=True))
        self._chunk_bytes = math.prod(array.chunks) * array.dtype.itemsize
        self._stored_bytes = math.prod(array.shards or array.chunks) * array.dtype.itemsize
        if self._chunk_bytes > MAX_CHUNK_BYTES:
            raise ImageReadError(
                f"{array.store} is stored in chunks of {self._chunk_bytes / 1e6:,.0f} MB: write "
                "it again in smaller ones"
            )
        self._codec = _codec_name(array)
        self.tile = self._tile_side(chunk["y"]), self._tile_side(chunk["x"])

    @staticmethod
    def _tile_side(chunk: int) -> int:
        return chunk * max(1, MIN_TILE_SIDE // chunk)

    def _check_chunk(self, value: Any, key: str, is_part: bool) -> None:
        """Refuse what decodes to much more than a chunk: a part of a shard, or a whole value."""
        limit = max(2 * self._stored_bytes, MIN_DECODED_LIMIT)
        sharded = self._stored_bytes != self._chunk_bytes
        fits = len(value) <= limit
        if fits and is_part == sharded:
            fits = decodes_within(value.to_bytes(), self._codec, limit)
        if not fits:
            raise ImageReadError(
                f"{key} decompresses to more than a chunk of {self._chunk_bytes / 1e6:,.1f} MB: "
                "the file is damaged"
            )

    def read(self, y0: int, y1: int, x0: int, x1: int) -> DecodedTile:
        """Return a window and its stored bytes."""
        selection = plane_selection(self._axes, self._plane, (y0, y1, x0, x1))
        counter: list[int] = []
        tokens = _byte_counter.set(counter), _chunk_check.set(self._check_chunk)
        try:
            pixels = np.asarray(self._array[selection])
        finally:
            _byte_counter.reset(tokens[0])
            _chunk_check.reset(tokens[1])
        self.missing += counter.count(0)
        self.stored += len(counter) - counter.count(0)
        return DecodedTile(to_yxc(pixels, self._axes, self._channels), sum(counter))


def _codec_name(array: Any) -> str:
    """Return the name of the codec whose output is stored: ``zstd``, ``blosc``, ``zlib``, …."""
    if not array.compressors:
        return ""
    last = array.compressors[-1]
    found = str(getattr(last, "codec_id", "") or type(last).__name__.removesuffix("Codec"))
    return found.lower()


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
