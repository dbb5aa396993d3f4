"""Slides read by OpenSlide: MRXS, DICOM, SCN, BIF, Philips and others.

OpenSlide stitches overlapping tiles and knows the metadata of the vendors' dialects of TIFF, so it
is asked before the general reader for those; for the others it is asked after that. It does not
report the stored bytes of a tile, so each tile gets its share, by pixels, of the files' size.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from hrviewer.errors import ImageReadError, short_message
from hrviewer.pyramid import fingerprint
from hrviewer.pyramid.readers.base import ChannelSelection, Reader, UnsupportedFormat
from hrviewer.pyramid.series import Series, kind_by_name
from hrviewer.pyramid.tile_cache import DecodedTile
from hrviewer.pyramid.units import UNKNOWN_PIXEL_SIZE, plausible
from hrviewer.pyramid.unreadable import explain_unreadable

__all__ = ["OpenSlideFallback", "OpenSlideReader"]

TILE = 512
SLIDES = {".mrxs", ".dcm", ".vms", ".vmu", ".svslide", ".zvi", ".czi"}
TIFF_DIALECTS = {".svs", ".ndpi", ".scn", ".bif", ".tif", ".tiff"}
PREFERRED_VENDORS = {"leica", "philips", "trestle", "ventana"}
"""Vendors whose dialects of TIFF OpenSlide reads better than the general reader."""

UNSUPPORTED = "Unsupported or missing image file"
"""What OpenSlide says of every file that is no slide."""

DICOM_SERIES = re.compile(rb"\x20\x00\x0e\x00UI..([0-9.]+)", re.DOTALL)
"""The element SeriesInstanceUID: files of one slide have the same."""
DICOM_HEADER_BYTES = 64 * 1024


class OpenSlideReader(Reader):
    """One slide, or one of its associated images, read by OpenSlide."""

    priority: ClassVar[int] = 60
    _picture: Any = None
    """The associated image that was opened instead of the slide."""

    @classmethod
    def supports(cls, obj: object) -> bool:
        """Whether it is a slide of a format that OpenSlide reads best, or a folder of DICOM."""
        if not isinstance(obj, str):
            return False
        path = Path(obj)
        if path.is_dir():
            return next(path.glob("*.dcm"), None) is not None
        suffix = path.suffix.lower()
        if not path.is_file():
            return False
        return suffix in SLIDES or (suffix in TIFF_DIALECTS and _vendor(path) in PREFERRED_VENDORS)

    @classmethod
    def open(
        cls,
        obj: object,
        *,
        plane: Mapping[str, int],
        channels: ChannelSelection | None,
        series: str | int | None,
    ) -> Self:
        """Open a slide, or one of its associated images."""
        path = Path(str(obj))
        try:
            import openslide
        except ImportError as error:
            raise ImageReadError(
                f'{path.name} is read by OpenSlide: pip install "hrviewer[slides]"'
            ) from error
        reason = ""
        opened: list[tuple[Path, Any]] = []
        for files in _groups(path):
            # A DICOM series also holds label and thumbnail files, which do not open as slides.
            for file in files:
                try:
                    opened.append((file, openslide.OpenSlide(file)))
                    break
                except openslide.OpenSlideError as error:
                    reason = short_message(error)
        if not opened and reason in ("", UNSUPPORTED):
            raise UnsupportedFormat(explain_unreadable(path))
        if not opened:
            raise UnsupportedFormat(f"{path.name} cannot be opened as a slide: {reason}")
        return cls(path, opened, plane, channels, series)

    def __init__(
        self,
        path: Path,
        slides: Sequence[tuple[Path, Any]],
        plane: Mapping[str, int],
        channels: ChannelSelection | None,
        series: str | int | None,
    ) -> None:
        self.name, self.path = path.name, str(path)
        self.notes = []
        self.dtype = np.dtype(np.uint8)
        self.set_plane({}, plane)
        self.set_channels(3, channels, is_rgb=True)
        self.has_mask = True
        self._slides = [slide for _, slide in slides]
        files = _slide_files(slides[0][0])
        self.fingerprint = fingerprint.of_files(files)
        several = len(slides) > 1
        listed = [
            Series(str(i), file.stem if several else "", _shape(slide))
            for i, (file, slide) in enumerate(slides)
        ]
        associated = [] if several else _associated(slides[0][1])
        chosen = self.set_series([*listed, *associated], series)
        self._slide = self._slides[chosen if several else 0]
        properties = self._slide.properties
        colour = properties.get("openslide.background-color", "FFFFFF")
        self._background = tuple(bytes.fromhex(colour))
        if chosen < len(listed):
            sizes = self._slide.level_dimensions
            self.pixel_size = _pixel_size(properties)
        else:
            self._picture = self._slide.associated_images[associated[chosen - 1].id]
            sizes = [self._picture.size]
        if self.pixel_size is None:
            self.notes.append(UNKNOWN_PIXEL_SIZE)
        pixels = sum(w * h for slide in self._slides for w, h in slide.level_dimensions)
        self._bytes_per_pixel = sum(part.stat().st_size for part in files) / pixels
        bands = 3 if self.selected_channels is None else len(self.selected_channels)
        self._shapes = [(h, w, bands) for w, h in sizes]
        self.set_levels([(shape, (TILE, TILE)) for shape in self._shapes])

    def decode(self, level: int, row: int, column: int) -> DecodedTile:
        """Read one tile, over the slide's background where it is transparent."""
        from PIL import Image

        (height, width, _), y, x = self._shapes[level], row * TILE, column * TILE
        h, w = min(TILE, height - y), min(TILE, width - x)
        if self._picture is None:
            down = self._slide.level_downsamples[level]
            region = self._slide.read_region((round(x * down), round(y * down)), level, (w, h))
        else:
            region = self._picture.crop((x, y, x + w, y + h))
        flat = Image.new("RGB", region.size, self._background)
        flat.paste(region, mask=region.getchannel("A"))
        pixels = np.asarray(flat)
        if self.selected_channels is not None:
            pixels = pixels[..., list(self.selected_channels)]
        valid = np.asarray(region.getchannel("A")) > 0
        return DecodedTile(pixels, round(h * w * self._bytes_per_pixel), valid=valid)

    def close(self) -> None:
        """Close the slides."""
        for slide in self._slides:
            slide.close()


