"""Area means of a rectangle at a scale, computed from one level, block by block.

Pixels without data are left out of every mean. With the means comes the coverage: the part of each
output pixel that has data in any channel, None where that is all of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np

from hrviewer.geometry import Grid, Rect
from hrviewer.pyramid.level import Level, Mask, Pixels
from hrviewer.pyramid.read_cost import ReadMeter
from hrviewer.pyramid.resample import (
    Fill,
    area_weights,
    block_mean,
    border_indices,
    edges,
    finish_means,
    masked_block_mean,
)

__all__ = ["Coverage", "area_windows", "pixel_range", "read_area"]

BLOCK_PIXELS = 2_000_000
"""Source pixels that are averaged at once: as floats they still fit a processor's cache."""

MAX_AREA_SOURCE = 16_000_000
"""Pixels; in a larger rectangle the area with data is measured on a coarser level."""

AREA_WINDOW, AREA_WINDOWS = 512, 256
"""Side and number of the windows on which it is measured where there is no coarser level."""

Coverage = np.ndarray[Any, np.dtype[np.float32]]
"""``(h, w)``, the part of each pixel that has data, 0 to 1."""


def read_area(
    level: Level, rect: Rect, scale: float, fill: Fill | None, meter: ReadMeter | None
) -> tuple[Pixels, Coverage | None]:
    """Return a rectangle of level-0 pixels at a scale; see `Pyramid.read`."""
    if scale == 1 and level.index == 0 and fill is None:
        pixels, mask = level.read_masked(rect.y, rect.y1, rect.x, rect.x1, meter=meter)
        return pixels, None if mask is None else np.asarray(mask.any(axis=2), np.float32)
    shape = _output_length(rect.h, scale), _output_length(rect.w, scale)
    out = np.empty((*shape, level.shape[2]), level.dtype)
    coverage: Coverage | None = None
    for rows, columns in _blocks(*shape, scale, level):
        means, part = _read_block(rect, scale, level, rows, columns, fill, meter)
        out[rows, columns] = means
        if part is not None:
            if coverage is None:
                coverage = np.ones(shape, np.float32)
            coverage[rows, columns] = part
    return out, coverage


def area_windows(levels: Sequence[Level], rect: Rect) -> tuple[list[Rect], float]:
    """Return windows on which the area with data is measured, and the scale to read them at."""
    limit = 2 * max(0.5, math.sqrt(rect.area / MAX_AREA_SOURCE)) * 1.001
    fine = [level for level in levels if max(level.downsample) <= limit]
    level = fine[-1] if fine else levels[0]
    if rect.area / math.prod(level.downsample) <= 4 * MAX_AREA_SOURCE:
        return [rect], max(level.downsample)
    grid = Grid(rect, AREA_WINDOW)
    chosen = np.unique(np.linspace(0, len(grid) - 1, AREA_WINDOWS).round().astype(int))
    return [grid[divmod(int(i), grid.shape[1])] for i in chosen], 1.0


def pixel_range(low: float, high: float, size: int | None) -> tuple[int, int]:
    """Return the range of whole pixels that an interval touches, within `size`."""
    first, last = math.floor(low + 1e-7), math.ceil(high - 1e-7)
    last = max(last, first + 1)
    return (first, last) if size is None else (min(max(first, 0), size - 1), min(last, size))


