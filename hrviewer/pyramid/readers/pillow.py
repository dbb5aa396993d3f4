"""Images without random access (PNG, JPEG and others), read by Pillow.

An image is decoded once, as a whole, by its first read: in memory up to 64 megapixels, else into a
temporary file. The cost of that is divided over its tiles.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from hrviewer.errors import ImageReadError, ParameterError, short_message
from hrviewer.pyramid.readers.base import (
    PREVIEW_ONLY,
    UnsupportedFormat,
)
from hrviewer.pyramid.readers.file_reader import FileReader, Selection
from hrviewer.pyramid.readers.jpeg_check import require_few_scans
from hrviewer.pyramid.readers.picture_header import png_mode, stored_bits
from hrviewer.pyramid.readers.png_check import holds_all_rows
from hrviewer.pyramid.series import Series
from hrviewer.pyramid.tile_cache import DecodedTile
from hrviewer.pyramid.units import UNKNOWN_PIXEL_SIZE

__all__ = ["IN_MEMORY_LIMIT", "PillowReader", "PillowTiffReader", "picture_size"]

FORMATS = (
    *("PNG", "JPEG", "MPO", "TIFF", "BMP", "DIB", "GIF", "WEBP", "PPM", "PCX", "TGA", "JPEG2000"),
    *("ICO", "SGI", "AVIF"),
)
"""Pillow's formats that are opened: those that Pillow itself decodes. It would start Ghostscript
for EPS, and decoders of other formats are little tested."""

ANIMATED = {"GIF", "WEBP", "PNG", "AVIF"}
"""Formats whose frames are moments in time."""

TILE = 512
IN_MEMORY_LIMIT = 64_000_000
MAX_PIXELS = 200_000_000
"""Pixels; decoding more would take gigabytes of memory. libvips streams them."""

QUICK_CHECK_PIXELS = 8_000_000
"""Pixels; a larger picture is checked without decoding it."""

EXIF_ORIENTATION = 274
NATIVE_MODES = {
    "L": "u1",
    "LA": "u1",
    "RGB": "u1",
    "RGBA": "u1",
    "I;16": "u2",
    "I;16B": "u2",
    "I;16L": "u2",
    "I": "i4",
    "F": "f4",
}
"""Pillow's modes that are read without conversion, and their types."""

COLOUR_MODES = ("LA", "RGB", "RGBA")
"""Modes of several bands."""

# Pillow's own guard against huge images is a global variable; ours is MAX_PIXELS.
_pillow_limit_lock = threading.Lock()


def _open_header(path: str) -> Any:
    """Read an image's header."""
    from PIL import Image

    Image.init()
    known = Image.OPEN
    with _pillow_limit_lock:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(path, formats=[name for name in FORMATS if name in known])
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def picture_size(path: str) -> tuple[int, int]:
    """Return the height and width of a picture, before its orientation is applied."""
    with _open_header(path) as image:
        return int(image.height), int(image.width)


