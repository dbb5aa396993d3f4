"""A gigapixel image as a pyramid of levels, read lazily.

Invariants: every public coordinate is a level-0 pixel, ``(y, x)``, half-open; a read never
holds more than a bounded part of a level; reads may come from any thread.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from html import escape
from itertools import product
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from hrviewer.errors import HrviewerError
from hrviewer.geometry import Rect, RectLike, as_rect
from hrviewer.ground_truth import GroundTruth
from hrviewer.pyramid.indexing import array_from
from hrviewer.pyramid.level import Level
from hrviewer.pyramid.overviews import Overviews
from hrviewer.pyramid.read_cost import ReadMeter
from hrviewer.pyramid.resample import (
    Fill,
    area_weights,
    block_mean,
    border_indices,
    cast_rounded,
    edges,
)
from hrviewer.pyramid.tile_cache import TileKey
from hrviewer.pyramid.units import UNKNOWN_PIXEL_SIZE

if TYPE_CHECKING:
    from hrviewer.pyramid.readers.base import Reader

__all__ = ["Pyramid"]

BLOCK_PIXELS = 2_000_000
"""Source pixels that are averaged at once: as floats they still fit a processor's cache."""

SCALE_TOLERANCE = 1e-3
"""A level that is coarser than the scale by this fraction still serves it."""

THUMBNAIL_SIDE = 256
MAX_THUMBNAIL_SOURCE = 4096 * 4096
"""Pixels; a notebook shows no thumbnail of an image whose coarsest level is larger."""

Pixels = np.ndarray[Any, np.dtype[Any]]


