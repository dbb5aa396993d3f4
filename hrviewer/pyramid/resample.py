"""Area averaging, and padding beyond an image's border.

Output pixel *i* is the mean of the source over ``[edge[i], edge[i + 1])``; a source pixel that
is partly inside counts in part. Integers are rounded half up; NaN is left out of a mean, and is the
result where all values are NaN.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

__all__ = [
    "Fill",
    "area_weights",
    "block_mean",
    "border_indices",
    "cast_rounded",
    "edges",
    "finish_means",
    "masked_block_mean",
]

Fill = Literal["reflect", "edge"] | float
"""Padding beyond the border: reflected, the last pixel, or a constant."""

Floats = np.ndarray[Any, np.dtype[np.float64]]
Integers = np.ndarray[Any, np.dtype[np.intp]]
Pixels = np.ndarray[Any, np.dtype[Any]]


def edges(start: float, stop: float, step: float, first: int, last: int) -> Floats:
    """Return the bounds of output pixels `first` to `last` (not included) on a lattice.

    The lattice begins at `start` and advances by `step`; its last pixel ends at `stop`.
    """
    bounds: Floats = np.minimum(start + np.arange(first, last + 1) * step, stop)
    return bounds


def area_weights(bounds: Floats, low: int, high: int) -> Any:
    """Return the part of source pixel ``low + j`` that lies in output pixel *i*.

    Parameters
    ----------
    bounds : numpy.ndarray
        The ``n + 1`` bounds of *n* output pixels, in source pixels, ascending.
    low, high : int
        Range of source pixels.

    Returns
    -------
    scipy.sparse.csr_array
        ``(n, high - low)``.
    """
    from scipy.sparse import csr_array

    # Bounds are sums and quotients of floats; one that is a whole number but for its last
    # digits must not touch the next pixel.
    rounded = np.round(bounds)
    bounds = np.where(np.abs(bounds - rounded) < 1e-7, rounded, bounds)
    start, stop = bounds[:-1], bounds[1:]
    first = np.clip(np.floor(start).astype(np.intp), low, high)
    last = np.clip(np.ceil(stop).astype(np.intp), first, high)
    counts = last - first
    offsets = np.concatenate([[0], np.cumsum(counts)])
    row = np.repeat(np.arange(len(counts)), counts)
    column = np.arange(offsets[-1]) - offsets[row] + first[row]
    part = np.minimum(stop[row], column + 1) - np.maximum(start[row], column)
    return csr_array((part, column - low, offsets), shape=(len(counts), high - low))


def block_mean(pixels: Pixels, size: int) -> Pixels:
    """Return the means of ``size × size`` blocks; those at the far edges may be smaller.

    Exact for integers, and about as fast as memory allows.
    """
    if size == 1:
        return pixels
    if pixels.dtype.kind == "f":
        valid = ~np.isnan(pixels)
        sums = _sum_runs(_sum_runs(np.where(valid, pixels, 0), size, 0, "f8"), size, 1, "f8")
        counts = _sum_runs(_sum_runs(valid, size, 0, "f8"), size, 1, "f8")
        with np.errstate(invalid="ignore"):
            return cast_rounded(sums / np.where(counts > 0, counts, np.nan), pixels.dtype)
    largest = int(np.iinfo(pixels.dtype).max)
    total = np.dtype("i8")
    if pixels.dtype.kind == "u":
        total = np.min_scalar_type(min(2 * (largest + 1) * size * size, 2**64 - 1))
    sums = _sum_runs(_sum_runs(pixels, size, 0, total), size, 1, total)
    h, w, _ = pixels.shape
    rows = np.diff(np.append(np.arange(0, h, size), h))
    columns = np.diff(np.append(np.arange(0, w, size), w))
    counts = (rows[:, None, None] * columns[None, :, None]).astype(total)
    # floor(sum / count + 1/2), without leaving the integers
    sums *= 2
    sums += counts
    sums //= 2 * counts
    return sums.astype(pixels.dtype)


def masked_block_mean(
    pixels: Pixels, mask: np.ndarray[Any, np.dtype[np.bool_]], size: int, missing: float
) -> tuple[Pixels, np.ndarray[Any, np.dtype[np.float32]]]:
    """Return the means of ``size × size`` blocks over the pixels that have data.

    Parameters
    ----------
    pixels : numpy.ndarray
        ``(h, w, c)``.
    mask : numpy.ndarray of bool
        ``(h, w, c)`` or ``(h, w, 1)``, False where there are no data.
    size : int
        Side of a block.
    missing : float
        Mean of a block without data.

    Returns
    -------
    means : numpy.ndarray
        In the dtype of `pixels`.
    coverage : numpy.ndarray of float32
        ``(h, w)`` of the means: the part of each block with data in any channel.
    """
    known = np.asarray(mask.any(axis=2, keepdims=True), np.float32)
    coverage = block_mean(known, size)[..., 0]
    if size == 1:
        return pixels, coverage
    means = block_mean(np.where(mask, pixels, np.nan).astype(np.float64), size)
    return finish_means(means, pixels.dtype, missing), coverage


def finish_means(means: Floats, dtype: np.dtype[Any], missing: float) -> Pixels:
    """Return means as `dtype`: NaN becomes `missing`, which no other mean may be."""
    unknown = np.isnan(means)
    if dtype.kind not in "ui":
        return np.where(unknown, missing, means).astype(dtype)
    rounded = cast_rounded(np.where(unknown, 0, means), dtype)
    if unknown.any():
        nearest = int(missing) + (1 if missing < np.iinfo(dtype).max else -1)
        rounded[rounded == missing] = nearest
        rounded[unknown] = missing
    return rounded


def _sum_runs(pixels: Pixels, size: int, axis: int, total: Any) -> Pixels:
    """Sum each run of `size` pixels along an axis; the last run may be shorter."""
    runs = -(-pixels.shape[axis] // size)
    shape = list(pixels.shape)
    shape[axis] = runs
    sums = np.zeros(shape, total)
    for offset in range(min(size, pixels.shape[axis])):
        if axis == 0:
            part = pixels[offset::size]
            sums[: len(part)] += part
        else:
            part = pixels[:, offset::size]
            # One channel at a time: NumPy's inner loop runs along the row, not over 3 values.
            for channel in range(pixels.shape[2]):
                sums[:, : part.shape[1], channel] += part[..., channel]
    return sums


def cast_rounded(means: Floats, dtype: np.dtype[Any]) -> Pixels:
    """Return means as `dtype`, integers rounded half up."""
    if dtype.kind not in "ui":
        return means.astype(dtype)
    limits = np.iinfo(dtype)
    # Sums of fractional parts are off by a few last digits: a half must still count as one.
    means = np.floor(means + (0.5 + 1e-9))
    return np.clip(means, limits.min, limits.max).astype(dtype)


def border_indices(low: int, high: int, size: int, fill: str) -> Integers:
    """Return the index of the source pixel, of `size`, at each position from `low` to `high`."""
    at = np.arange(low, high)
    if fill == "edge" or size == 1:
        return np.clip(at, 0, size - 1)
    period = 2 * (size - 1)
    at = at % period
    return np.minimum(at, period - at)