class OpenSlideFallback(OpenSlideReader):
    """A slide in a dialect of TIFF that the general reader does not open."""

    priority: ClassVar[int] = 30

    @classmethod
    def supports(cls, obj: object) -> bool:
        """Whether it is a file with the suffix of a TIFF."""
        if not isinstance(obj, str) or not Path(obj).is_file():
            return False
        return Path(obj).suffix.lower() in TIFF_DIALECTS


def _vendor(path: Path) -> str | None:
    try:
        import openslide
    except ImportError:
        return None
    vendor: str | None = openslide.OpenSlide.detect_format(path)
    return vendor


def _groups(path: Path) -> list[list[Path]]:
    """Return the files to try for each slide: those of each DICOM series of a folder."""
    if not path.is_dir():
        return [[path]]
    groups: dict[bytes, list[Path]] = {}
    for file in sorted(path.glob("*.dcm")):
        with file.open("rb") as stream:
            found = DICOM_SERIES.search(stream.read(DICOM_HEADER_BYTES))
        groups.setdefault(found[1] if found else b"", []).append(file)
    return list(groups.values())


def _shape(slide: Any) -> tuple[int, int]:
    width, height = slide.dimensions
    return height, width


def _associated(slide: Any) -> list[Series]:
    """Return a slide's associated images; their sizes are not known to old versions."""
    found = []
    for name in slide.associated_images:
        sides = [
            slide.properties.get(f"openslide.associated.{name}.{s}") for s in ("height", "width")
        ]
        shape = (int(sides[0]), int(sides[1])) if all(sides) else None
        kind = kind_by_name(name)
        found.append(Series(name, name, shape, "preview" if kind == "image" else kind))
    return found


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
