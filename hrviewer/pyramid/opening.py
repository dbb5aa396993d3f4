"""Opening: from a path, URL, array or layer to a pyramid."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import entry_points
from numbers import Real
from operator import index
from pathlib import Path
from typing import Any, cast
from weakref import WeakValueDictionary

from hrviewer.errors import ImageReadError, ParameterError
from hrviewer.extensions import load_extension
from hrviewer.pyramid.channels import ChannelSelection, select_channels
from hrviewer.pyramid.level import Level
from hrviewer.pyramid.pyramid import Pyramid
from hrviewer.pyramid.readers.array import ArrayReader, find_level
from hrviewer.pyramid.readers.base import Reader, UnsupportedFormat
from hrviewer.pyramid.readers.dzi import DziReader
from hrviewer.pyramid.readers.jpeg2000 import Jpeg2000Reader
from hrviewer.pyramid.readers.lif import LifReader
from hrviewer.pyramid.readers.nd2 import Nd2Reader
from hrviewer.pyramid.readers.omezarr import OmeZarrReader
from hrviewer.pyramid.readers.openslide import OpenSlideFallback, OpenSlideReader
from hrviewer.pyramid.readers.pillow import PillowReader, PillowTiffReader
from hrviewer.pyramid.readers.slideio import SlideioReader
from hrviewer.pyramid.readers.synthetic import SyntheticReader
from hrviewer.pyramid.readers.tiff import TiffReader
from hrviewer.pyramid.readers.vips import VipsReader
from hrviewer.pyramid.series import choose_series
from hrviewer.pyramid.unreadable import check_content, explain_unreadable

__all__ = ["installed_readers", "open_plane", "open_pyramid", "reopen_pyramid", "using_pyramid"]

log = logging.getLogger(__name__)

GROUP = "hrviewer.readers"
BUILT_IN_READERS: tuple[type[Reader], ...] = (
    SlideioReader,
    Nd2Reader,
    LifReader,
    OpenSlideReader,
    TiffReader,
    OmeZarrReader,
    DziReader,
    OpenSlideFallback,
    Jpeg2000Reader,
    VipsReader,
    PillowReader,
    PillowTiffReader,
    ArrayReader,
    SyntheticReader,
)

_open_pyramids: WeakValueDictionary[Level, Pyramid] = WeakValueDictionary()
"""Pyramids by their level 0: one image may be open more than once, with other pixel sizes."""


def installed_readers() -> list[type[Reader]]:
    """Return all readers in the order in which they are tried.

    Raises
    ------
    ImageReadError
        If the package of one is broken.
    """
    plugins: list[type[Reader]] = [
        load_extension(entry, "the reader", ImageReadError) for entry in entry_points(group=GROUP)
    ]
    return sorted([*plugins, *BUILT_IN_READERS], key=lambda reader: -reader.priority)


def open_pyramid(
    source: object,
    *,
    series: str | int | None = None,
    plane: Mapping[str, int] | None = None,
    channels: ChannelSelection | None = None,
    pixel_size: float | Sequence[float] | None = None,
    value_range: Sequence[float] | None = None,
) -> Pyramid:
    """Open an image as a lazily read pyramid.

    Parameters
    ----------
    source : object
        A path; the URL of an OME-Zarr; a synthetic image, ``sample:NAME?size=8192&seed=0``; a
        NumPy, dask or zarr array ``(h, w)``, ``(h, w, c)`` or with further axes in front, or a
        list of them, finest first; an xarray.DataArray, whose dims name its axes; a napari image
        layer; a pyramid, which is returned as it is.
    series : str or int, optional
        The image to open of a file or folder with several: its id, name or index;
        `Pyramid.series` lists them. By default the largest; never a label, macro, thumbnail or
        mask.
    plane : mapping of str to int, optional
        Index on each axis beyond y, x and channel, as ``{"z": 3}``; 0 by default.
    channels : sequence of int or str, optional
        Channels to read, in this order, by index or name; all by default, but transparency.
    pixel_size : float or (float, float), optional
        Micrometres per pixel of level 0, one number or ``(y, x)``; overrides the file's.
    value_range : (float, float), optional
        Pixel values that a model gets as 0 and as 255, as ``(0, 4095)`` for 12 bits; by default
        those of the model's card, of the file's metadata, or the range of a sample.

    Returns
    -------
    Pyramid
        Only metadata has been read. `Pyramid.notes` lists the assumptions made.

    Raises
    ------
    ImageReadError
        If the image cannot be opened; one line says why, and what to do.
    ParameterError
        If it has no such series, plane or channel, or the pixel size is not positive; and if an
        option has another form than above.

    Examples
    --------
    >>> with hrviewer.open("slide.tif") as image:
    ...     image.shape, image.pixel_size
    ((4096, 3072, 3), (0.5, 0.5))
    >>> stack = hrviewer.open("stack.ome.tif", plane={"z": 3}, channels=[0], pixel_size=0.25)
    >>> stack.shape, stack.plane, stack.pixel_size
    ((300, 400, 1), {'z': 3}, (0.25, 0.25))
    """
    plane, channels = _parse_plane(plane), _parse_channels(channels)
    size, ends = _parse_pixel_size(pixel_size), _parse_value_range(value_range)
    known = source if isinstance(source, Pyramid) else None
    level = find_level(source) if known is None else None
    if level is not None:
        known = _open_pyramids.get(level)
    if known is not None:
        _check_options(known, series, plane, channels, size, ends)
        return known
    if isinstance(source, (str, os.PathLike)):
        source = os.fspath(source)
        if reason := check_content(Path(source)):
            raise ImageReadError(reason)
    unsupported: UnsupportedFormat | None = None
    for reader in installed_readers():
        if not reader.supports(source):
            continue
        try:
            opened = reader.open(source, plane=plane, channels=channels, series=series)
        except UnsupportedFormat as error:  # if no other reader opens it, the first reason is best
            unsupported = unsupported or error
        else:
            pyramid = Pyramid(opened, size, ends)
            if series is not None and not opened.series:  # a reader that knows of none
                _series_id(pyramid, series)
            _open_pyramids[pyramid.levels[0]] = pyramid
            log.info(
                "opened %s with %s: %d × %d pixels, %d levels",
                pyramid.name,
                reader.__name__,
                *pyramid.plane_shape,
                len(pyramid.levels),
            )
            return pyramid
    raise unsupported or _unsupported_error(source)


@contextmanager
def using_pyramid(
    source: object,
    *,
    series: str | int | None = None,
    plane: Mapping[str, int] | None = None,
    channels: ChannelSelection | None = None,
    pixel_size: float | Sequence[float] | None = None,
    value_range: Sequence[float] | None = None,
) -> Iterator[Pyramid]:
    """Open an image for a ``with`` block; a pyramid that was open before stays open.

    The parameters are those of `open_pyramid`.
    """
    pyramid = open_pyramid(
        source,
        series=series,
        plane=plane,
        channels=channels,
        pixel_size=pixel_size,
        value_range=value_range,
    )
    shared = isinstance(source, Pyramid) or find_level(source) is not None
    try:
        yield pyramid
    finally:
        if not shared:
            pyramid.close()


def reopen_pyramid(record: Mapping[str, Any]) -> Pyramid:
    """Open an image with the options that a run recorded: series, plane, channels and others.

    Parameters
    ----------
    record : mapping
        The entry ``image`` of a run's ``run.json``.
    """
    return open_pyramid(
        record["path"],
        series=record.get("series"),
        plane=record.get("plane") or None,
        channels=record.get("channels"),
        pixel_size=record.get("pixel_size"),
        value_range=record.get("value_range"),
    )


def open_plane(pyramid: Pyramid, plane: Mapping[str, int]) -> Pyramid:
    """Open another plane of an image's file, with the same series and channels.

    Parameters
    ----------
    pyramid : Pyramid
        An image with a path.
    plane : mapping of str to int
        Index on each axis beyond y, x and channel.
    """
    return open_pyramid(
        pyramid.path,
        series=pyramid.selected_series,
        plane=plane,
        channels=pyramid.selected_channels,
        pixel_size=pyramid.pixel_size,
        value_range=pyramid.given_range,
    )


def _parse_plane(value: Mapping[str, int] | None) -> dict[str, int]:
    try:
        return {axis: index(at) for axis, at in (value or {}).items()}
    except (AttributeError, TypeError):
        raise ParameterError(
            f"plane is the index on each further axis, as {{'z': 3}}, not {value!r}"
        ) from None


def _parse_channels(value: ChannelSelection | None) -> tuple[int | str, ...] | None:
    try:
        if isinstance(value, str):
            raise TypeError
        return (
            None
            if value is None
            else tuple(entry if isinstance(entry, str) else index(entry) for entry in value)
        )
    except TypeError:
        raise ParameterError(
            f"channels is a sequence of names and numbers, as ['DAPI', 2], not {value!r}"
        ) from None


def _parse_pixel_size(value: float | Sequence[float] | None) -> tuple[float, float] | None:
    if value is None:
        return None
    try:
        sides = (value, value) if isinstance(value, Real) else cast(Sequence[float], value)
        y, x = map(float, () if isinstance(value, str) else sides)
    except (TypeError, ValueError):
        y = x = math.nan
    if not (0 < y < math.inf and 0 < x < math.inf):
        raise ParameterError(
            f"pixel_size is micrometres per pixel, a positive number or (y, x), not {value!r}"
        )
    return y, x


def _parse_value_range(value: Sequence[float] | None) -> tuple[float, float] | None:
    if value is None:
        return None
    try:
        low, high = map(float, () if isinstance(value, str) else value)
    except (TypeError, ValueError):
        low = high = math.nan
    if not (-math.inf < low < high < math.inf):
        raise ParameterError(
            f"value_range is two numbers, the pixel values of 0 and 255, not {value!r}"
        )
    return low, high


def _check_options(
    pyramid: Pyramid,
    series: str | int | None,
    plane: Mapping[str, int],
    channels: tuple[int | str, ...] | None,
    pixel_size: tuple[float, float] | None,
    value_range: tuple[float, float] | None,
) -> None:
    """Refuse options that differ from those with which a pyramid was opened."""
    selected = pyramid.selected_channels
    wanted_channels = selected
    if channels is not None:
        default = tuple(range(pyramid.channels)) if selected is None else None
        wanted_channels = select_channels(
            pyramid.name, pyramid.available_channels, channels, default
        )
    opened = pyramid.selected_series or pyramid.series[0].id
    asked: dict[str, tuple[object, object]] = {
        "series": (opened if series is None else _series_id(pyramid, series), opened),
        "plane": ({**pyramid.plane, **plane}, pyramid.plane),
        "channels": (wanted_channels, selected),
        "pixel_size": (pixel_size or pyramid.pixel_size, pyramid.pixel_size),
        "value_range": (value_range or pyramid.given_range, pyramid.given_range),
    }
    for name, (wanted, present) in asked.items():
        if wanted != present:
            raise ParameterError(
                f"{pyramid.name} is open with {name}={present}: pass {name} when it is opened"
            )


def _series_id(pyramid: Pyramid, series: str | int) -> str:
    """Return the id of the series that a user names; refuse one that is not there."""
    return pyramid.series[choose_series(pyramid.name, pyramid.series, series, [])].id


def _unsupported_error(source: object) -> ImageReadError:
    if not isinstance(source, str):
        return ImageReadError(
            f"cannot open {type(source).__name__} as an image: pass a path or an array"
        )
    if not source:
        return ImageReadError("'': there is no such file or folder")
    if "://" in source:
        return ImageReadError(
            f"{source} cannot be opened: of URLs, TIFF and OME-Zarr are read; download the file "
            "first"
        )
    return ImageReadError(explain_unreadable(Path(source)))
