"""Slides read by OpenSlide: MRXS, DICOM and others, and TIFFs that tifffile cannot open.

OpenSlide does not report the stored bytes of a tile, so each tile gets its share, by pixels, of the
files' size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from hrviewer.errors import ImageReadError, short_message
from hrviewer.pyramid import fingerprint
from hrviewer.pyramid.readers.base import Reader, UnsupportedFormat, select_channels, select_plane
from hrviewer.pyramid.tile_cache import DecodedTile
from hrviewer.pyramid.units import UNKNOWN_PIXEL_SIZE, plausible

__all__ = ["OpenSlideReader"]

TILE = 512
OPENSLIDE_ONLY = {".mrxs", ".dcm", ".vms", ".vmu", ".svslide", ".bif", ".zvi", ".czi"}
ALSO_READ_BY_TIFFFILE = {".svs", ".ndpi", ".scn", ".tif", ".tiff"}


class OpenSlideReader(Reader):
    """One slide, read by OpenSlide."""

    priority: ClassVar[int] = 30

    @classmethod
    def supports(cls, obj: object) -> bool:
        """Whether it is a file with a slide's suffix, or a folder of DICOM files."""
        if not isinstance(obj, str):
            return False
        path = Path(obj)
        if path.is_dir():
            return next(path.glob("*.dcm"), None) is not None
        return path.is_file() and path.suffix.lower() in OPENSLIDE_ONLY | ALSO_READ_BY_TIFFFILE

    @classmethod
    def open(cls, obj: object, *, plane: Mapping[str, int], channels: Sequence[int] | None) -> Self:
        """Open a slide."""
        path = Path(str(obj))
        try:
            import openslide
        except ImportError as error:
            raise ImageReadError(
                f'{path.name} is read by OpenSlide: pip install "hrviewer[slides]"'
            ) from error
        reason = "OpenSlide does not support the format"
        # A DICOM folder also holds label and thumbnail files, which do not open as slides.
        for file in sorted(path.glob("*.dcm")) if path.is_dir() else [path]:
            try:
                slide = openslide.OpenSlide(file)
            except openslide.OpenSlideError as error:
                reason = short_message(error)
                continue
            return cls(path, file, slide, plane, channels)
        raise UnsupportedFormat(f"{path.name} cannot be opened as a slide: {reason}")

    def __init__(
        self,
        path: Path,
        file: Path,
        slide: Any,
        plane: Mapping[str, int],
        channels: Sequence[int] | None,
    ) -> None:
        self.name, self.path = path.name, str(path)
        self.notes = []
        self.dtype = np.dtype(np.uint8)
        self._slide = slide
        properties = slide.properties
        colour = properties.get("openslide.background-color", "FFFFFF")
        self._background = tuple(bytes.fromhex(colour))
        self.plane = select_plane(self.name, {}, plane, self.notes)
        self.selected_channels = select_channels(self.name, 3, channels)
        self.pixel_size = _pixel_size(properties)
        if self.pixel_size is None:
            self.notes.append(UNKNOWN_PIXEL_SIZE)
        files = _slide_files(file)
        self.fingerprint = fingerprint.of_files(files)
        pixels = sum(width * height for width, height in slide.level_dimensions)
        self._bytes_per_pixel = sum(part.stat().st_size for part in files) / pixels
        bands = 3 if self.selected_channels is None else len(self.selected_channels)
        self._shapes = [(h, w, bands) for w, h in slide.level_dimensions]
        self.set_levels([(shape, (TILE, TILE)) for shape in self._shapes])

    def decode(self, level: int, row: int, column: int) -> DecodedTile:
        """Read one tile, over the slide's background where it is transparent."""
        from PIL import Image

        (height, width, _), y, x = self._shapes[level], row * TILE, column * TILE
        h, w = min(TILE, height - y), min(TILE, width - x)
        down = self._slide.level_downsamples[level]
        region = self._slide.read_region((round(x * down), round(y * down)), level, (w, h))
        flat = Image.new("RGB", region.size, self._background)
        flat.paste(region, mask=region.getchannel("A"))
        pixels = np.asarray(flat)
        if self.selected_channels is not None:
            pixels = pixels[..., list(self.selected_channels)]
        return DecodedTile(pixels, round(h * w * self._bytes_per_pixel))

    def close(self) -> None:
        """Close the slide."""
        self._slide.close()


def _slide_files(file: Path) -> list[Path]:
    """Return all files of a slide: DICOM siblings, or those in a folder of the same name."""
    if file.suffix.lower() == ".dcm":
        return sorted(file.parent.glob("*.dcm"))
    folder = file.with_suffix("")
    parts = [entry for entry in folder.rglob("*") if entry.is_file()] if folder.is_dir() else []
    return [file, *sorted(parts)]


def _pixel_size(properties: Mapping[str, str]) -> tuple[float, float] | None:
    try:
        size = float(properties["openslide.mpp-y"]), float(properties["openslide.mpp-x"])
    except (KeyError, ValueError):
        return None
    return size if plausible(size) else None
