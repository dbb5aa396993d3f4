"""NumPy indexing and conversion for images that are read window by window."""

from __future__ import annotations

from operator import index
from typing import Any, Protocol

import numpy as np

from hrviewer.errors import ParameterError

__all__ = ["MAX_ARRAY_PIXELS", "array_from", "index_window"]

MAX_ARRAY_PIXELS = 64_000_000
"""Pixels; a larger level is not converted into one array."""

Window = tuple[int, int, int, int]


class _Indexable(Protocol):
    @property
    def shape(self) -> tuple[int, int, int]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def __getitem__(self, key: Any) -> np.ndarray[Any, np.dtype[Any]]: ...


def index_window(key: Any, shape: tuple[int, int, int]) -> tuple[Window, tuple[int | slice, ...]]:
    """Split a NumPy index of an array ``(h, w, c)`` into a window and an index within it.

    Parameters
    ----------
    key : int, slice, Ellipsis or a tuple of them
        Negative numbers count from the end, as in NumPy; slices may have a step.
    shape : tuple of int
        ``(h, w, c)``.

    Returns
    -------
    window : tuple of int
        ``(y0, y1, x0, x1)``, the smallest window that holds all indexed pixels.
    inner : tuple of int and slice
        The index to apply to the window's pixels.

    Raises
    ------
    IndexError
        If it has too many axes, leaves the array, or is no integer, slice or ``...``.
    """
    keys = key if isinstance(key, tuple) else (key,)
    if any(k is Ellipsis for k in keys):
        at = next(i for i, k in enumerate(keys) if k is Ellipsis)
        missing = len(shape) - (len(keys) - 1)
        keys = keys[:at] + (slice(None),) * missing + keys[at + 1 :]
    if len(keys) > len(shape):
        raise IndexError(f"an image has 3 axes (y, x, channel), not {len(keys)}")
    keys += (slice(None),) * (len(shape) - len(keys))
    parts = [_index_axis(k, size) for k, size in zip(keys, shape, strict=True)]
    (y0, y1, rows), (x0, x1, columns), (c0, c1, channels) = parts
    if isinstance(channels, int):
        return (y0, y1, x0, x1), (rows, columns, c0)
    shifted = range(c0, c1)[channels]
    stop = shifted.stop if shifted.stop >= 0 else None
    return (y0, y1, x0, x1), (rows, columns, slice(shifted.start, stop, shifted.step))


def _index_axis(key: Any, size: int) -> tuple[int, int, int | slice]:
    """Return the range of an axis that an index covers, and the index within that range."""
    if isinstance(key, slice):
        chosen = range(size)[key]
        if not chosen:
            return 0, 0, slice(0, 0)
        first, last = min(chosen[0], chosen[-1]), max(chosen[0], chosen[-1])
        return first, last + 1, slice(None, None, chosen.step)
    try:
        at = index(key)
    except TypeError:
        raise IndexError(
            f"only integers, slices and ... index an image, not {key!r}: read a rectangle first"
        ) from None
    if not -size <= at < size:
        raise IndexError(f"index {at} is out of bounds for an axis of {size}")
    return at % size, at % size + 1, 0


def array_from(
    image: _Indexable, dtype: Any, copy: bool | None, coarser: str
) -> np.ndarray[Any, np.dtype[Any]]:
    """Return all pixels, for ``__array__``.

    Parameters
    ----------
    image : Level or Pyramid
        The image to convert.
    dtype, copy
        As NumPy passes them.
    coarser : str
        Expression for a smaller image, for the message.

    Raises
    ------
    HrviewerError
        If there are more than `MAX_ARRAY_PIXELS`.
    """
    height, width, _ = image.shape
    if copy is False:
        raise ValueError("an image is decoded into a new array: copy=False is not possible")
    if height * width > MAX_ARRAY_PIXELS:
        raise ParameterError(
            f"{height:,} × {width:,} pixels are too many for one array (at most "
            f"{MAX_ARRAY_PIXELS // 10**6} megapixels): read a rectangle, slice it, or use {coarser}"
        )
    return np.asarray(image[...], dtype)
