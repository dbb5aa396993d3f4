"""One level of a pyramid: a grid of stored tiles that reads as an array ``(h, w, c)``.

Invariants: pixels come only through tiles, so every read is metered in the same way; tiles lie on
a regular grid, whose first row and column may be cut by `tile_offset` (a flipped image's are).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from hrviewer.errors import HrviewerError, ImageReadError, short_message
from hrviewer.pyramid.indexing import array_from, index_window
from hrviewer.pyramid.read_cost import ReadMeter
from hrviewer.pyramid.tile_cache import DecodedTile, Tile, TileKey, tile_cache

__all__ = ["Level", "Mask", "Pixels"]

Pixels = np.ndarray[Any, np.dtype[Any]]

Mask = np.ndarray[Any, np.dtype[np.bool_]]
"""``(h, w, c)``, or ``(h, w, 1)`` for all channels; False where there are no data."""

MAX_CHUNK_SIDE = 2048
"""Stored tiles wider than this (strips) are offered to zarr and dask as chunks of 512."""


class Level:
    """One level, read through its tiles; indexed like a NumPy array ``(h, w, c)``.

    Parameters
    ----------
    image_key : str
        Key of the image in the tile cache.
    name : str
        Name of the image, for messages.
    index : int
        0 is full resolution.
    shape : tuple of int
        ``(h, w, c)``.
    tile : tuple of int
        Stored tile size ``(h, w)``.
    downsample : tuple of float
        Level-0 pixels per pixel of this level, ``(y, x)``.
    dtype : numpy.dtype
        Pixel type.
    decode : callable
        Takes a tile's row and column and returns its pixels, clipped to the level.
    tile_offset : tuple of int
        Rows and columns by which the first tiles are cut.
    in_memory : bool
        Decoding is a mere slice, so the tile cache is bypassed.
    nodata : float, optional
        Pixel value that stands for "not measured", besides NaN.
    is_rgb : bool
        Whether the first three channels are red, green and blue: then a pixel has no data where
        all its channels have the value `nodata`, otherwise each channel counts for itself.
    fills_missing : bool
        Whether pixels without data get `missing_value`; otherwise they keep what is stored, as the
        colour that a palette gives them.

    Attributes
    ----------
    missing_value : float
        Value of pixels without data: `nodata`, else NaN in floats, white in colours, and 0.

    Examples
    --------
    >>> level = hrviewer.open("slide.tif").levels[0]
    >>> level.shape
    (4096, 3072, 3)
    >>> level[1024:1280, 512:768].shape
    (256, 256, 3)
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
        nodata: float | None = None,
        is_rgb: bool = False,
        fills_missing: bool = True,
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
        self.is_rgb = is_rgb
        self.fills_missing = fills_missing
        self.nodata = nodata if nodata is not None and _fits(nodata, dtype) else None
        self.missing_value = _missing_value(self.nodata, dtype, is_rgb)

    def __repr__(self) -> str:
        height, width, channels = self.shape
        return f"<Level {self.index}: {height} × {width} × {channels}, {self.dtype}>"

    @property
    def ndim(self) -> int:
        """Number of axes: 3."""
        return 3

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tiles."""
        (h, w, _), (th, tw), (ly, lx) = self.shape, self.tile, self.tile_offset
        return -(-(h + ly) // th), -(-(w + lx) // tw)

    @property
    def chunks(self) -> tuple[int, int, int]:
        """Chunk shape ``(h, w, c)`` for zarr and dask."""
        th, tw = self.tile
        if tw > MAX_CHUNK_SIDE or th > MAX_CHUNK_SIDE:
            th, tw = min(th, 512), min(tw, 512)
        return th, tw, self.shape[2]

    def __getitem__(self, key: Any) -> np.ndarray[Any, np.dtype[Any]]:
        """Read the window that a NumPy index covers: integers, slices and ``...``."""
        (y0, y1, x0, x1), inner = index_window(key, self.shape)
        return np.asarray(self.read(y0, y1, x0, x1)[inner])

    def __array__(
        self, dtype: Any = None, copy: bool | None = None
    ) -> np.ndarray[Any, np.dtype[Any]]:
        """Read the whole level, up to `MAX_ARRAY_PIXELS`."""
        return array_from(self, dtype, copy, "levels[-1]")

    def tile_bounds(self, row: int, column: int) -> tuple[int, int, int, int]:
        """Return the bounds of a tile, ``(y0, y1, x0, x1)`` in this level's pixels."""
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
        meter : ReadMeter, optional
            Adds up what the tiles cost.

        Returns
        -------
        numpy.ndarray
            ``(y1 - y0, x1 - x0, c)``, a copy.

        Raises
        ------
        ValueError
            If the window leaves the level.
        ImageReadError
            If a tile cannot be decoded.
        """
        return self.read_as_tile(y0, y1, x0, x1, meter=meter).pixels

    def read_masked(
        self, y0: int, y1: int, x0: int, x1: int, *, meter: ReadMeter | None = None
    ) -> tuple[Pixels, Mask | None]:
        """Return a window and where it has data.

        Parameters
        ----------
        y0, y1, x0, x1, meter
            See `read`.

        Returns
        -------
        pixels : numpy.ndarray
            As from `read`.
        mask : numpy.ndarray of bool or None
            ``(h, w, c)``, or ``(h, w, 1)`` for all channels; None if there are data everywhere.
        """
        window = self.read_as_tile(y0, y1, x0, x1, meter=meter)
        return window.pixels, self.mask_of(window.pixels, window.valid)

    def mask_of(
        self, pixels: Pixels, valid: np.ndarray[Any, np.dtype[np.bool_]] | None
    ) -> Mask | None:
        """Return where pixels ``(h, w, c)`` have data, given the mask of their tiles."""
        mask: Mask | None = None if valid is None else valid[..., None]
        if self.nodata is not None:
            measured = pixels != self.dtype.type(self.nodata)
            if self.is_rgb:
                measured = measured.any(axis=2, keepdims=True)
            mask = measured if mask is None else mask & measured
        if self.dtype.kind == "f":
            unknown = np.isnan(pixels)
            if unknown.any():
                mask = ~unknown if mask is None else mask & ~unknown
        return None if mask is None or mask.all() else mask

    def read_as_tile(
        self, y0: int, y1: int, x0: int, x1: int, *, meter: ReadMeter | None = None
    ) -> DecodedTile:
        """Return a window in the form of one tile, with the mask of its tiles, ``(h, w)``.

        Pixels of the value `nodata` and NaN are not marked; `mask_of` adds them.
        """
        h, w, c = self.shape
        if not (0 <= y0 <= y1 <= h and 0 <= x0 <= x1 <= w):
            raise ValueError(
                f"rows {y0}:{y1}, columns {x0}:{x1} leave level {self.index}, {h} × {w}"
            )
        out = np.empty((y1 - y0, x1 - x0, c), self.dtype)
        valid: np.ndarray[Any, np.dtype[np.bool_]] | None = None
        if out.size == 0:
            return DecodedTile(out, 0)
        for key in self.tiles(y0, y1, x0, x1):
            tile = self.load_tile(key, meter)
            top, bottom, left, right = self.tile_bounds(key.row, key.column)
            a, b, c0, c1 = max(top, y0), min(bottom, y1), max(left, x0), min(right, x1)
            inside = np.s_[a - top : b - top, c0 - left : c1 - left]
            at = np.s_[a - y0 : b - y0, c0 - x0 : c1 - x0]
            out[at] = tile.pixels[inside]
            if tile.valid is not None:
                if valid is None:
                    valid = np.ones(out.shape[:2], bool)
                valid[at] = tile.valid[inside]
        return DecodedTile(out, 0, valid=valid)

    def load_tile(self, key: TileKey, meter: ReadMeter | None = None) -> Tile:
        """Return one tile, read-only and clipped to the level."""

        def decode() -> DecodedTile:
            top, bottom, left, right = self.tile_bounds(key.row, key.column)
            decoded = self._decode(key.row, key.column)
            expected = (bottom - top, right - left, self.shape[2])
            if decoded.pixels.shape != expected:
                raise ValueError(f"it holds {decoded.pixels.shape} pixels instead of {expected}")
            if decoded.valid is None or not self.fills_missing or decoded.valid.all():
                return decoded
            known = decoded.valid[..., None]
            pixels = np.where(known, decoded.pixels, self.dtype.type(self.missing_value))
            return decoded._replace(pixels=pixels)

        start = time.perf_counter()
        try:
            tile = Tile.load(decode) if self._in_memory else tile_cache().get(key, decode)
            self._decoded = True
        except HrviewerError:
            raise
        except Exception as error:
            unsupported = isinstance(error, (ImportError, NotImplementedError))
            cause = "this coding is not supported" if unsupported else "the file is damaged"
            raise ImageReadError(
                f"{self.name}: tile ({key.row}, {key.column}) of level {self.index} cannot be "
                f"decoded: {short_message(error)}; {cause}"
            ) from error
        if meter is not None:
            height, width, _ = tile.pixels.shape
            elapsed = time.perf_counter() - start
            meter.charge(key, tile.seconds, tile.bytes, height * width, elapsed)
        return tile

    def cached_tile(self, key: TileKey) -> Tile | None:
        """Return one tile if it is available without decoding or waiting."""
        if not self._in_memory:
            return tile_cache().get_cached(key)
        # An image without tiles is decoded as a whole by its first read; then this is a slice.
        return self.load_tile(key) if self._decoded else None


def _fits(value: float, dtype: np.dtype[Any]) -> bool:
    """Whether a pixel may have a value; NaN is no value of its own."""
    if dtype.kind not in "ui":
        return not math.isnan(value)
    limits = np.iinfo(dtype)
    return bool(limits.min <= value <= limits.max and value == int(value))


def _missing_value(nodata: float | None, dtype: np.dtype[Any], is_rgb: bool) -> float:
    if nodata is not None:
        return nodata
    if dtype.kind == "f":
        return math.nan
    return float(np.iinfo(dtype).max) if is_rgb and dtype.kind == "u" else 0.0