def _read_block(
    rect: Rect,
    scale: float,
    level: Level,
    rows: slice,
    columns: slice,
    fill: Fill | None,
    meter: ReadMeter | None,
) -> tuple[Pixels, Coverage | None]:
    """Return one block of an output array, and its coverage."""
    (dy, dx), (h, w, _) = level.downsample, level.shape
    ys = edges(rect.y, rect.y1, scale, rows.start, rows.stop) / dy
    xs = edges(rect.x, rect.x1, scale, columns.start, columns.stop) / dx
    y0, y1 = pixel_range(ys[0], ys[-1], h if fill is None else None)
    x0, x1 = pixel_range(xs[0], xs[-1], w if fill is None else None)

    def source(a: int, b: int) -> tuple[Pixels, Mask | None]:
        if fill is None:
            return level.read_masked(a, b, x0, x1, meter=meter)
        return _read_with_fill(level, (a, b, x0, x1), fill, meter)

    block = scale if dy == dx == 1 else scale / dy
    exact = dy == dx and y0 == ys[0] and x0 == xs[0] and block == round(block)
    small = (y1 - y0) * (x1 - x0) <= 2 * BLOCK_PIXELS
    if exact and small and (block == 1 or dy == 1):
        pixels, mask = source(y0, y1)
        if mask is None:
            return block_mean(pixels, round(block)), None
        return masked_block_mean(pixels, mask, round(block), level.missing_value)
    wx = area_weights(xs, x0, x1)
    total: Any = 0.0
    area: Any = 0.0
    whole: Any = 0.0
    complete = True
    # One output pixel may cover more than a block, so its source is summed in bands.
    for a, b in _spans(y0, y1, max(1, BLOCK_PIXELS // (x1 - x0))):
        wy = area_weights(ys, a, b)
        pixels, mask = source(a, b)
        band = (wy.sum(axis=1)[:, None] * wx.sum(axis=1)[None, :])[..., None]
        whole = whole + band
        if mask is None:
            total = total + _weighted_sum(wy, pixels, wx)
            area = area + band
        else:
            complete = False
            total = total + _weighted_sum(wy, np.where(mask, pixels, 0), wx)
            area = area + _weighted_sum(wy, np.broadcast_to(mask, pixels.shape), wx)
    with np.errstate(invalid="ignore"):
        means = total / np.where(area > 0, area, np.nan)
    coverage = None if complete else (area / whole).max(axis=2).astype(np.float32)
    return finish_means(means, level.dtype, level.missing_value), coverage


def _read_with_fill(
    level: Level, window: tuple[int, int, int, int], fill: Fill, meter: ReadMeter | None
) -> tuple[Pixels, Mask | None]:
    """Return a window of a level, filled where it lies beyond the border, and its mask."""
    y0, y1, x0, x1 = window
    h, w, c = level.shape
    if min(y0, x0) >= 0 and y1 <= h and x1 <= w:
        return level.read_masked(*window, meter=meter)
    if isinstance(fill, str):
        rows, columns = border_indices(y0, y1, h, fill), border_indices(x0, x1, w, fill)
        top, left = int(rows.min()), int(columns.min())
        pixels, mask = level.read_masked(
            top, int(rows.max()) + 1, left, int(columns.max()) + 1, meter=meter
        )
        rows, columns = rows - top, columns - left
        return pixels[rows][:, columns], None if mask is None else mask[rows][:, columns]
    if level.dtype.kind in "ui" and not (
        float(fill).is_integer() and np.iinfo(level.dtype).min <= fill <= np.iinfo(level.dtype).max
    ):
        raise ValueError(f"{fill} does not fit {level.dtype}")
    out = np.full((y1 - y0, x1 - x0, c), fill, level.dtype)
    known: Mask | None = None
    a, b, left, right = max(y0, 0), min(y1, h), max(x0, 0), min(x1, w)
    if a < b and left < right:
        pixels, mask = level.read_masked(a, b, left, right, meter=meter)
        out[a - y0 : b - y0, left - x0 : right - x0] = pixels
        if mask is not None:
            known = np.ones((*out.shape[:2], mask.shape[2]), bool)
            known[a - y0 : b - y0, left - x0 : right - x0] = mask
    return out, known


def _blocks(height: int, width: int, scale: float, level: Level) -> Iterator[tuple[slice, slice]]:
    """Yield blocks of an output array whose source is small."""
    per_row, per_column = (scale / d for d in level.downsample)
    columns = _block_length(width, math.sqrt(2 * BLOCK_PIXELS) / per_column)
    rows = _block_length(height, BLOCK_PIXELS / (columns * per_column * per_row))
    return product(_slices(height, rows), _slices(width, columns))


def _output_length(length: int, scale: float) -> int:
    return max(1, math.ceil(length / scale - 1e-9))


def _block_length(length: int, wanted: float) -> int:
    return min(length, max(1, int(wanted)))


def _spans(start: int, stop: int, step: int) -> Iterator[tuple[int, int]]:
    return ((a, min(a + step, stop)) for a in range(start, stop, step))


def _slices(length: int, step: int) -> list[slice]:
    return [slice(a, b) for a, b in _spans(0, length, step)]


def _weighted_sum(wy: Any, pixels: Pixels, wx: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the weighted sum along rows, then along columns."""
    h, w, c = pixels.shape
    rows = wy @ pixels.reshape(h, w * c).astype(np.float64)
    columns = rows.reshape(-1, w, c).transpose(1, 0, 2).reshape(w, -1)
    result = (wx @ columns).reshape(-1, wy.shape[0], c).transpose(1, 0, 2)
    return np.asarray(result)
