"""Base class of the image readers.

A reader is one opened image: it has levels and decodes their tiles. Resampling, caching and
metering are the same for all readers, and done elsewhere.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar, Self

import numpy as np

from hrviewer.errors import HrviewerError, ImageReadError, ParameterError, short_message
from hrviewer.pyramid.channels import (
    ChannelInfo,
    ChannelSelection,
    name_channels,
    select_channels,
)
from hrviewer.pyramid.fingerprint import image_key, of_text
from hrviewer.pyramid.georeference import Georeference
from hrviewer.pyramid.level import Level
from hrviewer.pyramid.series import Series, choose_series
from hrviewer.pyramid.synthetic import SyntheticImage
from hrviewer.pyramid.tile_cache import DecodedTile, TileKey
from hrviewer.pyramid.unreadable import TO_TILED_TIFF

__all__ = [
    "MAX_TILE_PIXELS",
    "PREVIEW_ONLY",
    "ChannelInfo",
    "ChannelSelection",
    "DecodedTile",
    "LevelLayout",
    "Reader",
    "UnsupportedFormat",
    "native_dtype",
    "reporting",
    "select_channels",
    "select_plane",
]

MAX_SIDE = 1 << 31
"""Pixels, which no image has."""

MAX_TILE_PIXELS = 64_000_000
"""Pixels; an image whose smallest readable unit is larger cannot be read in bounded memory."""


PREVIEW_ONLY = {".vsi", ".mrxs"}
"""Suffixes of formats whose file holds a preview as TIFF or JPEG, and its folder the slide."""


class UnsupportedFormat(ImageReadError):
    """A reader does not support the image; the next reader is tried."""


@contextmanager
def reporting(message: str, kind: type[ImageReadError] = ImageReadError) -> Iterator[None]:
    """Report what a library raises while a file is opened in one line that begins with a message.

    Errors of hrviewer pass as they are.
    """
    try:
        yield
    except HrviewerError:
        raise
    except (TypeError, AttributeError, LookupError, ArithmeticError) as error:
        # Of code that relies on what the metadata lack: its message alone explains nothing.
        why = f"its metadata are damaged ({short_message(error)})"
        raise kind(f"{message}: {why}") from error
    except Exception as error:
        raise kind(f"{message}: {short_message(error)}") from error


LevelLayout = tuple[tuple[int, int, int], tuple[int, int]]
"""Shape ``(h, w, c)`` of a level and ``(h, w)`` of its tiles."""


class Reader(ABC):
    """One opened image.

    Subclasses set the attributes below and call `set_levels` when they are opened. They are found
    through the entry point group ``hrviewer.readers``; of those that support an object, the one
    with the highest priority is tried first.

    Attributes
    ----------
    priority : int
        Readers with a higher priority are tried first.
    in_memory : bool
        Whether pixels stay in memory after the first read, so that the tile cache is not needed.
    persistent : bool
        Whether the fingerprint identifies the pixels in later sessions, too.
    name, path : str
        Short name, and file, folder or URL; the path is None for arrays.
    levels : tuple of Level
        Made by `set_levels`, the finest first.
    dtype : dtype
        Type of the pixels that `decode` returns; see `native_dtype`.
    pixel_size : tuple of float, optional
        µm per pixel of the first level, ``(y, x)``.
    georeference : Georeference, optional
        Place on Earth.
    stored_range : tuple of float, optional
        Smallest and largest value that pixels may have, according to the file.
    value_range : tuple of float, optional
        Pixel values that a model gets as 0 and 255, where the file states them as such.
    nodata : float, optional
        Pixel value that stands for "not measured".
    has_mask : bool
        Whether `DecodedTile.valid` is given for some tiles: alpha, masks, tiles that are not in
        the file.
    fills_missing : bool
        See `Level`.
    is_rgb : bool
        Whether the first three channels are red, green and blue.
    available_channels : tuple of ChannelInfo
        All channels that may be selected.
    channel_info : tuple of ChannelInfo
        The channels that are read; made by `set_channels`.
    plane_sizes : mapping
        Length of every axis beyond y, x and channel.
    plane_steps : mapping
        Distance between planes where known: µm along z, seconds along t.
    fingerprint : str
        Identifies the content, and is quick to compute; see `hrviewer.pyramid.fingerprint`.
    plane : mapping
        Selected index on every axis beyond y, x and channel; see `select_plane`.
    selected_channels : tuple of int, optional
        Selected channels; see `select_channels`.
    series : tuple of Series
        The images in the file; see `set_series`.
    selected_series : str, optional
        Id of the opened one; None if the file holds one image only.
    notes : list of str
        Assumptions made when the image was opened, for the user.
    synthetic_image : SyntheticImage, optional
        Generator of a synthetic image.
    """

    priority: ClassVar[int] = 0
    in_memory: bool = False
    persistent: bool = True

    name: str
    path: str | None = None
    levels: tuple[Level, ...]
    dtype: np.dtype[Any]
    pixel_size: tuple[float, float] | None = None
    georeference: Georeference | None = None
    stored_range: tuple[float, float] | None = None
    value_range: tuple[float, float] | None = None
    nodata: float | None = None
    has_mask: bool = False
    fills_missing: bool = True
    is_rgb: bool = False
    available_channels: tuple[ChannelInfo, ...] = ()
    channel_info: tuple[ChannelInfo, ...] = ()
    plane_sizes: Mapping[str, int] = MappingProxyType({})
    plane_steps: Mapping[str, float] = MappingProxyType({})
    fingerprint: str
    plane: Mapping[str, int]
    selected_channels: tuple[int, ...] | None = None
    series: tuple[Series, ...] = ()
    selected_series: str | None = None
    notes: list[str]
    synthetic_image: SyntheticImage | None = None

    @classmethod
    @abstractmethod
    def supports(cls, obj: object) -> bool:
        """Whether this reader may open `obj`; reads no more than a file's first bytes."""

    @classmethod
    @abstractmethod
    def open(
        cls,
        obj: object,
        *,
        plane: Mapping[str, int],
        channels: ChannelSelection | None,
        series: str | int | None,
    ) -> Self:
        """Open `obj`, or raise an error that gives the reason in one line.

        `UnsupportedFormat` lets the next reader try; any other `HrviewerError` is final.
        """

    @abstractmethod
    def decode(self, level: int, row: int, column: int) -> DecodedTile:
        """Return a tile, clipped to the level; any exception is reported as a damaged file."""

    def check(self) -> None:
        """Decode the middle tile of every level; raise `ImageReadError` if one is damaged."""
        for level in self.levels:
            rows, columns = level.grid
            level.load_tile(TileKey(level.image_key, level.index, rows // 2, columns // 2))

    def close(self) -> None:  # noqa: B027 - most readers hold nothing open
        """Close the files."""

    @property
    def missing_share(self) -> float:
        """Share of the stored blocks read so far that are missing, where that is no error."""
        return 0.0

    @property
    def image_key(self) -> str:
        """Key of the image in the tile cache: fingerprint, plane and channels."""
        return image_key(self.fingerprint, self.plane, self.selected_channels)

    def list_series(self) -> tuple[Series, ...]:
        """Return the images in the file; a reader may find them only now."""
        return self.series

    def set_series(self, series: Sequence[Series], wanted: str | int | None) -> int:
        """Choose one of the file's images, and return its index; see `choose_series`.

        The name and the fingerprint must be set. Images of one file get different fingerprints;
        that of a file's only image does not depend on what is stored besides.
        """
        index = choose_series(self.name, series, wanted, self.notes)
        self.series = tuple(series)
        chosen = self.series[index]
        if len(series) > 1:
            self.selected_series = chosen.id
        if [entry.kind for entry in series].count("image") > 1 or chosen.kind != "image":
            self.fingerprint = of_text(self.fingerprint, "series", chosen.id)
        return index

    def set_channels(
        self,
        channels: int | Sequence[ChannelInfo],
        wanted: ChannelSelection | None,
        default: Sequence[int] | None = None,
        *,
        is_rgb: bool = False,
    ) -> tuple[int, ...]:
        """Select channels, and return their indices.

        Parameters
        ----------
        channels : int or sequence of ChannelInfo
            All channels, or their number.
        wanted, default
            See `select_channels`.
        is_rgb : bool
            Whether the first three of all channels are red, green and blue.
        """
        infos = [ChannelInfo()] * channels if isinstance(channels, int) else channels
        self.available_channels = name_channels(infos, len(infos), is_rgb=is_rgb)
        self.selected_channels = select_channels(
            self.name, self.available_channels, wanted, default
        )
        shown = self.selected_channels or tuple(default or range(len(infos)))
        self.channel_info = tuple(self.available_channels[index] for index in shown)
        self.is_rgb = is_rgb and shown[:3] == (0, 1, 2)
        return shown

    def set_bands(
        self, bands: int, wanted: ChannelSelection | None, *, alpha: bool
    ) -> tuple[tuple[int, ...], int | None]:
        """Select channels of a picture whose last band may be its transparency.

        Returns
        -------
        channels : tuple of int
            The selected bands; by default all but transparency.
        mask : int or None
            The band of transparency, unless it is selected, as a channel like the others.
        """
        infos, default = [ChannelInfo()] * bands, tuple(range(bands))
        if alpha:
            infos[-1], default = ChannelInfo("alpha"), default[:-1]
        channels = self.set_channels(infos, wanted, default, is_rgb=len(default) == 3)
        mask = bands - 1 if alpha and bands - 1 not in channels else None
        self.has_mask = mask is not None
        return channels, mask

    def set_plane(
        self,
        sizes: Mapping[str, int],
        wanted: Mapping[str, int],
        default: Mapping[str, int] | None = None,
    ) -> None:
        """Select a plane; see `select_plane`."""
        self.plane_sizes = dict(sizes)
        self.plane = select_plane(self.name, sizes, wanted, self.notes, default)

    def set_levels(
        self, layouts: Sequence[LevelLayout], tile_offsets: Sequence[tuple[int, int]] | None = None
    ) -> None:
        """Make the levels; called last, when all other attributes are set.

        Levels after the first whose shape does not fit the image are left out.
        """
        (height, width, bands), _ = layouts[0]
        self.channel_info = name_channels(self.channel_info, bands, is_rgb=self.is_rgb)
        self.available_channels = self.available_channels or self.channel_info
        levels: list[Level] = []
        for index, ((h, w, c), (th, tw)) in enumerate(layouts):
            if h < 1 or w < 1 or c < 1 or th < 1 or tw < 1:
                raise ImageReadError(f"{self.name} has no pixels ({h} × {w})")
            if max(h, w) >= MAX_SIDE:
                raise ImageReadError(
                    f"{self.name} has {h} × {w} pixels: 2³¹ on a side are too many"
                )
            if th * tw > MAX_TILE_PIXELS:
                raise ImageReadError(
                    f"{self.name} is stored in tiles of {th * tw / 1e6:.0f} megapixels; "
                    f"{TO_TILED_TIFF}"
                )
            smaller = not levels or (h <= levels[-1].shape[0] and w < levels[-1].shape[1])
            similar = abs(height * w / width - h) <= 2 or abs(width * h / height - w) <= 2
            if c != bands or not smaller or not similar:
                self.notes.append(f"stored level {index} ({h} × {w}) does not fit and is left out")
                continue
            offset = tile_offsets[index] if tile_offsets else (0, 0)
            levels.append(
                Level(
                    image_key=self.image_key,
                    name=self.name,
                    index=len(levels),
                    shape=(h, w, c),
                    tile=(min(th, h + offset[0]), min(tw, w + offset[1])),
                    downsample=(height / h, width / w),
                    dtype=self.dtype,
                    decode=partial(self.decode, index),
                    tile_offset=offset,
                    in_memory=self.in_memory,
                    nodata=self.nodata,
                    is_rgb=self.is_rgb,
                    fills_missing=self.fills_missing,
                )
            )
        self.levels = tuple(levels)


def native_dtype(name: str, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype of decoded pixels: native byte order, bool as 0 and 255."""
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    if dtype.kind not in "uif" or dtype.itemsize > 8:
        raise ImageReadError(f"{name} holds {dtype} values; only whole and real numbers are read")
    return dtype.newbyteorder("=")


def select_plane(
    name: str,
    sizes: Mapping[str, int],
    wanted: Mapping[str, int],
    notes: list[str],
    default: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """Return the index on every axis beyond y, x and channel, and note the selected plane.

    Parameters
    ----------
    name : str
        Name of the image, for messages.
    sizes : mapping
        Length of every such axis.
    wanted : mapping
        The indices that the user gives.
    notes : list of str
        Gets the selected plane.
    default : mapping, optional
        The indices that the file displays first; 0 for axes that are not named.
    """
    for axis in wanted:
        if axis not in sizes:
            have = ", ".join(sizes) or "none"
            raise ParameterError(
                f"{name} has no axis {axis!r} to select a plane on (it has: {have})"
            )
    plane = {}
    for axis, size in sizes.items():
        index = wanted.get(axis, min((default or {}).get(axis, 0), size - 1))
        if not 0 <= index < size:
            raise ParameterError(f"{name} has no plane {axis}={index}: {axis} is 0 to {size - 1}")
        plane[axis] = int(index)
        if size > 1:
            notes.append(f"plane {axis}={index} of {size}")
    return plane
