"""One level of a pyramid: a grid of stored tiles that reads as an array ``(h, w, c)``.

Invariants: pixels come only through tiles, so every look is metered the same way; tiles lie on
a regular grid, of which the first row and column may be cut by `lead` (a flipped image's are).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from hrviewer.errors import HrviewerError, short_message
from hrviewer.pyramid.read_cost import ReadMeter
from hrviewer.pyramid.tile_cache import DecodedTile, Tile, TileKey, tile_cache

if TYPE_CHECKING:
    import zarr

__all__ = ["Level"]

MAX_CHUNK_SIDE = 2048
"""Stored tiles wider than this (strips) are offered to zarr and dask as chunks of 512."""


class Level:
    """One level, read through its tiles.

    Parameters
    ----------
    image_key : str
        What the tiles are filed under in the cache.
    name : str
        The image's name, for messages.
    index : int
        0 is full resolution.
    shape : tuple of int
        ``(h, w, c)``.
    tile : tuple of int
        A stored tile's ``(h, w)``.
    downsample : tuple of float
        Level-0 pixels per pixel of this level, ``(y, x)``.
    dtype : numpy.dtype
        Of the pixels.
    decode : callable
        Takes a tile's row and column and returns its pixels, clipped to the level.
    tile_offset : tuple of int
        Rows and columns by which the first tiles are cut.
    in_memory : bool
        Decoding is a mere slice: the cache is left to others.
    """

    def __init__(
        self,
        image_key: str,
        name: str,
        index: int,
        shape: tuple[int, int, int],
        tile: tuple[int, int],
        downsample: tuple[float, float],
        dtype: np.dtype[Any],
        decode: Callable[[int, int], DecodedTile],
        tile_offset: tuple[int, int] = (0, 0),
        in_memory: bool = False,
    ) -> None:
        self.image_key = image_key
        self.name = name
        self.index = index
        self.shape = shape
        self.tile = tile
        self.downsample = downsample
        self.dtype = dtype
        self.tile_offset = tile_offset
        self._decode = decode
        self._in_memory = in_memory
        self._decoded = False

    def __repr__(self) -> str:
        height, width, channels = self.shape
        return f"<Level {self.index}: {height} × {width} × {channels}, {self.dtype}>"

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tiles."""
        (h, w, _), (th, tw), (ly, lx) = self.shape, self.tile, self.tile_offset
        return -(-(h + ly) // th), -(-(w + lx) // tw)

    @property
    def chunks(self) -> tuple[int, int, int]:
        """How zarr and dask cut this level, ``(h, w, c)``."""
        th, tw = self.tile
        if tw > MAX_CHUNK_SIDE or th > MAX_CHUNK_SIDE:
            th, tw = min(th, 512), min(tw, 512)
        return th, tw, self.shape[2]

    def tile_bounds(self, row: int, column: int) -> tuple[int, int, int, int]:
        """Return what a tile covers, ``(y0, y1, x0, x1)`` in this level's pixels."""
        (h, w, _), (th, tw), (ly, lx) = self.shape, self.tile, self.tile_offset
        y, x = row * th - ly, column * tw - lx
        return max(y, 0), min(y + th, h), max(x, 0), min(x + tw, w)

    def tiles(self, y0: int, y1: int, x0: int, x1: int) -> Iterator[TileKey]:
        """Yield the tiles that a window inside this level touches, in reading order."""
        (th, tw), (ly, lx) = self.tile, self.tile_offset
        for row in range((y0 + ly) // th, -(-(y1 + ly) // th)):
            for column in range((x0 + lx) // tw, -(-(x1 + lx) // tw)):
                yield TileKey(self.image_key, self.index, row, column)

    def read(
        self, y0: int, y1: int, x0: int, x1: int, *, meter: ReadMeter | None = None
    ) -> np.ndarray[Any, np.dtype[Any]]:
        """Return the window ``[y0, y1) × [x0, x1)``, in this level's pixels.

        Parameters
        ----------
        y0, y1, x0, x1 : int
            The window; it must lie inside the level.
        meter : Meter, optional
            Who is charged.

        Returns
        -------
        numpy.ndarray
            ``(y1 - y0, x1 - x0, c)``, a copy.

        Raises
        ------
        ValueError
            If the window leaves the level.
        UserError
            If a tile cannot be decoded.
        """
        h, w, c = self.shape
        if not (0 <= y0 <= y1 <= h and 0 <= x0 <= x1 <= w):
            raise ValueError(
                f"rows {y0}:{y1}, columns {x0}:{x1} leave level {self.index}, {h} × {w}"
            )
        out = np.empty((y1 - y0, x1 - x0, c), self.dtype)
        if out.size == 0:
            return out
        for key in self.tiles(y0, y1, x0, x1):
            pixels = self.read_tile(key, meter)
            top, bottom, left, right = self.tile_bounds(key.row, key.column)
            a, b, c0, c1 = max(top, y0), min(bottom, y1), max(left, x0), min(right, x1)
            part = pixels[a - top : b - top, c0 - left : c1 - left]
            out[a - y0 : b - y0, c0 - x0 : c1 - x0] = part
        return out

    def read_tile(
        self, key: TileKey, meter: ReadMeter | None = None
    ) -> np.ndarray[Any, np.dtype[Any]]:
        """Return one tile's pixels, read-only and clipped to the level."""

        def decode() -> DecodedTile:
            top, bottom, left, right = self.tile_bounds(key.row, key.column)
            decoded = self._decode(key.row, key.column)
            expected = (bottom - top, right - left, self.shape[2])
            if decoded.pixels.shape != expected:
                raise ValueError(f"it holds {decoded.pixels.shape} pixels instead of {expected}")
            return decoded

        start = time.perf_counter()
        try:
            tile = Tile.load(decode) if self._in_memory else tile_cache().get(key, decode)
            self._decoded = True
        except HrviewerError:
            raise
        except Exception as error:
            raise HrviewerError(
                f"{self.name}: tile ({key.row}, {key.column}) of level {self.index} cannot be "
                f"decoded: {short_message(error)}; the file is damaged"
            ) from error
        if meter is not None:
            height, width, _ = tile.pixels.shape
            took = time.perf_counter() - start
            meter.charge(key, tile.seconds, tile.bytes, height * width, took)
        return tile.pixels

    def cached_tile(self, key: TileKey) -> np.ndarray[Any, np.dtype[Any]] | None:
        """Return one tile's pixels if they are there without decoding or waiting."""
        if not self._in_memory:
            tile = tile_cache().get_cached(key)
            return None if tile is None else tile.pixels
        # A picture is decoded as a whole when first looked at; from then on this is a slice.
        return self.read_tile(key) if self._decoded else None

    @cached_property
    def zarr(self) -> zarr.Array[Any]:
        """The level as a read-only zarr array ``(h, w, c)``, fed by the tile cache."""
        from hrviewer.pyramid.zarr_store import open_level

        return open_level(self)

    @cached_property
    def dask(self) -> Any:
        """The level as a dask array ``(h, w, c)``, fed by the tile cache."""
        import dask.array as da

        # A few tiles to a task: dask's cost per task is that of decoding a small tile.
        th, tw, c = self.chunks
        rows, columns = max(1, 1024 // th), max(1, 1024 // tw)
        chunks = (th * rows, tw * columns, c)
        return da.from_array(
            self.zarr, chunks=chunks, name=f"level-{self.image_key}-{self.index}", meta=np.empty(0)
        )
