"""What a source must offer.

A source is one opened image: it knows its levels and decodes their tiles. It says nothing about
resampling, caching or metering, which are the same for all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np

from hrviewer.errors import HrviewerError
from hrviewer.pyramid.level import Level
from hrviewer.pyramid.synthetic import SyntheticImage
from hrviewer.pyramid.tile_cache import DecodedTile

__all__ = [
    "MAX_TILE_PIXELS",
    "DecodedTile",
    "LevelLayout",
    "Reader",
    "UnsupportedFormat",
    "native_dtype",
    "select_channels",
    "select_plane",
]

MAX_TILE_PIXELS = 64_000_000
"""Pixels; an image whose smallest readable part is larger cannot be read in bounded memory."""


class UnsupportedFormat(HrviewerError):
    """A source cannot make sense of it; the next one is asked."""


LevelLayout = tuple[tuple[int, int, int], tuple[int, int]]
"""A level's shape ``(h, w, c)`` and its tiles' ``(h, w)``."""


class Reader(ABC):
    """One opened image.

    Subclasses set the attributes below and call `set_levels` when they are opened. They are found
    through the entry point group ``hrviewer.readers``; of those that support an object, the one
    with the highest priority is asked first.

    Attributes
    ----------
    priority : int
        Who is asked first.
    in_memory : bool
        Whether pixels are at hand once they were asked for: tiles of it need no cache of their own.
    persistent : bool
        Whether the same fingerprint will mean the same pixels tomorrow.
    name, path : str
        What it is called, and its file; None where it lies in none.
    levels : tuple of Level
        Made by `set_levels`, the finest first.
    dtype : dtype
        Of the pixels that `decode` gives; see `plain_dtype`.
    pixel_size : tuple of float, optional
        µm per pixel, ``(y, x)``, of the first level.
    nodata : float, optional
        The value that stands for nothing.
    fingerprint : str
        Changes with what it holds, and cheap to take: see `hrviewer.pyramid.fingerprint`.
    plane : mapping
        Which index was taken on every axis beyond y, x and channel; see `pick_plane`.
    selected_channels : tuple of int, optional
        Which channels were; see `pick_channels`.
    notes : list of str
        What a person should know.
    synthetic_image : Recipe, optional
        Of a scene whose truth is known.
    """

    priority: ClassVar[int] = 0
    in_memory: bool = False
    persistent: bool = True

    name: str
    path: str | None = None
    levels: tuple[Level, ...]
    dtype: np.dtype[Any]
    pixel_size: tuple[float, float] | None = None
    nodata: float | None = None
    fingerprint: str
    plane: Mapping[str, int]
    selected_channels: tuple[int, ...] | None = None
    notes: list[str]
    synthetic_image: SyntheticImage | None = None

    @classmethod
    @abstractmethod
    def supports(cls, obj: object) -> bool:
        """Whether this source would try to open `obj`; looks at its beginning at most."""

    @classmethod
    @abstractmethod
    def open(cls, obj: object, *, plane: Mapping[str, int], channels: Sequence[int] | None) -> Self:
        """Open `obj`, or raise a UserError that says in one line why not.

        A `Refusal` passes it on to the next source; any other UserError is final.
        """

    @abstractmethod
    def decode(self, level: int, row: int, column: int) -> DecodedTile:
        """Return a tile, clipped to the level; any exception is told as damage to the file."""

    def close(self) -> None:  # noqa: B027 - most sources hold nothing open
        """Let go of files."""

    @property
    def image_key(self) -> str:
        """What the tiles are filed under: the image, its plane and its channels."""
        plane = "".join(f",{axis}={index}" for axis, index in sorted(self.plane.items()))
        channels = (
            ""
            if self.selected_channels is None
            else f",c={'+'.join(map(str, self.selected_channels))}"
        )
        return f"{self.fingerprint}{plane}{channels}"

    def set_levels(
        self, layouts: Sequence[LevelLayout], tile_offsets: Sequence[tuple[int, int]] | None = None
    ) -> None:
        """Make the levels; called last, when all other attributes are set.

        Levels after the first that cannot belong to the same picture are left out.
        """
        (height, width, bands), _ = layouts[0]
        levels: list[Level] = []
        for index, ((h, w, c), (th, tw)) in enumerate(layouts):
            if h < 1 or w < 1 or c < 1 or th < 1 or tw < 1:
                raise HrviewerError(f"{self.name} has no pixels ({h} × {w}); the file is damaged")
            if th * tw > MAX_TILE_PIXELS:
                raise HrviewerError(
                    f"{self.name} is stored in pieces of {th * tw / 1e6:.0f} megapixels; "
                    "convert it to a tiled TIFF or OME-Zarr"
                )
            smaller = not levels or (h <= levels[-1].shape[0] and w < levels[-1].shape[1])
            alike = abs(height * w / width - h) <= 2 or abs(width * h / height - w) <= 2
            if c != bands or not smaller or not alike:
                self.notes.append(f"stored level {index} ({h} × {w}) does not fit and is left out")
                continue
            lead = tile_offsets[index] if tile_offsets else (0, 0)
            levels.append(
                Level(
                    image_key=self.image_key,
                    name=self.name,
                    index=len(levels),
                    shape=(h, w, c),
                    tile=(min(th, h + lead[0]), min(tw, w + lead[1])),
                    downsample=(height / h, width / w),
                    dtype=self.dtype,
                    decode=partial(self.decode, index),
                    tile_offset=lead,
                    in_memory=self.in_memory,
                )
            )
        self.levels = tuple(levels)


def native_dtype(name: str, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype in which pixels are handed out: native byte order, bool as 0 and 255."""
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    if dtype.kind not in "uif" or dtype.itemsize > 8:
        raise HrviewerError(f"{name} holds {dtype} values; only whole and real numbers are read")
    return dtype.newbyteorder("=")


def select_plane(
    name: str, sizes: Mapping[str, int], wanted: Mapping[str, int], notes: list[str]
) -> dict[str, int]:
    """Return an index for every axis beyond y, x and channel, and note which plane is shown."""
    for axis in wanted:
        if axis not in sizes:
            have = ", ".join(sizes) or "none"
            raise HrviewerError(
                f"{name} has no axis {axis!r} to choose a plane from (it has: {have})"
            )
    plane = {}
    for axis, size in sizes.items():
        index = wanted.get(axis, 0)
        if not 0 <= index < size:
            raise HrviewerError(
                f"{name} has no plane {axis}={index}; {axis} goes from 0 to {size - 1}"
            )
        plane[axis] = int(index)
        if size > 1:
            notes.append(f"showing plane {axis}={index} of {size}")
    return plane


def select_channels(name: str, count: int, wanted: Sequence[int] | None) -> tuple[int, ...] | None:
    """Return the channels chosen, None for all of them."""
    if wanted is None or tuple(wanted) == tuple(range(count)):
        return None
    wrong = [index for index in wanted if not 0 <= index < count]
    if wrong or not wanted:
        raise HrviewerError(f"{name} has channels 0 to {count - 1}, not {wrong or 'none at all'}")
    return tuple(int(index) for index in wanted)
