"""Cache of decoded tiles, bounded in bytes and shared by all readers of the process.

Invariants: the cached tiles never exceed `limit` bytes; a tile that several threads miss at the
same time is decoded once; returned pixels are read-only, because they are shared.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

__all__ = ["DecodedTile", "Tile", "TileCache", "TileKey", "tile_cache"]

GIB = 1 << 30


class TileKey(NamedTuple):
    """Key of a stored tile: image (with its plane and channels), level, row and column."""

    image: str
    level: int
    row: int
    column: int


class DecodedTile(NamedTuple):
    """One tile as a reader decodes it.

    `pixels` is ``(h, w, c)``, clipped to the level; `bytes` are its stored bytes; `seconds`
    replaces the measured time where one decoding serves many tiles; `valid`, ``(h, w)``, is False
    where there are no data, and None where there are data everywhere.
    """

    pixels: np.ndarray[Any, np.dtype[Any]]
    bytes: int
    seconds: float | None = None
    valid: np.ndarray[Any, np.dtype[np.bool_]] | None = None


@dataclass(frozen=True, slots=True)
class Tile:
    """A decoded tile and the cost of its decoding."""

    pixels: np.ndarray[Any, np.dtype[Any]]
    bytes: int
    seconds: float
    valid: np.ndarray[Any, np.dtype[np.bool_]] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return self.pixels.nbytes + (0 if self.valid is None else self.valid.nbytes)

    @classmethod
    def load(cls, decode: Callable[[], DecodedTile]) -> Tile:
        """Decode a tile and measure the time."""
        start = time.perf_counter()
        pixels, stored, seconds, valid = decode()
        elapsed = time.perf_counter() - start
        pixels = pixels.view()
        pixels.flags.writeable = False
        if valid is not None and valid.all():
            valid = None
        return cls(pixels, stored, elapsed if seconds is None else seconds, valid)


class TileCache:
    """Thread-safe least-recently-used cache of tiles, bounded in bytes.

    Parameters
    ----------
    limit : int
        Maximum bytes of cached pixels.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._nbytes = 0
        self._tiles: OrderedDict[TileKey, Tile] = OrderedDict()
        self._pending: dict[TileKey, Future[Tile]] = {}
        self._lock = threading.Lock()

    def get(self, key: TileKey, decode: Callable[[], DecodedTile]) -> Tile:
        """Return the tile, decoded if it is not cached; errors of `decode` pass through."""
        with self._lock:
            tile = self._tiles.get(key)
            if tile is not None:
                self._tiles.move_to_end(key)
                return tile
            future = self._pending.get(key)
            decode_here = future is None
            if future is None:
                future = self._pending[key] = Future()
        if not decode_here:
            return future.result()
        try:
            tile = Tile.load(lambda: _copy_if_view(decode()))
        except BaseException as error:
            with self._lock:
                del self._pending[key]
            future.set_exception(error)
            raise
        with self._lock:
            del self._pending[key]
            if tile.nbytes <= self._limit:
                self._tiles[key] = tile
                self._nbytes += tile.nbytes
                self._evict()
        future.set_result(tile)
        return tile

    def get_cached(self, key: TileKey) -> Tile | None:
        """Return the tile if it is cached; neither decodes nor waits for a decoding."""
        with self._lock:
            tile = self._tiles.get(key)
            if tile is not None:
                self._tiles.move_to_end(key)
            return tile

    def clear(self) -> None:
        """Remove every tile."""
        with self._lock:
            self._tiles.clear()
            self._nbytes = 0

    @property
    def nbytes(self) -> int:
        """Bytes of cached pixels."""
        return self._nbytes

    @property
    def limit(self) -> int:
        """Maximum bytes; a lower limit evicts the least recently used tiles."""
        return self._limit

    @limit.setter
    def limit(self, limit: int) -> None:
        with self._lock:
            self._limit = limit
            self._evict()

    def __len__(self) -> int:
        return len(self._tiles)

    def __contains__(self, key: TileKey) -> bool:
        return key in self._tiles

    def _evict(self) -> None:
        while self._nbytes > self._limit:
            _, tile = self._tiles.popitem(last=False)
            self._nbytes -= tile.nbytes


def _copy_if_view(decoded: DecodedTile) -> DecodedTile:
    """Copy pixels that are a view of a larger array, which would be kept alive by them."""
    root = decoded.pixels
    while isinstance(root.base, np.ndarray):
        root = root.base
    if root.nbytes <= decoded.pixels.nbytes and decoded.pixels.flags.c_contiguous:
        return decoded
    pixels = np.empty(decoded.pixels.shape, decoded.pixels.dtype)
    # Channel by channel: three times as fast as all at once for separate planes.
    for channel in range(pixels.shape[-1]):
        pixels[..., channel] = decoded.pixels[..., channel]
    return decoded._replace(pixels=pixels)


def default_limit() -> int:
    """Return 1 GiB, or an eighth of the machine's memory if that is less."""
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not on Windows
        return GIB
    return min(GIB, memory // 8)


_cache = TileCache(default_limit())


def tile_cache() -> TileCache:
    """Return the tile cache of the process; its `limit` may be set."""
    return _cache
