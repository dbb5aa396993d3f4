"""Large pictures without random access (JPEG, PNG, WebP), streamed by libvips.

The picture is decoded once, strip by strip from the top, on a thread of its own, into tiles in the
cache folder; a tile can be read as soon as its strip is there. Memory is that of a few strips. The
next session finds the tiles.
"""

from __future__ import annotations

import shutil
import threading
import weakref
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from hrviewer.errors import HrviewerError, ImageReadError, write_error
from hrviewer.paths import cache_folder
from hrviewer.pyramid.folder_cache import FolderCache
from hrviewer.pyramid.readers.base import reporting
from hrviewer.pyramid.readers.file_reader import FileReader, Selection
from hrviewer.pyramid.readers.pillow import IN_MEMORY_LIMIT, PillowReader, picture_size
from hrviewer.pyramid.series import Series
from hrviewer.pyramid.tile_cache import DecodedTile
from hrviewer.pyramid.units import UNKNOWN_PIXEL_SIZE

__all__ = ["VipsReader"]

TILE = 512
CHECKED_ROWS = 16

FORMATS = {"uchar": "u1", "ushort": "u2", "short": "i2", "uint": "u4", "int": "i4", "float": "f4"}
"""Formats of libvips and NumPy's names for them."""


def import_vips() -> Any | None:
    """Return the package of libvips, if it is installed."""
    try:
        import pyvips
    except (ImportError, OSError):  # the latter where the library itself is missing
        return None
    return pyvips


class VipsReader(FileReader):
    """One large picture, read by libvips."""

    priority: ClassVar[int] = 25
    failure: ClassVar[str] = "cannot be read"
    failure_kind: ClassVar[type[ImageReadError]] = ImageReadError
    _finalize: Any = None

    @classmethod
    def supports(cls, obj: object) -> bool:
        """Whether it is a picture that is too large to keep in memory, and libvips is there."""
        if not isinstance(obj, str) or not PillowReader.supports(obj):
            return False
        height, width = picture_size(obj)
        return height * width > IN_MEMORY_LIMIT and import_vips() is not None

    def load(self, path: Path, selection: Selection) -> None:
        """Read the metadata."""
        self.notes.append(UNKNOWN_PIXEL_SIZE)
        image = open_stream(str(path))
        self.dtype = np.dtype(FORMATS[image.format])
        height, width, bands = image.height, image.width, image.bands
        self.set_plane({}, selection.plane)
        self._channels, self._alpha = self.set_bands(
            bands, selection.channels, alpha=image.hasalpha()
        )
        self.set_series([Series("0", shape=(height, width))], selection.series)
        self._size = path.stat().st_size
        self._stream = _Conversion(
            str(path), self.fingerprint, (height, width, bands), self.dtype, self.name
        )
        self._finalize = weakref.finalize(self, self._stream.cancel)
        self.set_levels([((height, width, len(self._channels)), (TILE, TILE))])

    def decode(self, level: int, row: int, column: int) -> DecodedTile:
        """Read a tile from the cache, waiting for its strip."""
        height, width, _ = self._stream.shape
        pixels = self._stream.read_tile(row, column)
        valid = None if self._alpha is None else pixels[..., self._alpha] > 0
        stored = round(self._size * pixels.shape[0] * pixels.shape[1] / (height * width))
        return DecodedTile(pixels[..., list(self._channels)], stored, valid=valid)

    def check(self) -> None:
        """Decode the first rows, as they are stored; the conversion is not started."""
        vips = import_vips()
        assert vips is not None
        with reporting(f"{self.name} cannot be decoded"):
            image = vips.Image.new_from_file(self.path, access="sequential", fail_on="error")
            image.crop(0, 0, image.width, min(CHECKED_ROWS, image.height)).write_to_memory()

    def close(self) -> None:
        """Stop the conversion, if it goes on."""
        if self._finalize is not None:
            self._finalize()


def open_stream(path: str) -> Any:
    """Open a picture for one pass from top to bottom, upright and in RGB or grey."""
    vips = import_vips()
    assert vips is not None
    image = vips.Image.new_from_file(path, access="sequential", fail_on="error")
    if image.get_typeof("orientation") and image.get("orientation") != 1:
        # An upright picture needs its pixels out of order: libvips keeps them in a file.
        image = vips.Image.new_from_file(path, fail_on="error").autorot()
    if image.interpretation in ("cmyk", "lab"):
        image = image.colourspace("srgb")
    if image.format not in FORMATS:
        image = image.cast("float")
    return image


class _Conversion:
    """Strips of a picture as tiles in the cache folder, made by a thread when they are needed."""

    def __init__(
        self, path: str, key: str, shape: tuple[int, int, int], dtype: np.dtype[Any], name: str
    ) -> None:
        self.shape, self._dtype, self._path, self._name = shape, dtype, path, name
        self._folder = FolderCache(cache_folder() / "pictures" / key)
        self._condition = threading.Condition()
        self._array: Any = None
        self._strips, self._finished = 0, False
        self._error: Exception | None = None
        self._thread: threading.Thread | None = None
        self._cancelled = threading.Event()
        self._unfinished: Path | None = None

    def read_tile(self, row: int, column: int) -> np.ndarray[Any, np.dtype[Any]]:
        """Return a tile, once its strip is there."""
        y, x = row * TILE, column * TILE
        with self._condition:
            if self._array is None and self._folder.open():
                import zarr

                self._array = zarr.open_array(self._folder.path, mode="r")
                self._strips, self._finished = -(-self.shape[0] // TILE), True
            if self._thread is None and row >= self._strips and self._error is None:
                self._thread = threading.Thread(
                    target=self._convert, name="hrviewer-picture", daemon=True
                )
                self._thread.start()
            while row >= self._strips and self._error is None:
                self._condition.wait()
            if row >= self._strips and self._error is not None:
                raise self._error
            # Inside the lock: chunks that are moved away meanwhile would read as zeros.
            pixels = np.asarray(self._array[y : y + TILE, x : x + TILE])
            if self._finished:
                self._folder.check(self._name)
            return pixels

    def cancel(self) -> None:
        """Stop; what is unfinished is removed."""
        self._cancelled.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        if self._unfinished is not None:
            shutil.rmtree(self._unfinished, ignore_errors=True)
        self._folder.close()

    def _convert(self) -> None:
        import zarr

        height, width, bands = self.shape
        try:
            self._unfinished = unfinished = self._folder.start()
            array: Any = zarr.create_array(
                unfinished, shape=self.shape, chunks=(TILE, TILE, bands), dtype=self._dtype
            )
            image = open_stream(self._path)
            for strip, y in enumerate(range(0, height, TILE)):
                if self._cancelled.is_set():
                    raise ImageReadError(f"{self._name} was closed; open it again")
                rows = min(TILE, height - y)
                data = image.crop(0, y, width, rows).write_to_memory()
                array[y : y + rows] = np.frombuffer(data, self._dtype).reshape(rows, width, bands)
                with self._condition:
                    self._array, self._strips = array, strip + 1
                    self._condition.notify_all()
            with self._condition:
                self._folder.finish(unfinished)
                self._array, self._finished = zarr.open_array(self._folder.path, mode="r"), True
        except Exception as error:
            # libvips has errors of its own: those of the system are of the cache folder.
            if isinstance(error, OSError) and not isinstance(error, HrviewerError):
                error = write_error(self._folder.path.parent, error)
            with self._condition:
                self._error = error
                self._condition.notify_all()
