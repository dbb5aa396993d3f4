"""JPEG 2000 by region and resolution, read by GDAL's OpenJPEG driver through rasterio.

The resolutions that the wavelets give are the coarse levels; a GeoJP2 has its place on Earth.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from hrviewer.pyramid.georeference import Georeference
from hrviewer.pyramid.readers.base import ChannelInfo, native_dtype
from hrviewer.pyramid.readers.file_reader import FileReader, Selection, tile_window
from hrviewer.pyramid.readers.picture_header import HEAD_BYTES, is_jpeg2000
from hrviewer.pyramid.series import Series
from hrviewer.pyramid.tile_cache import DecodedTile
from hrviewer.pyramid.units import UNKNOWN_PIXEL_SIZE

__all__ = ["Jpeg2000Reader"]

TILE = 1024
DRIVER = "JP2OpenJPEG"


class Jpeg2000Reader(FileReader):
    """One JPEG 2000 file."""

    priority: ClassVar[int] = 28
    failure: ClassVar[str] = "cannot be read by GDAL"
    _files: Sequence[Any] = ()

    @classmethod
    def supports(cls, obj: object) -> bool:
        """Whether it is JPEG 2000, and rasterio is there with its driver."""
        if not isinstance(obj, str) or not Path(obj).is_file():
            return False
        with open(obj, "rb") as file:
            if not is_jpeg2000(file.read(HEAD_BYTES)):
                return False
        try:
            from rasterio.env import Env
        except ImportError:  # Pillow decodes smaller ones as a whole
            return False
        with Env() as env:
            return DRIVER in env.drivers()

    def load(self, path: Path, selection: Selection) -> None:
        """Read the metadata."""
        self._lock = threading.Lock()
        self._files = [open_level(path)]
        file = self._files[0]
        self._files = [file, *(open_level(path, i) for i in range(len(file.overviews(1))))]
        height, width = file.shape
        self.set_plane({}, selection.plane)
        self.dtype = native_dtype(self.name, np.dtype(file.dtypes[0]))
        names = [kind.name for kind in file.colorinterp]
        self._alpha = names.index("alpha") if "alpha" in names else None
        # A bare codestream does not name its colours.
        bare = len(names) == 3 and not {"red", "green", "blue"} & set(names)
        is_rgb = bare or names[:3] == ["red", "green", "blue"]
        default = tuple(band for band in range(file.count) if band != self._alpha)
        infos = [ChannelInfo(text or "") for text in file.descriptions]
        self._channels = self.set_channels(infos, selection.channels, default, is_rgb=is_rgb)
        if self._alpha in self._channels:
            self._alpha = None
        self.has_mask = self._alpha is not None
        self.nodata = None if file.nodata is None else float(file.nodata)
        bits = file.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", "")
        if bits.isdecimal() and self.dtype.kind == "u":
            self.stored_range = 0.0, 2.0 ** int(bits) - 1
        self.georeference = read_place(file)
        if self.georeference is not None:
            self.pixel_size = self.georeference.pixel_size((height, width))
        if self.pixel_size is None:
            self.notes.append(UNKNOWN_PIXEL_SIZE)
        self.set_series([Series("0", shape=(height, width))], selection.series)
        self._bytes_per_pixel = path.stat().st_size / (height * width)
        bands = len(self._channels)
        self.set_levels([((*level.shape, bands), (TILE, TILE)) for level in self._files])

    def decode(self, level: int, row: int, column: int) -> DecodedTile:
        """Decode a region."""
        from rasterio.windows import Window

        file = self._files[level]
        y, x, h, w = tile_window(file.shape, TILE, row, column)
        bands = [*self._channels, *([] if self._alpha is None else [self._alpha])]
        with self._lock:
            pixels = file.read([band + 1 for band in bands], window=Window(x, y, w, h))
        pixels = pixels.transpose(1, 2, 0)
        valid = None
        if self._alpha is not None:
            pixels, valid = pixels[..., :-1], pixels[..., -1] > 0
        return DecodedTile(pixels, round(h * w * self._bytes_per_pixel), valid=valid)

    def close(self) -> None:
        """Close the file."""
        for file in self._files:
            file.close()


def open_level(path: Path, overview: int | None = None) -> Any:
    """Open the file at full resolution, or at one of its coarser ones."""
    import rasterio

    options = {} if overview is None else {"OVERVIEW_LEVEL": overview}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        return rasterio.open(path, driver=DRIVER, **options)


def read_place(file: Any) -> Georeference | None:
    """Return the place on Earth of GDAL's dataset, if it has one."""
    crs = file.crs
    if crs is None:
        return None
    code = crs.to_epsg()
    name = f"EPSG:{code}" if code else str(crs.to_wkt())
    affine = tuple(file.transform)[:6]
    if crs.is_geographic:
        return Georeference(name, affine, geographic=True)
    return Georeference(name, affine, float(crs.linear_units_factor[1]))