class Pyramid:
    """A gigapixel image as levels, read lazily and from any thread.

    Made by `open_pyramid` (``hrviewer.open``); a context manager that closes the file. It is
    indexed like a NumPy array ``(h, w, c)`` at full resolution, and reads only what is indexed.

    Attributes
    ----------
    name : str
        Short name, for messages and titles.
    path : str or None
        File, folder or URL; None for arrays.
    levels : tuple of Level
        Level 0 (full resolution) first, the coarsest last.
    pixel_size : tuple of float or None
        Micrometres per pixel of level 0, ``(y, x)``; None where unknown.
    nodata : float or None
        Pixel value that stands for "not measured".
    fingerprint : str
        Identifies the image's content. Arrays of 256 MB or more and lazy arrays get a random
        token: results cached under it are not found again in another session.
    plane : dict
        Selected index of each axis beyond y, x and channel.
    selected_channels : tuple of int or None
        Selected channels, in their order; None for all.
    notes : list of str
        Assumptions made when the image was opened, for the user.
    synthetic_image : SyntheticImage or None
        The generator of a synthetic image, which knows its ground truth.

    Examples
    --------
    >>> image = hrviewer.open("slide.tif")
    >>> image.shape
    (4096, 3072, 3)
    >>> image[1024:1280, :256].shape
    (256, 256, 3)
    >>> image.read((0, 0, 4096, 3072), scale=16).shape
    (256, 192, 3)
    """

    def __init__(self, reader: Reader, pixel_size: tuple[float, float] | None = None) -> None:
        self._reader = reader
        self.name = reader.name
        self.path = reader.path
        self.pixel_size = pixel_size or reader.pixel_size
        self.nodata = reader.nodata
        self.fingerprint = reader.fingerprint
        self.plane = dict(reader.plane)
        self.selected_channels = reader.selected_channels
        self.notes = list(reader.notes)
        if pixel_size is not None:
            self.notes = [note for note in self.notes if note != UNKNOWN_PIXEL_SIZE]
        self.synthetic_image = reader.synthetic_image
        self._overviews = Overviews(reader)
        self.levels: tuple[Level, ...] = (*reader.levels, *self._overviews.available_levels())

    def __repr__(self) -> str:
        return f"<Pyramid {self.name}: {self._summary()}>"

    def _summary(self) -> str:
        height, width, channels = self.shape
        return f"{height} × {width} × {channels}, {self.dtype}, {len(self.levels)} levels"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of level 0."""
        return self.levels[0].shape

    @property
    def plane_shape(self) -> tuple[int, int]:
        """Height and width of level 0."""
        return self.levels[0].shape[:2]

    @property
    def ndim(self) -> int:
        """Number of axes: 3."""
        return 3

    @property
    def rect(self) -> Rect:
        """The whole image."""
        return Rect(0, 0, *self.plane_shape)

    @property
    def channels(self) -> int:
        """Number of channels; transparency is not one."""
        return self.levels[0].shape[2]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Pixel type."""
        return self.levels[0].dtype

    @property
    def image_key(self) -> str:
        """What identifies the pixels that are read: fingerprint, plane and channels."""
        return self.levels[0].image_key

    def __len__(self) -> int:
        """Return the number of rows, as for an array."""
        return self.levels[0].shape[0]

    def __getitem__(self, key: Any) -> Pixels:
        """Read what a NumPy index covers at full resolution; `levels` are indexed likewise."""
        return self.levels[0][key]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Pixels:
        """Read the whole image; one of more than 64 megapixels is refused."""
        return array_from(self, dtype, copy, "levels[-1]")

    def thumbnail(self, side: int = THUMBNAIL_SIDE) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Return a small version for display.

        Parameters
        ----------
        side : int
            Longer side in pixels, at most.

        Returns
        -------
        numpy.ndarray
            ``(h, w)`` in grey or ``(h, w, 3)`` in RGB, uint8. Other types than uint8 are
            stretched between their 1st and 99.8th percentile; of two or more than three
            channels the first is shown.
        """
        pixels = self.read(self.rect, max(1.0, max(self.plane_shape) / side))
        pixels = pixels if self.channels == 3 else pixels[..., 0]
        if pixels.dtype == np.uint8:
            return pixels
        values = pixels.astype(np.float64)
        finite = values[np.isfinite(values)]
        low, high = np.percentile(finite, (1, 99.8)) if finite.size else (0.0, 1.0)
        stretched = (values - low) / max(high - low, np.finfo(np.float64).tiny)
        return (np.nan_to_num(stretched).clip(0, 1) * 255).round().astype(np.uint8)

    def _repr_html_(self) -> str:
        """Return a thumbnail and the main facts, for notebooks."""
        facts = [self._summary()]
        if self.pixel_size is not None:
            facts.append(f"{self.pixel_size[0]:.4g} × {self.pixel_size[1]:.4g} µm per pixel")
        caption = f"<b>{escape(self.name)}</b><br>{escape(', '.join(facts))}"
        picture = ""
        if math.prod(self.levels[-1].shape[:2]) <= MAX_THUMBNAIL_SOURCE:
            try:
                png = _png(self.thumbnail())
            except HrviewerError as error:
                caption += f"<br>{escape(str(error))}"
            else:
                picture = f'<img src="data:image/png;base64,{png}" style="max-height:256px"><br>'
        return f"<div>{picture}{caption}</div>"

    def read(
        self,
        rect: RectLike,
        scale: float = 1.0,
        *,
        fill: Fill | None = None,
        meter: ReadMeter | None = None,
    ) -> Pixels:
        """Return a rectangle at a scale.

        Output pixel *i* is the mean over level-0 rows ``[y + i·scale, y + (i + 1)·scale)``, cut
        at the rectangle's end, and so for columns. It is computed from the coarsest level that
        is not coarser than `scale`. A scale below 1 enlarges by the same rule: pixels repeat,
        blended where an output pixel straddles two.

        Parameters
        ----------
        rect : Rect or tuple of int
            ``(y, x, h, w)`` in level-0 pixels; clipped to the image unless `fill` is given.
        scale : float
            Level-0 pixels per output pixel.
        fill : "reflect", "edge" or a number, optional
            Padding beyond the image's border, as in `numpy.pad`; "reflect" does not repeat the
            border pixel.
        meter : ReadMeter, optional
            Adds up what the tiles cost.

        Returns
        -------
        numpy.ndarray
            ``(ceil(h / scale), ceil(w / scale), c)`` in the image's dtype, where ``h`` and ``w``
            are the clipped rectangle's, or the given one's with `fill`. Integers are rounded
            half up; NaN is left out of means.

        Raises
        ------
        ValueError
            If no part of the rectangle lies in the image (without `fill`), the scale is not
            positive, or the constant does not fit the dtype.
        ImageReadError
            If the file is damaged there.

        Examples
        --------
        >>> image.read((1024, 2048, 512, 512)).shape  # full resolution
        (512, 512, 3)
        >>> image.read(image.rect, scale=32).shape  # an overview
        (128, 96, 3)
        """
        rect = as_rect(rect)
        if not (scale > 0 and math.isfinite(scale)):
            raise ValueError(f"a scale must be positive, not {scale}")
        if fill is None:
            rect = self._clip(rect)
        elif rect.empty:
            raise ValueError(f"{rect} is empty")
        elif isinstance(fill, str) and fill not in ("reflect", "edge"):
            raise ValueError(f"fill is 'reflect', 'edge' or a number, not {fill!r}")
        elif rect in self.rect:
            fill = None
        level = self.level_for(scale)
        if scale == 1 and level.index == 0 and fill is None:
            return level.read(rect.y, rect.y1, rect.x, rect.x1, meter=meter)
        out = np.empty(
            (_output_length(rect.h, scale), _output_length(rect.w, scale), self.channels),
            self.dtype,
        )
        for rows, columns in self._blocks(out.shape[0], out.shape[1], scale, level):
            out[rows, columns] = self._read_block(rect, scale, level, rows, columns, fill, meter)
        return out

    def tiles(self, rect: RectLike, scale: float = 1.0) -> list[TileKey]:
        """Return the stored tiles that reading the clipped rectangle touches."""
        rect = self._clip(rect)
        level = self.level_for(scale)
        (dy, dx), (h, w, _) = level.downsample, level.shape
        y0, y1 = _pixel_range(rect.y / dy, rect.y1 / dy, h)
        x0, x1 = _pixel_range(rect.x / dx, rect.x1 / dx, w)
        return list(level.tiles(y0, y1, x0, x1))

    def level_for(self, scale: float) -> Level:
        """Return the coarsest level that is not coarser than `scale`."""
        limit = scale * (1 + SCALE_TOLERANCE)
        fine = [level for level in self.levels if max(level.downsample) <= limit]
        return fine[-1] if fine else self.levels[0]

    def ground_truth(self, rect: RectLike) -> GroundTruth | None:
        """Return the ground truth of a synthetic image.

        Parameters
        ----------
        rect : Rect or tuple of int
            ``(y, x, h, w)``, clipped to the image.

        Returns
        -------
        GroundTruth or None
            Objects whose point lies in the rectangle; None for an image that is not synthetic.
        """
        if self.synthetic_image is None:
            return None
        return replace(
            self.synthetic_image.ground_truth(self._clip(rect)), source=self.path or self.name
        )

    def check(self) -> None:
        """Decode the middle tile of every level.

        Raises
        ------
        ImageReadError
            If one cannot be decoded; names the file and the level.
        """
        for level in self.levels:
            rows, columns = level.grid
            level.read_tile(TileKey(level.image_key, level.index, rows // 2, columns // 2))

    def missing_levels(self) -> int:
        """Return the number of coarse levels to build for a fast overview."""
        return self._overviews.missing_count(self.levels)

    @property
    def shapes(self) -> list[tuple[int, int, int]]:
        """Shape ``(h, w, c)`` of every level, then of those that `build_overviews` would add."""
        return [level.shape for level in self.levels] + self._overviews.shapes(self.levels)

    def build_overviews(
        self,
        progress: Callable[[float], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> None:
        """Build the missing coarse levels once, and cache them on disk.

        Reads continue meanwhile from the existing levels. Safe to call from a background thread.

        Parameters
        ----------
        progress : callable, optional
            Called with the fraction done, 0 to 1.
        cancelled : callable, optional
            Called between blocks; when it returns true, building stops and nothing is kept.
        """
        built = self._overviews.build(self.levels, progress, cancelled)
        self.levels = (*self.levels, *built)

    def close(self) -> None:
        """Close the file; the pyramid cannot be read after that."""
        self._reader.close()
        self._overviews.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _clip(self, rect: RectLike) -> Rect:
        inside = as_rect(rect) & self.rect
        if inside.empty:
            raise ValueError(f"{rect} has no pixel inside {self.name}, {self.rect}")
        return inside

    def _blocks(
        self, height: int, width: int, scale: float, level: Level
    ) -> Iterator[tuple[slice, slice]]:
        """Yield blocks of an output array whose source is small."""
        per_row, per_column = (scale / d for d in level.downsample)
        columns = _block_length(width, math.sqrt(2 * BLOCK_PIXELS) / per_column)
        rows = _block_length(height, BLOCK_PIXELS / (columns * per_column * per_row))
        return product(_slices(height, rows), _slices(width, columns))

    def _read_block(
        self,
        rect: Rect,
        scale: float,
        level: Level,
        rows: slice,
        columns: slice,
        fill: Fill | None,
        meter: ReadMeter | None,
    ) -> Pixels:
        """Return one block of an output array."""
        (dy, dx), (h, w, _) = level.downsample, level.shape
        ys = edges(rect.y, rect.y1, scale, rows.start, rows.stop) / dy
        xs = edges(rect.x, rect.x1, scale, columns.start, columns.stop) / dx
        y0, y1 = _pixel_range(ys[0], ys[-1], h if fill is None else None)
        x0, x1 = _pixel_range(xs[0], xs[-1], w if fill is None else None)

        def source(a: int, b: int) -> Pixels:
            if fill is None:
                return level.read(a, b, x0, x1, meter=meter)
            return _read_with_fill(level, (a, b, x0, x1), fill, meter)

        block = scale if dy == dx == 1 else scale / dy
        exact = dy == dx and y0 == ys[0] and x0 == xs[0] and block == round(block)
        small = (y1 - y0) * (x1 - x0) <= 2 * BLOCK_PIXELS
        if exact and small and (block == 1 or dy == 1):
            return block_mean(source(y0, y1), round(block))
        wx = area_weights(xs, x0, x1)
        total: Any = 0.0
        area: Any = 0.0
        # One output pixel may cover more than a block, so its source is summed in bands.
        for a, b in _spans(y0, y1, max(1, BLOCK_PIXELS // (x1 - x0))):
            wy = area_weights(ys, a, b)
            pixels = source(a, b)
            if pixels.dtype.kind == "f" and np.isnan(pixels).any():
                valid = ~np.isnan(pixels)
                total = total + _weighted_sum(wy, np.where(valid, pixels, 0), wx)
                area = area + _weighted_sum(wy, valid, wx)
            else:
                total = total + _weighted_sum(wy, pixels, wx)
                area = area + (wy.sum(axis=1)[:, None] * wx.sum(axis=1)[None, :])[..., None]
        with np.errstate(invalid="ignore"):
            return cast_rounded(total / np.where(area > 0, area, np.nan), self.dtype)


def _png(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> str:
    """Return an image as base64-encoded PNG."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")


