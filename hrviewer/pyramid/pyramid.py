"""A gigapixel image as a pyramid of levels, read lazily.

Invariants: every public coordinate is a level-0 pixel, ``(y, x)``, half-open; a read never
holds more than a bounded part of a level; reads may come from any thread.
"""

from __future__ import annotations

import base64
import io
import math
import threading
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from hrviewer.errors import HrviewerError
from hrviewer.escaping import escape_html, printable
from hrviewer.geometry import Rect, RectLike, as_rect
from hrviewer.ground_truth import GroundTruth
from hrviewer.pyramid.area_read import Coverage, area_windows, pixel_range, read_area
from hrviewer.pyramid.indexing import array_from
from hrviewer.pyramid.level import Level
from hrviewer.pyramid.overviews import OverviewBlock, Overviews
from hrviewer.pyramid.read_cost import ReadMeter
from hrviewer.pyramid.resample import Fill
from hrviewer.pyramid.series import Series
from hrviewer.pyramid.tile_cache import TileKey
from hrviewer.pyramid.units import UNKNOWN_PIXEL_SIZE
from hrviewer.pyramid.value_range import ValueRange, find_value_range

if TYPE_CHECKING:
    from hrviewer.pyramid.readers.base import Reader

__all__ = ["Pyramid"]

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
    georeference : Georeference or None
        Place on Earth; see `hrviewer.pyramid.georeference`.
    nodata : float or None
        Pixel value that stands for "not measured".
    fingerprint : str
        Identifies the image's content. Arrays of 256 MB or more and lazy arrays get a random
        token: results cached under it are not found again in another session.
    plane : dict
        Selected index of each axis beyond y, x and channel.
    selected_channels : tuple of int or None
        Selected channels, in their order; None for all.
    selected_series : str or None
        Id of the opened series of the file; None if it holds one image only.
    channel_info : tuple of ChannelInfo
        Name, colour and display window of each channel that is read.
    available_channels : tuple of ChannelInfo
        All channels of the file.
    plane_sizes, plane_steps : dict
        Length of each axis beyond y, x and channel; and the distance between planes, µm along z
        and seconds along t, where known.
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

    def __init__(
        self,
        reader: Reader,
        pixel_size: tuple[float, float] | None = None,
        value_range: tuple[float, float] | None = None,
    ) -> None:
        self._reader = reader
        self._value_range = None if value_range is None else ValueRange(*value_range)
        self._range_lock = threading.Lock()
        self.name = printable(reader.name)
        self.path = reader.path
        self.pixel_size = pixel_size or reader.pixel_size
        self.georeference = reader.georeference
        self.nodata = reader.nodata
        self.fingerprint = reader.fingerprint
        self.plane = dict(reader.plane)
        self.selected_channels = reader.selected_channels
        self.channel_info = reader.channel_info
        self.available_channels = reader.available_channels
        self.plane_sizes = dict(reader.plane_sizes)
        self.plane_steps = dict(reader.plane_steps)
        self.selected_series = reader.selected_series
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
        n = len(self.levels)
        levels = f"{n} level{'s'[: n != 1]}"
        return f"{height:,} × {width:,} × {channels}, {self.dtype}, {levels}"

    @property
    def series(self) -> tuple[Series, ...]:
        """The images that the file holds; see `hrviewer.pyramid.series.Series`."""
        return self._reader.list_series() or (Series("0", shape=self.plane_shape),)

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
    def value_range(self) -> ValueRange:
        """The pixel values that a model gets as 0 and 255; a sample is read where needed."""
        with self._range_lock:
            if self._value_range is None:
                reader = self._reader
                if (stated := reader.value_range) is not None:
                    self._value_range = ValueRange(*stated, "file", stated)
                else:
                    self._value_range = find_value_range(reader.levels, reader.stored_range)
            return self._value_range

    @property
    def given_range(self) -> tuple[float, float] | None:
        """The value range that the user gave; None if it is the file's or measured."""
        given = self._value_range
        return given.ends if given is not None and given.source == "given" else None

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
        caption = f"<b>{escape_html(self.name)}</b><br>{escape_html(', '.join(facts))}"
        picture = ""
        if math.prod(self.levels[-1].shape[:2]) <= MAX_THUMBNAIL_SOURCE:
            try:
                png = _png(self.thumbnail())
            except HrviewerError as error:
                caption += f"<br>{escape_html(str(error))}"
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
            half up. Pixels without data (`nodata`, NaN, alpha 0, masked, or not in the file) are
            left out of means.

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
        return self.read_with_coverage(rect, scale, fill=fill, meter=meter)[0]

    def read_with_coverage(
        self,
        rect: RectLike,
        scale: float = 1.0,
        *,
        fill: Fill | None = None,
        meter: ReadMeter | None = None,
    ) -> tuple[Pixels, Coverage | None]:
        """Return a rectangle at a scale, and which part of each pixel has data.

        Parameters
        ----------
        rect, scale, fill, meter
            See `read`.

        Returns
        -------
        pixels : numpy.ndarray
            As from `read`.
        coverage : numpy.ndarray of float32 or None
            ``(h, w)``, 0 where there are no data in any channel, 1 where there are data
            everywhere; None if that is so in the whole rectangle.
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
        return read_area(self.level_for(scale), rect, scale, fill, meter)

    @property
    def has_gaps(self) -> bool:
        """Whether some pixels may have no data."""
        level = self.levels[0]
        return self._reader.has_mask or level.nodata is not None or level.dtype.kind == "f"

    @property
    def has_mask(self) -> bool:
        """Whether a mask, and not a value of the pixels, marks those without data."""
        return self._reader.has_mask

    @property
    def is_rgb(self) -> bool:
        """Whether the first three channels are red, green and blue."""
        return self.levels[0].is_rgb

    def data_area(self, rect: RectLike) -> float:
        """Return the area that has data, in level-0 pixels.

        Parameters
        ----------
        rect : Rect or tuple of int
            ``(y, x, h, w)``; clipped to the image.

        Returns
        -------
        float
            Exact for up to 16 megapixels. In a larger rectangle it is measured on a
            coarser level if there is one, otherwise on evenly spaced windows.
        """
        rect = self._clip(rect)
        if not self.has_gaps:
            return float(rect.area)
        windows, scale = area_windows(self.levels, rect)
        covered = 0.0
        for window in windows:
            _, coverage = self.read_with_coverage(window, scale)
            part = 1.0 if coverage is None else float(coverage.mean(dtype=np.float64))
            covered += window.area * part
        return rect.area * covered / sum(window.area for window in windows)

    def tiles(self, rect: RectLike, scale: float = 1.0) -> list[TileKey]:
        """Return the stored tiles that reading the clipped rectangle touches."""
        rect = self._clip(rect)
        level = self.level_for(scale)
        (dy, dx), (h, w, _) = level.downsample, level.shape
        y0, y1 = pixel_range(rect.y / dy, rect.y1 / dy, h)
        x0, x1 = pixel_range(rect.x / dx, rect.x1 / dx, w)
        return list(level.tiles(y0, y1, x0, x1))

    def level_for(self, scale: float) -> Level:
        """Return the coarsest level that is not coarser than `scale`."""
        limit = scale * (1 + SCALE_TOLERANCE)
        fine = [level for level in self.levels if max(level.downsample) <= limit]
        return fine[-1] if fine else self.levels[0]

    @property
    def missing_share(self) -> float:
        """Share of the chunks read so far that an OME-Zarr lacks: places without data."""
        return self._reader.missing_share

    @property
    def synthetic_name(self) -> str | None:
        """Name of a synthetic image, as in ``sample:NAME``; None for any other image."""
        if self.synthetic_image is None:
            return None
        return (self.path or "").partition(":")[2].partition("?")[0]

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
        """Decode the middle tile of every stored level; of large pictures less.

        Raises
        ------
        ImageReadError
            If one cannot be decoded; names the file and the level.
        """
        self._reader.check()

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
        preview: OverviewBlock | None = None,
    ) -> None:
        """Build the missing coarse levels once, and cache them on disk.

        Reads continue meanwhile from the existing levels. Safe to call from a background thread.

        Parameters
        ----------
        progress : callable, optional
            Called with the fraction done, 0 to 1.
        cancelled : callable, optional
            Called between blocks; when it returns true, building stops and nothing is kept.
        preview : callable, optional
            Called with each block of the first missing level: its first row and column there, and
            the tile.
        """
        built = self._overviews.build(self.levels, progress, cancelled, preview)
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


def _png(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> str:
    """Return an image as base64-encoded PNG."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")
