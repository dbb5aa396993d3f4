"""Images of microscopes whose planes are stored as whole frames: the common part of ND2 and LIF.

A frame is an array in the file, which is memory-mapped: a tile costs the bytes that it reads. One
that is compressed as a whole is decoded once, by the first read, if it is not too large.
"""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from hrviewer.errors import ImageReadError
from hrviewer.pyramid.readers.base import ChannelInfo, native_dtype
from hrviewer.pyramid.readers.file_reader import FileReader, Selection, has_package, tile_window
from hrviewer.pyramid.series import Series
from hrviewer.pyramid.tile_cache import DecodedTile
from hrviewer.pyramid.units import UNKNOWN_PIXEL_SIZE, plausible

__all__ = ["MAX_DECODED_BYTES", "FrameReader", "Pixels"]

TILE = 512

MAX_DECODED_BYTES = 1 << 30
"""Bytes of a frame that is compressed as a whole."""

Pixels = np.ndarray[Any, np.dtype[Any]]


class FrameReader(FileReader):
    """One image of a file of frames.

    Subclasses open the file, list its series, describe the chosen one and give one frame.
    """

    priority: ClassVar[int] = 65
    suffixes: ClassVar[tuple[str, ...]]
    package: ClassVar[str]
    _lock: threading.Lock
    _frame: Sequence[Pixels] | None = None

    @classmethod
    def supports(cls, obj: object) -> bool:
        """Whether it is a file with the suffix, and the package is there."""
        if not isinstance(obj, str) or Path(obj).suffix.lower() not in cls.suffixes:
            return False
        return has_package(cls.package) and Path(obj).is_file()

    def load(self, path: Path, selection: Selection) -> None:
        """Read the metadata."""
        self._lock = threading.Lock()
        index = self.set_series(self.open_file(path), selection.series)
        sizes, infos, is_rgb = self.describe(index)
        self.set_plane({axis: size for axis, size in sizes.items() if size > 1}, selection.plane)
        self._channels = self.set_channels(infos, selection.channels, is_rgb=is_rgb)
        self.has_mask = not self.holds_frame()
        if self.has_mask:
            self.notes.append("this plane is not in the file: it has no data")
        self.dtype = native_dtype(self.name, self.dtype)
        if self.pixel_size is None or not plausible(self.pixel_size):
            self.pixel_size = None
            self.notes.append(UNKNOWN_PIXEL_SIZE)
        height, width = self.series[index].shape or (0, 0)
        self.set_levels([((height, width, len(self._channels)), (TILE, TILE))])

    @abstractmethod
    def open_file(self, path: Path) -> list[Series]:
        """Open the file, and return its series."""

    @abstractmethod
    def describe(self, index: int) -> tuple[dict[str, int], list[ChannelInfo], bool]:
        """Set dtype, pixel size and others to those of a series.

        Returns
        -------
        sizes : dict
            Length of the axes beyond y, x and channel.
        channels : list of ChannelInfo
            All channels.
        is_rgb : bool
            Whether they are red, green and blue.
        """

    def holds_frame(self) -> bool:
        """Return whether the selected plane is in the file: a recording may end before."""
        return True

    @abstractmethod
    def read_frame(self) -> Sequence[Pixels]:
        """Return the selected plane of all channels, each ``(h, w)``."""

    def decode(self, level: int, row: int, column: int) -> DecodedTile:
        """Copy a tile out of the frame."""
        y, x, h, w = tile_window(self.levels[0].shape, TILE, row, column)
        if self.has_mask:
            pixels = np.zeros((h, w, len(self._channels)), self.dtype)
            return DecodedTile(pixels, 0, valid=np.zeros((h, w), bool))
        with self._lock:
            if self._frame is None:
                self._frame = self.read_frame()
            frame = self._frame
        at = np.s_[y : y + h, x : x + w]
        pixels = np.stack([frame[channel][at] for channel in self._channels], axis=2)
        pixels = pixels.astype(self.dtype, copy=False)
        return DecodedTile(pixels, pixels.nbytes)

    def close(self) -> None:
        """Release the frame."""
        with self._lock:
            self._frame = None

    def check_decoded(self, nbytes: int) -> None:
        """Refuse a frame that would have to be decoded as a whole and is too large for that."""
        if nbytes > MAX_DECODED_BYTES:
            raise ImageReadError(
                f"{self.name} compresses {nbytes / 1e9:.1f} GB as a whole: save it without "
                "compression, or convert it by `bioformats2raw`"
            )
