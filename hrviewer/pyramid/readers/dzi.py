"""Deep Zoom images: a ``.dzi`` file, and its tiles as JPEG or PNG in the folder ``NAME_files``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar
from xml.etree import ElementTree

import numpy as np

from hrviewer.errors import ImageReadError
from hrviewer.pyramid.readers.base import LevelLayout
from hrviewer.pyramid.readers.file_reader import FileReader, Selection, tile_window
from hrviewer.pyramid.series import Series
from hrviewer.pyramid.tile_cache import DecodedTile
from hrviewer.pyramid.units import UNKNOWN_PIXEL_SIZE

__all__ = ["DziReader"]

MAX_XML_BYTES = 64 * 1024
MAX_TILE, MAX_SIDE = 4096, 1 << 31


class DziReader(FileReader):
    """One Deep Zoom image, named by its ``.dzi`` file or the folder of its tiles."""

    priority: ClassVar[int] = 40
    failure: ClassVar[str] = "is not a readable Deep Zoom image"
    failure_kind: ClassVar[type[ImageReadError]] = ImageReadError

    @classmethod
    def supports(cls, obj: object) -> bool:
        """Whether it is the file or the folder."""
        return isinstance(obj, str) and _description(Path(obj)) is not None

    @classmethod
    def locate(cls, path: Path) -> Path:
        """Return the description."""
        return _description(path) or path

    @classmethod
    def files(cls, path: Path) -> Sequence[Path]:
        """Return the description, and the coarsest levels, which change with the image."""
        folder = path.with_name(f"{path.stem}_files")
        return [path, *(file for n in range(9) for file in sorted((folder / str(n)).glob("0_0.*")))]

    def load(self, path: Path, selection: Selection) -> None:
        """Read the metadata."""
        self.notes.append(UNKNOWN_PIXEL_SIZE)
        self._folder = path.with_name(f"{path.stem}_files")
        height, width = self._read_description(path)
        if not self._folder.is_dir():
            raise ImageReadError(f"{path.name}: the folder {self._folder.name} is missing: copy it")
        self.set_plane({}, selection.plane)
        self.dtype = np.dtype(np.uint8)
        top = (max(height, width) - 1).bit_length()
        self._numbers = [n for n in range(top, -1, -1) if (self._folder / str(n)).is_dir()]
        if not self._numbers or self._numbers[0] != top:
            raise ImageReadError(f"{path.name}: the folder {top} of full resolution is missing")
        probe = next(iter(sorted((self._folder / str(self._numbers[0])).iterdir())), None)
        self._bands = 3 if probe is None else _read(probe).shape[2]
        self._channels, self._alpha = self.set_bands(
            self._bands, selection.channels, alpha=self._bands in (2, 4)
        )
        across, down = -(-width // self._tile), -(-height // self._tile)
        finest = sum(1 for _ in (self._folder / str(top)).iterdir())
        self.has_mask = self._alpha is not None or finest < across * down
        self.set_series([Series("0", shape=(height, width))], selection.series)
        layouts: list[LevelLayout] = []
        for number in self._numbers:
            side = 2 ** (top - number)
            shape = -(-height // side), -(-width // side), len(self._channels)
            layouts.append((shape, (self._tile, self._tile)))
            if max(shape[:2]) <= self._tile:
                break
        self._shapes = [shape for shape, _ in layouts]
        self.set_levels(layouts)

    def _read_description(self, path: Path) -> tuple[int, int]:
        """Read the size, and the layout of the tiles."""
        if path.stat().st_size > MAX_XML_BYTES:
            raise ImageReadError(f"{path.name} is too large for the description of an image")
        root = ElementTree.fromstring(path.read_bytes())
        size = root.find("{*}Size")
        assert size is not None
        height, width = int(size.get("Height", "")), int(size.get("Width", ""))
        self._tile, self._overlap = int(root.get("TileSize", "")), int(root.get("Overlap", "0"))
        self._suffix = root.get("Format", "")
        if not (0 < height < MAX_SIDE and 0 < width < MAX_SIDE and 0 < self._tile <= MAX_TILE):
            raise ImageReadError(f"{path.name} states a size that is no image's")
        if not 0 <= self._overlap < self._tile or not re.fullmatch(r"\w+", self._suffix):
            raise ImageReadError(f"{path.name} states tiles that cannot be read")
        return height, width

    def decode(self, level: int, row: int, column: int) -> DecodedTile:
        """Decode a tile, without its overlap; one that is missing has no data."""
        _, _, h, w = tile_window(self._shapes[level], self._tile, row, column)
        number = self._numbers[level]
        file = self._folder / str(number) / f"{column}_{row}.{self._suffix}"
        if not file.is_file():
            pixels = np.zeros((h, w, len(self._channels)), np.uint8)
            return DecodedTile(pixels, 0, valid=np.zeros((h, w), bool))
        stored = _read(file)
        top, left = self._overlap * (row > 0), self._overlap * (column > 0)
        pixels = stored[top : top + h, left : left + w]
        if pixels.shape != (h, w, self._bands):
            raise ValueError(f"it holds {stored.shape} pixels")
        valid = None if self._alpha is None else pixels[..., self._alpha] > 0
        return DecodedTile(pixels[..., list(self._channels)], file.stat().st_size, valid=valid)


def _description(path: Path) -> Path | None:
    """Return the ``.dzi`` file of a path; None if it is no Deep Zoom image."""
    if path.is_dir() and path.name.endswith("_files"):
        path = path.with_name(f"{path.name.removesuffix('_files')}.dzi")
    return path if path.suffix.lower() == ".dzi" and path.is_file() else None


def _read(file: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Decode a file as ``(h, w, bands)``."""
    from PIL import Image

    with Image.open(file) as image:
        if image.width > 2 * MAX_TILE or image.height > 2 * MAX_TILE:
            raise ValueError(f"it has {image.height} × {image.width} pixels")
        mode = image.mode if image.mode in ("L", "LA", "RGB", "RGBA") else "RGB"
        pixels = np.asarray(image.convert(mode), np.uint8)
    return pixels if pixels.ndim == 3 else pixels[..., None]