def _output_length(length: int, scale: float) -> int:
    return max(1, math.ceil(length / scale - 1e-9))


def _block_length(length: int, wanted: float) -> int:
    return min(length, max(1, int(wanted)))


def _spans(start: int, stop: int, step: int) -> Iterator[tuple[int, int]]:
    return ((a, min(a + step, stop)) for a in range(start, stop, step))


def _slices(length: int, step: int) -> list[slice]:
    return [slice(a, b) for a, b in _spans(0, length, step)]


def _pixel_range(low: float, high: float, size: int | None) -> tuple[int, int]:
    """Return the range of whole pixels that an interval touches, within `size`."""
    first, last = math.floor(low + 1e-7), math.ceil(high - 1e-7)
    last = max(last, first + 1)
    return (first, last) if size is None else (min(max(first, 0), size - 1), min(last, size))


def _weighted_sum(wy: Any, pixels: Pixels, wx: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the weighted sum along rows, then along columns."""
    h, w, c = pixels.shape
    rows = wy @ pixels.reshape(h, w * c).astype(np.float64)
    columns = rows.reshape(-1, w, c).transpose(1, 0, 2).reshape(w, -1)
    result = (wx @ columns).reshape(-1, wy.shape[0], c).transpose(1, 0, 2)
    return np.asarray(result)


def _read_with_fill(
    level: Level, window: tuple[int, int, int, int], fill: Fill, meter: ReadMeter | None
) -> Pixels:
    """Return a window of a level, filled where it lies beyond the border."""
    y0, y1, x0, x1 = window
    h, w, c = level.shape
    if min(y0, x0) >= 0 and y1 <= h and x1 <= w:
        return level.read(*window, meter=meter)
    if isinstance(fill, str):
        rows, columns = border_indices(y0, y1, h, fill), border_indices(x0, x1, w, fill)
        top, left = int(rows.min()), int(columns.min())
        pixels = level.read(top, int(rows.max()) + 1, left, int(columns.max()) + 1, meter=meter)
        return pixels[rows - top][:, columns - left]
    if level.dtype.kind in "ui" and not (
        float(fill).is_integer() and np.iinfo(level.dtype).min <= fill <= np.iinfo(level.dtype).max
    ):
        raise ValueError(f"{fill} does not fit {level.dtype}")
    out = np.full((y1 - y0, x1 - x0, c), fill, level.dtype)
    a, b, left, right = max(y0, 0), min(y1, h), max(x0, 0), min(x1, w)
    if a < b and left < right:
        pixels = level.read(a, b, left, right, meter=meter)
        out[a - y0 : b - y0, left - x0 : right - x0] = pixels
    return out
