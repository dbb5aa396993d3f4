"""Tiles out of zarr arrays of any axes, with the bytes that the store gave for them."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from hrviewer.pyramid.tile_cache import DecodedTile

if TYPE_CHECKING:
    import zarr

__all__ = ["ZarrTiles"]

MIN_TILE_SIDE = 256
"""Chunks that are smaller are read together: each costs zarr about a millisecond."""

# zarr works on its own event loop, but in the context of the thread that asks. So what a thread
# reads is counted apart from what others read at the same time.
_byte_counter: ContextVar[list[int] | None] = ContextVar("hrviewer_stored_bytes", default=None)


@cache
def _counting_store() -> Any:
    from zarr.storage import WrapperStore

    class CountingStore(WrapperStore[Any]):
        """Adds up the bytes that it passes on."""

        async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
            value = await super().get(key, prototype, byte_range)
            counter = _byte_counter.get()
            if counter is not None and value is not None:
                counter.append(len(value))
            return value

    return CountingStore


class ZarrTiles:
    """A plane of a zarr array, read as ``(h, w, c)``.

    Parameters
    ----------
    array : zarr.Array
        Any order of axes.
    axes : str
        One letter for each of the array's axes; ``y`` and ``x`` are among them, ``c`` may be.
    plane : mapping
        The index for every other axis.
    channels : tuple of int, optional
        Which channels; all if not given.
    """

    def __init__(
        self,
        array: zarr.Array[Any],
        axes: str,
        plane: Mapping[str, int],
        channels: tuple[int, ...] | None = None,
    ) -> None:
        import zarr

        self._array = zarr.open_array(_counting_store()(array.store), path=array.path, mode="r")
        self._axes = axes
        self._plane = plane
        self._channels = channels
        size = dict(zip(axes, array.shape, strict=True))
        count = size.get("c", 1) if channels is None else len(channels)
        self.shape = size["y"], size["x"], count
        chunk = dict(zip(axes, array.chunks, strict=True))
        self.tile = self._tile_side(chunk["y"]), self._tile_side(chunk["x"])

    @staticmethod
    def _tile_side(chunk: int) -> int:
        return chunk * max(1, MIN_TILE_SIDE // chunk)

    def read(self, y0: int, y1: int, x0: int, x1: int) -> DecodedTile:
        """Return a window and the bytes that were stored for it."""
        window = {"y": slice(y0, y1), "x": slice(x0, x1), "c": slice(None)}
        selection = tuple(window.get(axis, self._plane.get(axis, 0)) for axis in self._axes)
        counter: list[int] = []
        token = _byte_counter.set(counter)
        try:
            pixels = np.asarray(self._array[selection])
        finally:
            _byte_counter.reset(token)
        left = "".join(axis for axis in self._axes if axis in "yxc")
        if "c" not in left:
            pixels, left = pixels[..., None], left + "c"
        pixels = pixels.transpose([left.index(axis) for axis in "yxc"])
        if self._channels is not None:
            pixels = pixels[..., list(self._channels)]
        return DecodedTile(pixels, sum(counter))
