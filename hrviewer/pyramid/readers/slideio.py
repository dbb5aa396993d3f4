"""Slides of Olympus (VSI with its ETS files) and Zeiss (CZI), read by slideio.

A tile is a region that slideio decodes, with its share of the files' size. It is as large as the
stored ones, which are decoded as a whole for any part of them, within bounds.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from hrviewer.pyramid.readers.base import ChannelInfo, native_dtype
from hrviewer.pyramid.readers.file_reader import FileReader, Selection, has_package, tile_window
from hrviewer.pyramid.series import Series
from hrviewer.pyramid.tile_cache import DecodedTile
from hrviewer.pyramid.units import UNKNOWN_PIXEL_SIZE

__all__ = ["SlideioReader"]

MIN_TILE, MAX_TILE = 512, 2048
DRIVERS = {".vsi": "VSI", ".czi": "CZI"}


class SlideioReader(FileReader):
    """One image of a file, read by slideio."""

    priority: ClassVar[int] = 65
    failure: ClassVar[str] = "cannot be read by slideio"

    @classmethod
    def supports(cls, obj: object) -> bool:
        """Whether it is a file with a suffix that slideio reads best, and slideio is there."""
        if not isinstance(obj, str) or Path(obj).suffix.lower() not in DRIVERS:
            return False
        return has_package("slideio") and Path(obj).is_file()

    @classmethod
    def files(cls, path: Path) -> Sequence[Path]:
        """Return the file, and those in the folder that belongs to a VSI."""
        folder = path.with_name(f"_{path.stem}_")
        beside = sorted(folder.rglob("*")) if folder.is_dir() else []
        return [path, *(file for file in beside if file.is_file())]

    def load(self, path: Path, selection: Selection) -> None:
        """Read the metadata."""
        import slideio

        self._lock = threading.Lock()
        self._slide = slide = slideio.open_slide(str(path), DRIVERS[path.suffix.lower()])
        scenes = [slide.get_scene(i) for i in range(slide.num_scenes)]
        listed = [
            Series(str(i), scene.name, (scene.size[1], scene.size[0]))
            for i, scene in enumerate(scenes)
        ]
        self._scene = scene = scenes[self.set_series(listed, selection.series)]
        width, height = scene.size
        sizes = {"t": int(scene.num_t_frames), "z": int(scene.num_z_slices)}
        self.set_plane({axis: size for axis, size in sizes.items() if size > 1}, selection.plane)
        infos = [ChannelInfo(scene.get_channel_name(i) or "") for i in range(scene.num_channels)]
        self.dtype = native_dtype(self.name, np.dtype(scene.get_channel_data_type(0)))
        is_rgb = len(infos) == 3 and self.dtype == np.uint8 and not any(i.name for i in infos)
        self._channels = self.set_channels(infos, selection.channels, is_rgb=is_rgb)
        x, y = (float(side) * 1e6 for side in scene.resolution)
        if x > 0 and y > 0:
            self.pixel_size = y, x
        else:
            self.notes.append(UNKNOWN_PIXEL_SIZE)
        if sizes["z"] > 1 and scene.z_resolution > 0:
            self.plane_steps = {"z": float(scene.z_resolution) * 1e6}
        stored = sum(file.stat().st_size for file in self.files(path))
        self._bytes_per_pixel = stored / (width * height)
        self._shapes, self._sides = [(height, width)], []
        for i in range(scene.num_zoom_levels):
            zoom = scene.get_zoom_level_info(i)
            stored_tile = max(zoom.tile_size.width, zoom.tile_size.height)
            self._sides.append(min(max(stored_tile, MIN_TILE), MAX_TILE))
            if i > 0:
                h, w = round(height * zoom.scale), round(width * zoom.scale)
                self._shapes.append((max(1, h), max(1, w)))
        bands = len(self._channels)
        layouts = zip(self._shapes, self._sides, strict=True)
        self.set_levels([((h, w, bands), (side, side)) for (h, w), side in layouts])

    def decode(self, level: int, row: int, column: int) -> DecodedTile:
        """Decode a region."""
        (height, width), (full_h, full_w) = self._shapes[level], self._shapes[0]
        y, x, h, w = tile_window((height, width), self._sides[level], row, column)
        down_y, down_x = full_h / height, full_w / width
        rect = round(x * down_x), round(y * down_y), round(w * down_x), round(h * down_y)
        z, t = self.plane.get("z", 0), self.plane.get("t", 0)
        with self._lock:
            pixels = self._scene.read_block(
                rect,
                size=(w, h) if level else (0, 0),
                channel_indices=list(self._channels),
                slices=(z, z + 1),
                frames=(t, t + 1),
            )
        pixels = np.asarray(pixels).reshape(h, w, len(self._channels))
        return DecodedTile(pixels, round(h * w * self._bytes_per_pixel))