class PillowReader(FileReader):
    """One image file, read by Pillow."""

    priority = 20
    in_memory = True
    failure: ClassVar[str] = "cannot be read"
    failure_kind: ClassVar[type[ImageReadError]] = ImageReadError
    _decoded: np.ndarray[Any, np.dtype[Any]] | None = None
    _seconds: float = 0.0

    @classmethod
    def supports(cls, obj: object) -> bool:
        """Whether Pillow recognises the file; TIFF is left to other readers."""
        if not isinstance(obj, str) or not os.path.isfile(obj):
            return False
        return _format_of(obj) not in (None, "TIFF")

    def load(self, path: Path, selection: Selection) -> None:
        """Read the metadata."""
        self._lock = threading.Lock()
        with _open_header(str(path)) as image:
            self._load_header(path, image, selection)

    def _load_header(self, path: Path, image: Any, selection: Selection) -> None:
        self.notes.append(UNKNOWN_PIXEL_SIZE)
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise ImageReadError(
                f"{path.name} has {width * height / 1e6:.0f} megapixels, too many to keep in "
                'memory: pip install "hrviewer[pictures]" streams it into the cache'
            )
        if image.format in ("JPEG", "MPO"):
            with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
                require_few_scans(data, path.name)
        frames = image.n_frames if image.format in ANIMATED else 1
        self.set_plane({"t": frames} if frames > 1 else {}, selection.plane)
        self._mode = _output_mode(image.mode, "transparency" in image.info)
        self.dtype = np.dtype(NATIVE_MODES[self._mode])
        self._deep = False
        if self._mode in COLOUR_MODES and (bits := stored_bits(str(path), image)) > 8:
            plain = frames == 1 and image.getexif().get(EXIF_ORIENTATION, 1) == 1
            mode = png_mode(str(path)) if image.format == "PNG" else None
            if mode and plain and "transparency" not in image.info:
                self._deep, self._mode, self.dtype = True, mode, np.dtype(np.uint16)
            else:
                self.notes.append(f"{bits} bits per channel are read as 8")
        bands = len(self._mode) if self._mode in COLOUR_MODES else 1
        self._channels, self._alpha = self.set_bands(
            bands, selection.channels, alpha=self._mode.endswith("A")
        )
        if image.getexif().get(EXIF_ORIENTATION, 1) in (5, 6, 7, 8):
            width, height = height, width
        self._shape = height, width, bands
        self.set_series([Series("0", shape=(height, width))], selection.series)
        self.set_levels([((height, width, len(self._channels)), (TILE, TILE))])

    def decode(self, level: int, row: int, column: int) -> DecodedTile:
        """Slice a tile out of the image, at its share of the cost of decoding."""
        start = time.perf_counter()
        pixels, decoded_now = self._decode_image()
        y, x = row * TILE, column * TILE
        tile = pixels[y : y + TILE, x : x + TILE]
        h, w, _ = tile.shape
        valid = None if self._alpha is None else tile[..., self._alpha] > 0
        if len(self._channels) < self._shape[2] or self.selected_channels is not None:
            tile = tile[..., list(self._channels)]
        area = self._shape[0] * self._shape[1]
        # Shares are differences of running sums, so that they add up to the file's size.
        before = y * self._shape[1] + x * h
        size = os.path.getsize(str(self.path))
        stored = (before + h * w) * size // area - before * size // area
        cutting = 0.0 if decoded_now else time.perf_counter() - start
        return DecodedTile(tile, stored, self._seconds * h * w / area + cutting, valid)

    def _decode_image(self) -> tuple[np.ndarray[Any, np.dtype[Any]], bool]:
        """Return the whole image, and whether this call decoded it."""
        with self._lock:
            if self._decoded is not None:
                return self._decoded, False
            start = time.perf_counter()
            pixels = self._read_pixels().reshape(self._shape)
            if not pixels[-1].any() and not holds_all_rows(str(self.path)):
                raise ImageReadError(
                    f"{self.name} has fewer rows than its header says; the file is damaged"
                )
            if pixels.shape[0] * pixels.shape[1] > IN_MEMORY_LIMIT:
                with tempfile.TemporaryFile() as file:  # the mapping outlives it
                    spilled = np.memmap(file, pixels.dtype, "w+", shape=pixels.shape)
                spilled[...] = pixels
                pixels = spilled
            self._decoded = pixels
            self._seconds = time.perf_counter() - start
            return pixels, True

    def _read_pixels(self) -> np.ndarray[Any, np.dtype[Any]]:
        if self._deep:
            import imagecodecs

            return np.asarray(imagecodecs.png_decode(Path(str(self.path)).read_bytes()), self.dtype)
        from PIL import ImageOps

        with _open_header(str(self.path)) as image:
            if self.plane:
                image.seek(self.plane["t"])
            ImageOps.exif_transpose(image, in_place=True)
            return np.asarray(_convert(image, self._mode), self.dtype)

    def check(self) -> None:
        """Decode the middle tile; of a large picture check the file without decoding it."""
        height, width, _ = self._shape
        if height * width <= QUICK_CHECK_PIXELS:
            super().check()
            return
        try:
            with _open_header(str(self.path)) as image:
                if image.format == "JPEG":
                    image.draft(None, (max(1, width // 8), max(1, height // 8)))
                    image.load()
                else:
                    image.verify()
            if not holds_all_rows(str(self.path)):
                raise ValueError("it has fewer rows than its header says")
        except Exception as error:
            raise ImageReadError(
                f"{self.name} cannot be decoded: {short_message(error)}; the file is damaged"
            ) from error

    def close(self) -> None:
        """Release the pixels."""
        with self._lock:
            self._decoded = None


class PillowTiffReader(PillowReader):
    """A TIFF in a coding that the other readers do not decode, as JPEG in the old style."""

    priority = 15

    @classmethod
    def supports(cls, obj: object) -> bool:
        """Whether it is a TIFF."""
        return isinstance(obj, str) and os.path.isfile(obj) and _format_of(obj) == "TIFF"

    @classmethod
    def open(cls, obj: object, **options: Any) -> Self:
        """Decode the image at once: where that fails, the other readers' reasons hold."""
        try:
            reader = super().open(obj, **options)
            with _open_header(str(obj)) as image:
                pages = getattr(image, "n_frames", 1)
            if reader._shape[0] * reader._shape[1] > IN_MEMORY_LIMIT:
                raise UnsupportedFormat(f"{reader.name} has too many pixels to decode as a whole")
            reader._decode_image()
        except ParameterError:
            raise
        except Exception as error:
            raise UnsupportedFormat(short_message(error)) from error
        if pages > 1:
            reader.notes.append(f"the first of {pages} pages is shown")
        return reader


def _format_of(path: str) -> str | None:
    """Return the name of an image's format; None if Pillow does not decode it."""
    from PIL import ImageFile

    if Path(path).suffix.lower() in PREVIEW_ONLY:
        return None
    try:
        with _open_header(path) as image:
            # Stubs know a format's signature only: HDF5, GRIB and others.
            stub = isinstance(image, ImageFile.StubImageFile)
            return None if stub else str(image.format)
    except Exception:
        return None


def _output_mode(mode: str, transparent: bool) -> str:
    """Return the mode to which an image is converted."""
    if mode in ("LA", "La", "RGBA", "RGBa", "PA") or (transparent and mode in ("L", "RGB", "P")):
        return "LA" if mode.startswith("L") else "RGBA"
    if mode in NATIVE_MODES:
        return mode
    return "L" if mode == "1" else "RGB"


def _convert(image: Any, mode: str) -> Any:
    return image if image.mode == mode else image.convert(mode)
