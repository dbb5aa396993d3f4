"""A pyramid level as the array that a napari layer holds.

Invariant: indexing it or making an array of it returns the image's exact pixels, and waits for
them. The one exception is napari's slicing of a layer that is refreshed
(`layer_refresh.auto_refresh`): it gets at once what is loaded, and slices again when there is more.
napari hands its slicing the very object that plugins take from ``layer.data``, so the two are
distinguished by the calling module, as napari itself does for its proxies; an unknown caller gets
exact pixels. The engine never reads from here: it has the pyramid.
"""

from __future__ import annotations

import copy
import math
import sys
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hrviewer.viewer.image.tile_loader import TileLoader, Window

__all__ = ["Axes", "CoarsestLevel", "LazyLevel", "transpose"]

Axes = Literal["yx", "yxc"]

SLICING_MODULE = "napari.layers._scalar_field"
"""Modules in which napari slices image layers."""


class LazyLevel:
    """One level.

    Parameters
    ----------
    loader : TileLoader
        Of the image.
    index : int
        Which level; it need not have been built yet.
    axes : {"yx", "yxc"}
        One channel, or a colour image.
    """

    def __init__(self, loader: TileLoader, index: int, axes: Axes) -> None:
        self.loader, self._index, self._axes = loader, index, axes
        h, w, c = self._size()
        self.shape: tuple[int, ...] = transposed_shape((h, w, c), axes)
        self.dtype = np.dtype(loader.pyramid.dtype)
        self.ndim = len(self.shape)
        self.size = math.prod(self.shape)
        # napari loads whole chunks around what is visible: pans inside them cost nothing.
        levels = loader.pyramid.levels
        side = max(256, min(1024, *levels[min(index, len(levels) - 1)].tile))
        self.chunks: tuple[int, ...] = transposed_shape((side, side, c), axes)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        return self._read(
            key, available_only=self.loader.progressive and called_by_napari_slicing()
        )

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        at_once = self.loader.progressive and called_by_napari_slicing()
        return np.asarray(self._read((), available_only=at_once), dtype)

    def compute(self) -> NDArray[Any]:
        """Return all of the level's own pixels, as dask's arrays do."""
        return self._read((), available_only=False)

    def __deepcopy__(self, memo: dict[int, Any]) -> LazyLevel:
        return type(self)(copy.deepcopy(self.loader, memo), self._index, self._axes)

    def _read(self, key: Any, *, available_only: bool) -> NDArray[Any]:
        key = key if isinstance(key, tuple) else (key,)
        if Ellipsis in key:
            at = key.index(Ellipsis)
            gap = self.ndim - len(key) + 1
            key = (*key[:at], *[slice(None)] * gap, *key[at + 1 :])
        key = (*key, *[slice(None)] * (self.ndim - len(key)))
        first = self._axes.index("y")
        rows, columns = (index_range(key[i], self.shape[i]) for i in (first, first + 1))
        pixels = transpose(self._read_window((*rows, *columns), available_only), self._axes)
        rest = [*key]
        for i in (first, first + 1):
            rest[i] = slice(None, None, key[i].step) if isinstance(key[i], slice) else 0
        return np.asarray(pixels[tuple(rest)])

    def _size(self) -> tuple[int, int, int]:
        return self.loader.shapes[self._index]

    def _read_window(self, window: Window, available_only: bool) -> NDArray[Any]:
        read = self.loader.read_available if available_only else self.loader.read_exact
        return read(self._index, window)


class CoarsestLevel(LazyLevel):
    """The level that napari loads whole and keeps: a view of an array that is filled in place."""

    def _size(self) -> tuple[int, int, int]:
        h, w, c = self.loader.coarsest.shape
        return h, w, c

    def _read_window(self, window: Window, available_only: bool) -> NDArray[Any]:
        if not available_only:
            self.loader.load_coarsest()
        elif not self.loader.coarsest_loaded:
            self.loader.start_coarsest()
        y0, y1, x0, x1 = window
        return self.loader.coarsest[y0:y1, x0:x1]


def called_by_napari_slicing() -> bool:
    """Return whether napari's slicing called the array's method."""
    return str(sys._getframe(2).f_globals.get("__name__", "")).startswith(SLICING_MODULE)


def transposed_shape(shape: tuple[int, int, int], axes: Axes) -> tuple[int, ...]:
    """Return ``(h, w, c)`` in the order of `axes`."""
    sizes = dict(zip("yxc", shape, strict=True))
    return tuple(sizes[axis] for axis in axes)


def transpose(pixels: NDArray[Any], axes: Axes) -> NDArray[Any]:
    """Return pixels ``(h, w, c)`` in the order of `axes`."""
    return pixels[..., 0] if axes == "yx" else pixels


def index_range(key: Any, length: int) -> tuple[int, int]:
    """Return the rows or columns that an index needs."""
    if isinstance(key, slice):
        start, stop, step = key.indices(length)
        if step < 0:
            raise IndexError("levels are not read backwards")
        return start, max(start, stop)
    index = int(key) % length
    return index, index + 1
