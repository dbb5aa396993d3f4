"""TIFF and its dialects, by tifffile: SVS, NDPI, OME-TIFF, COG, strips, tiles.

Invariants: tifffile reads the structure once, when the file is opened; this module reads pixels,
one stored segment (tile or strip) at a time, straight from the file's bytes; no size in a header
is trusted before it is checked. Thin segments (strips, those of NDPI) are grouped into tiles of up
to 4 megapixels. The tag Orientation is applied to tiles, so all other code gets an upright image.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from hrviewer.errors import ImageReadError
from hrviewer.pyramid import fingerprint
from hrviewer.pyramid.readers.base import (
    MAX_TILE_PIXELS,
    PREVIEW_ONLY,
    ChannelSelection,
    LevelLayout,
    Reader,
    UnsupportedFormat,
    native_dtype,
    reporting,
)
from hrviewer.pyramid.readers.byte_reader import ByteReader
from hrviewer.pyramid.readers.tiff_channels import (
    find_colour_samples,
    has_rgb_samples,
    mask_pages,
    read_channels,
    ycbcr_to_rgb,
)
from hrviewer.pyramid.readers.tiff_geo import read_georeference
from hrviewer.pyramid.readers.tiff_layout import SinglePage, StoredLevel, StoredPage, is_sparse
from hrviewer.pyramid.readers.tiff_pixel_size import read_pixel_size, read_plane_steps
from hrviewer.pyramid.readers.tiff_series import (
    describe_series,
    is_companion,
    list_series,
    open_tiff,
)
from hrviewer.pyramid.readers.tiff_side_files import SideFiles, open_side_files
from hrviewer.pyramid.readers.tiff_tags import (
    JPEG_COMPRESSIONS,
    ORIENTATIONS,
    read_nodata,
    read_stored_range,
    read_tag,
    require_coded_size,
)
from hrviewer.pyramid.remote import RemoteFile, is_url, url_name
from hrviewer.pyramid.tile_cache import DecodedTile
from hrviewer.pyramid.units import UNKNOWN_PIXEL_SIZE
from hrviewer.pyramid.unreadable import TO_TILED_TIFF

__all__ = ["TiffReader"]

# Odd tags are common and harmless; without a handler Python prints them to the terminal.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
MAX_GROUPED_PIXELS = 4_000_000
"""Maximum pixels of a tile made of thin segments."""

APERIO_YCBCR, APERIO_RGB = 33003, 33005  # independent of the tag Photometric

Pixels = np.ndarray[Any, np.dtype[Any]]


class TiffReader(Reader):
    """One image of a TIFF file."""

    priority = 50

    @classmethod
    def supports(cls, obj: object) -> bool:
        """Whether it is a file with a TIFF signature, or the metadata of several."""
        if is_url(obj) and ".zarr" not in str(obj):
            remote = RemoteFile(str(obj))
            return remote.size > 4 and remote.read(0, 4).startswith(MAGIC)
        if not isinstance(obj, str) or not os.path.isfile(obj):
            return False
        if is_companion(Path(obj)):
            return True
        with open(obj, "rb") as file:
            return file.read(4).startswith(MAGIC)

    @classmethod
    def open(
        cls,
        obj: object,
        *,
        plane: Mapping[str, int],
        channels: ChannelSelection | None,
        series: str | int | None,
    ) -> Self:
        """Open a file."""
        path = Path(url_name(str(obj)) if is_url(obj) else str(obj))
        if path.suffix.lower() in PREVIEW_ONLY:
            raise UnsupportedFormat(
                f"{path.name} holds a preview only, and the slide lies in the .ets files of its "
                'folder: pip install "hrviewer[microscopes]", or convert the slide with '
                "bioformats2raw, which makes an OME-Zarr"
            )
        with reporting(f"{path.name} is not a readable TIFF", UnsupportedFormat):
            tiff, remote = open_tiff(str(obj))
            with tiff, open_side_files(str(obj)) as beside:
                return cls(str(obj), path.name, tiff, plane, channels, series, beside, remote)

    def __init__(
        self,
        path: str,
        name: str,
        tiff: Any,
        plane: Mapping[str, int],
        channels: ChannelSelection | None,
        wanted: str | int | None,
        beside: SideFiles,
        remote: RemoteFile | None = None,
    ) -> None:
        self.name, self.path = name, path
        if remote is None:
            self.fingerprint = fingerprint.of_files([Path(path), *beside.paths])
        else:
            self.fingerprint = fingerprint.of_text(path, remote.version, str(remote.size))
        self.notes = []
        self._remote = remote
        self._files: dict[str, ByteReader | RemoteFile] = {}
        self._lock = threading.Lock()
        self._masks: dict[int, StoredLevel] = {}
        # The levels' arrays may outlive the pyramid, so files are closed with the reader.
        self._finalize = weakref.finalize(self, _close_files, self._files)
        entries = list_series(tiff)
        series = entries[self.set_series(describe_series(entries), wanted)]
        key = series.keyframe
        self._colour_samples, self._alpha = find_colour_samples(name, key)
        self._orientation = ORIENTATIONS.get(read_tag(key, "Orientation"), ORIENTATIONS[1])
        sizes = {
            axis.lower(): size
            for axis, size in zip(series.axes, series.shape, strict=True)
            if axis not in "YXS"
        }
        self._channels_in_pages = (
            "c" in sizes and len(self._colour_samples) == 1 and not self._is_palette(key)
        )
        choices = {
            axis: size for axis, size in sizes.items() if axis != "c" or not self._channels_in_pages
        }
        self.set_plane(choices, plane)
        palette = self._is_palette(key)
        if palette or self._channels_in_pages:
            default = tuple(range(3 if palette else sizes["c"]))
            count = len(default)
        else:
            default, count = tuple(self._colour_samples), key.samplesperpixel
        is_rgb = palette or (not self._channels_in_pages and has_rgb_samples(key))
        infos = 3 if palette else read_channels(tiff, series, count, self._alpha)
        self._channels = self.set_channels(infos, channels, default, is_rgb=is_rgb)
        if not self._channels_in_pages and not palette:
            self._colour_samples = list(self._channels)
            if self._alpha in self._channels:
                self._alpha = None  # a band like the others
        self.dtype = (
            np.dtype(np.uint8) if self._is_palette(key) else native_dtype(self.name, key.dtype)
        )
        self._stored_nodata = read_nodata(key, path)
        if self._stored_nodata is not None and read_tag(key, "GDAL_NODATA") is None:
            beside_it = f"no data {self._stored_nodata}"  # of another file
            self.fingerprint = fingerprint.of_text(self.fingerprint, beside_it)
        self.nodata = self._output_nodata(key)
        self.stored_range = read_stored_range(tiff, series)
        if self._orientation == ORIENTATIONS[1]:
            self.georeference = read_georeference(key)
        self.pixel_size = read_pixel_size(tiff, series)
        self.plane_steps = read_plane_steps(tiff, series)
        if self.georeference is not None:
            self.pixel_size = self.georeference.pixel_size(key.shaped[2:4])
        if self.pixel_size is None:
            self.notes.append(UNKNOWN_PIXEL_SIZE)
        elif self._orientation[0]:
            self.pixel_size = self.pixel_size[::-1]
        stored = list(series.levels)
        if key is tiff.pages[0] and not sizes:
            stored += map(SinglePage, beside.overviews)
        stored = [
            self._inspect_level(level, dict(self.plane), sizes)
            for level in stored
            if level.keyframe.dtype == key.dtype
            and level.keyframe.samplesperpixel == key.samplesperpixel
        ]
        self._levels = self._find_masks(stored, mask_pages(tiff) | beside.masks)
        self.has_mask = bool(
            self._masks
            or self._alpha is not None
            or any(map(is_sparse, self._levels))
            or (palette and self._stored_nodata is not None)
        )
        # The table has a colour for pixels without data, too.
        self.fills_missing = not palette
        layouts, leads = zip(*(self._layout(stored) for stored in self._levels), strict=True)
        self.set_levels(layouts, leads)

    def _find_masks(self, levels: list[StoredLevel], masks: Mapping[Any, Any]) -> list[StoredLevel]:
        """Find the masks of levels, and return the levels that can be used.

        A coarse level without a mask would show pixels without data: it is left out if the finest
        level has one.
        """
        pages = [masks.get((level.height, level.width)) for level in levels]
        if pages[0] is None:
            return levels
        usable = [i for i, page in enumerate(pages) if page is not None]
        self._masks = {
            at: self._inspect_level(SinglePage(pages[i]), {}, {}) for at, i in enumerate(usable)
        }
        if len(usable) < len(levels):
            self.notes.append("coarse levels without the mask of the image are left out")
        return [levels[i] for i in usable]

    @staticmethod
    def _is_palette(key: Any) -> bool:
        return bool(key.photometric == 3 and key.colormap is not None)

    def _inspect_level(
        self, level: Any, plane: Mapping[str, int], sizes: Mapping[str, int]
    ) -> StoredLevel:
        """Find one level's pages and validate their headers."""
        key = level.keyframe
        # tifffile computes these on first access, which may need the file.
        _ = key.decode, key.jpegheader, key.nodata
        separate, _, height, width, contiguous = key.shaped
        bare = bool(key.is_contiguous and key.fillorder == 1 and not key.is_tiled)
        extent = tuple(sizes.values())
        wanted = []
        for channel in self._channels if self._channels_in_pages else (0,):
            at = [
                channel if axis == "c" and self._channels_in_pages else plane[axis]
                for axis in sizes
            ]
            wanted.append(int(np.ravel_multi_index(at, extent)) if at else 0)
        if len(level) >= math.prod(extent):
            pages = tuple(StoredPage.from_tifffile(level[index]) for index in wanted)
            raw = tuple(page.offsets[0] for page in pages if page) if bare else None
        elif bare and level.dataoffset is not None:
            # ImageJ and tifffile store large stacks after a single page.
            size = math.prod(key.shaped) * key.dtype.itemsize
            pages = (StoredPage.from_tifffile(level[0]),) * len(wanted)
            raw = tuple(level.dataoffset + index * size for index in wanted)
        else:
            raise ImageReadError(
                f"{self.name} lacks planes that its header lists; the file is damaged"
            )
        if raw is not None and len(raw) < len(pages):
            raw = None
        if raw is not None:
            segment = 1, width
        elif key.is_tiled:
            segment = key.tilelength, key.tilewidth
        else:
            segment = min(key.rowsperstrip, height), width
        if min(segment) < 1 or segment[0] * segment[1] * contiguous > 4 * MAX_TILE_PIXELS:
            raise ImageReadError(
                f"{self.name} is stored in tiles of {segment[0]} × {segment[1]} pixels; "
                f"{TO_TILED_TIFF}"
            )
        count = -(-height // segment[0]) * -(-width // segment[1]) * separate
        for page in pages:
            if raw is None and page and len(page.offsets) < count:
                raise ImageReadError(
                    f"{self.name} lists fewer tiles than it has; the file is damaged"
                )
        group = 1
        if segment[1] > 8 * segment[0] or not key.is_tiled:
            group = max(
                1, min(MAX_GROUPED_PIXELS // (segment[0] * segment[1]), -(-height // segment[0]))
            )
            if key.is_tiled:
                group = max(1, min(group, 512 // segment[0]))
        return StoredLevel(pages, key, raw, height, width, segment, group)

    def _layout(self, stored: StoredLevel) -> tuple[LevelLayout, tuple[int, int]]:
        transpose, *flips = self._orientation
        shape, tile = (stored.height, stored.width), stored.tile
        if transpose:
            shape, tile = shape[::-1], tile[::-1]
        lead = [(-n % t if flip else 0) for n, t, flip in zip(shape, tile, flips, strict=True)]
        return ((*shape, len(self._channels)), tile), (lead[0], lead[1])

    def decode(self, level: int, row: int, column: int) -> DecodedTile:
        """Decode one tile and turn it upright."""
        stored = self._levels[level]
        transpose, flip_rows, flip_columns = self._orientation
        (h, w), (th, tw) = (stored.height, stored.width), stored.tile
        grid = -(-h // th), -(-w // tw)
        if transpose:
            grid = grid[::-1]
        if flip_rows:
            row = grid[0] - 1 - row
        if flip_columns:
            column = grid[1] - 1 - column
        if transpose:
            row, column = column, row
        y0, y1 = row * th, min(row * th + th, h)
        x0, x1 = column * tw, min(column * tw + tw, w)
        pages = [
            self._decode_page(stored, index, row, column, (y0, y1, x0, x1))
            for index in range(len(stored.pages))
        ]
        parts, sizes, masks = map(list, zip(*pages, strict=True))
        # A pixel has data if one of the channels has them.
        complete = any(mask is None for mask in masks)
        valid = None if complete else np.logical_or.reduce(masks)
        if level in self._masks:
            inside, size = self._read_mask(level, (y0, y1, x0, x1))
            valid = inside if valid is None else valid & inside
            sizes.append(size)
        pixels = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)
        if transpose:
            pixels = pixels.swapaxes(0, 1)
            valid = None if valid is None else valid.T
        if flip_rows:
            pixels = pixels[::-1]
            valid = None if valid is None else valid[::-1]
        if flip_columns:
            pixels = pixels[:, ::-1]
            valid = None if valid is None else valid[:, ::-1]
        return DecodedTile(pixels, sum(sizes), valid=valid)

    def _decode_page(
        self,
        stored: StoredLevel,
        index: int,
        row: int,
        column: int,
        window: tuple[int, int, int, int],
    ) -> tuple[Pixels, int, NDArray[np.bool_] | None]:
        """Return a page's part of a tile, its stored bytes, and where it has data."""
        if stored.raw_offsets is not None:
            pixels, size = self._read_rows(stored, index, *window[:2])
            valid = None
        else:
            pixels, size, valid = self._decode_segments(stored, index, row, column, window)
        if self._alpha is not None:
            opaque = pixels[..., self._alpha] > 0
            valid = opaque if valid is None else opaque & valid
        if self._stored_nodata is not None and self._is_palette(stored.keyframe):
            known = pixels[..., 0].astype(np.float64) != self._stored_nodata
            valid = known if valid is None else known & valid
        return self._to_output(stored.keyframe, pixels), size, valid

    def _output_nodata(self, key: Any) -> float | None:
        """Return the no-data value as pixels have it when they are decoded."""
        value = self._stored_nodata
        if value is None or self._is_palette(key):  # of a palette it is an index
            return None
        if key.dtype.kind == "b":
            value = 255 * value if value in (0, 1) else None
        if key.photometric == 0 and value is not None and self.dtype.kind == "u":
            value = np.iinfo(self.dtype).max - value
        return value

    def _read_mask(
        self, level: int, window: tuple[int, int, int, int]
    ) -> tuple[NDArray[np.bool_], int]:
        """Decode a window of a level's mask page."""
        stored = self._masks[level]
        (y0, y1, x0, x1), (th, tw) = window, stored.tile
        out = np.zeros((y1 - y0, x1 - x0), bool)
        size = 0
        for row in range(y0 // th, -(-y1 // th)):
            for column in range(x0 // tw, -(-x1 // tw)):
                top, left = row * th, column * tw
                bottom, right = min(top + th, stored.height), min(left + tw, stored.width)
                if stored.raw_offsets is not None:
                    pixels, count = self._read_rows(stored, 0, top, bottom)
                else:
                    pixels, count, _ = self._decode_segments(
                        stored, 0, row, column, (top, bottom, left, right)
                    )
                a, b, c, d = max(top, y0), min(bottom, y1), max(left, x0), min(right, x1)
                part = pixels[a - top : b - top, c - left : d - left, 0] != 0
                out[a - y0 : b - y0, c - x0 : d - x0] = part
                size += count
        return out, size

    def _read_rows(self, stored: StoredLevel, index: int, y0: int, y1: int) -> tuple[Pixels, int]:
        """Read rows that are stored uncompressed."""
        assert stored.raw_offsets is not None
        key = stored.keyframe
        separate, _, height, width, contiguous = key.shaped
        dtype = key.dtype.newbyteorder(key.parent.byteorder)
        line = width * contiguous * dtype.itemsize
        page = stored.pages[index]
        assert page is not None
        file = self._file_of(page)
        parts = []
        for sample in range(separate):
            start = stored.raw_offsets[index] + (sample * height + y0) * line
            data = file.read(start, (y1 - y0) * line)
            parts.append(np.frombuffer(data, dtype).reshape(y1 - y0, width, contiguous))
        pixels = parts[0] if separate == 1 else np.concatenate(parts, axis=2)
        return pixels, separate * (y1 - y0) * line

    def _decode_segments(
        self,
        stored: StoredLevel,
        index: int,
        row: int,
        column: int,
        window: tuple[int, int, int, int],
    ) -> tuple[Pixels, int, NDArray[np.bool_] | None]:
        """Decode the segments that make up a tile; also return which of them the file has."""
        key, page = stored.keyframe, stored.pages[index]
        separate, _, height, width, _ = key.shaped
        (sh, sw), (y0, y1, x0, x1) = stored.segment, window
        down, across = -(-height // sh), -(-width // sw)
        pixels = np.empty((y1 - y0, x1 - x0, key.samplesperpixel), self._native_dtype(key))
        size = 0
        valid: NDArray[np.bool_] | None = None
        for sample in range(separate):
            bands = slice(sample, sample + 1) if separate > 1 else slice(None)
            for at in range(row * stored.segment_rows, min((row + 1) * stored.segment_rows, down)):
                number = (sample * down + at) * across + column
                top = at * sh - y0
                target = pixels[top : top + sh, :, bands]
                data = None
                if page is not None and page.counts[number]:
                    data = self._file_of(page).read(page.offsets[number], page.counts[number])
                    size += page.counts[number]
                    require_coded_size(data, 4 * sh * sw, self.name)
                tables = None if page is None else page.tables
                decoded = key.decode(data, number, jpegtables=tables, jpegheader=key.jpegheader)[0]
                if decoded is None:  # sparse files leave out what is empty
                    target[...] = key.nodata
                    valid = np.ones(pixels.shape[:2], bool) if valid is None else valid
                    valid[top : top + sh] = False
                else:
                    target[...] = decoded[0, : target.shape[0], : target.shape[1]]
        return pixels, size, valid

    @staticmethod
    def _native_dtype(key: Any) -> np.dtype[Any]:
        native: np.dtype[Any] = np.dtype(key.dtype).newbyteorder("=")
        return native

    def _to_output(self, key: Any, pixels: Pixels) -> Pixels:
        """Convert a tile's samples to the selected channels."""
        if self._is_palette(key):
            table = np.asarray(key.colormap)
            if table.max(initial=0) > 255:  # some programs write bytes
                table = table >> 8
            colours = table[:, pixels[..., 0].astype(np.intp)]  # one bit is read as bool
            return colours.transpose(1, 2, 0)[..., list(self._channels)].astype("u1")
        ycbcr = key.photometric == 6 and key.compression not in JPEG_COMPRESSIONS | {APERIO_RGB}
        if (ycbcr or key.compression == APERIO_YCBCR) and pixels.shape[2] == 3:
            pixels = ycbcr_to_rgb(pixels)
        if len(self._colour_samples) != pixels.shape[2] or self._colour_samples != [
            *range(len(self._colour_samples))
        ]:
            pixels = pixels[..., self._colour_samples]
        if pixels.dtype == bool:
            pixels = pixels.astype(np.uint8) * 255
        if key.photometric == 0 and pixels.dtype.kind == "u":  # white is zero
            pixels = np.iinfo(pixels.dtype).max - pixels
        return pixels.astype(self.dtype, copy=False)

    def _file_of(self, page: StoredPage) -> ByteReader | RemoteFile:
        """Return the file of a page; OME-TIFF may have several."""
        with self._lock:
            if not self._finalize.alive:
                raise ImageReadError(f"{self.name} was closed; open it again")
            if self._remote is not None:
                return self._remote
            if page.path not in self._files:
                self._files[page.path] = ByteReader(page.path)
            return self._files[page.path]

    def close(self) -> None:
        """Close the files."""
        with self._lock:
            self._finalize()


def _close_files(files: dict[str, ByteReader | RemoteFile]) -> None:
    for file in files.values():
        file.close()
