"""Coarse levels that a file lacks.

Without them an overview reads the whole image, and the viewer loads its coarsest level at once.
They are box-filtered from the coarsest stored level, each from the previous one, block by block,
and stored in the cache folder under the image's key. A folder there is complete, because it gets
its name only when it is finished.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hrviewer.claims import claim
from hrviewer.errors import ClaimedError
from hrviewer.paths import cache_folder
from hrviewer.pyramid.folder_cache import UNFINISHED, FolderCache
from hrviewer.pyramid.level import Level, Pixels
from hrviewer.pyramid.read_cost import ReadCost, ReadMeter
from hrviewer.pyramid.resample import block_mean, masked_block_mean
from hrviewer.pyramid.tile_cache import DecodedTile
from hrviewer.pyramid.zarr_tiles import ZarrTiles

if TYPE_CHECKING:
    from hrviewer.pyramid.readers.base import Reader

__all__ = [
    "MAX_COARSEST_SIDE",
    "TARGET_COARSEST_SIDE",
    "OverviewBlock",
    "Overviews",
    "halve",
]

log = logging.getLogger(__name__)

MAX_COARSEST_SIDE = 2048
"""Pixels; coarser levels are added if the longer side of the coarsest one is larger."""

TARGET_COARSEST_SIDE = 1024
"""Pixels; maximum of the longer side of the last added level."""

IN_MEMORY_LIMIT = 64_000_000
"""Pixels; an image in memory up to this size gets its coarse levels in memory."""

Valid = np.ndarray[Any, np.dtype[np.bool_]]

OverviewBlock = Callable[[int, int, DecodedTile], None]
"""Takes the first row and column of a block of a level, and the block."""

TILE = 512
BLOCK = 8 * TILE


def missing_level_count(shape: tuple[int, int, int]) -> int:
    """Return the number of halvings that a level of this shape needs."""
    longest = max(shape[:2])
    if longest <= MAX_COARSEST_SIDE:
        return 0
    return (-(-longest // TARGET_COARSEST_SIDE) - 1).bit_length()


def halved_shape(shape: tuple[int, int, int], times: int) -> tuple[int, int, int]:
    """Return a level's shape after a number of halvings; odd sides are rounded up."""
    h, w, c = shape
    return -(-h // 2**times), -(-w // 2**times), c


class Overviews:
    """Added coarse levels of one image."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._base_level = reader.levels[-1]
        self._lock = threading.Lock()
        # Earlier versions averaged pixels without data, under the image's key alone.
        gaps = "-masked" if reader.has_mask or reader.nodata is not None else ""
        self._folder = FolderCache(cache_folder() / "overviews" / f"{reader.image_key}{gaps}")
        self._cleanup: Callable[[], object] = lambda: None

    def missing_count(self, levels: Sequence[Level]) -> int:
        """Return the number of levels that `levels` lacks."""
        return missing_level_count(levels[-1].shape)

    def shapes(self, levels: Sequence[Level]) -> list[tuple[int, int, int]]:
        """Return the shapes of the levels that `levels` lacks."""
        return [
            halved_shape(levels[-1].shape, times + 1) for times in range(self.missing_count(levels))
        ]

    def available_levels(self) -> list[Level]:
        """Return the added levels that need not be built."""
        h, w, _ = self._base_level.shape
        if missing_level_count(self._base_level.shape) == 0:
            return []
        if self._reader.in_memory and h * w <= IN_MEMORY_LIMIT:
            return self._in_memory_levels()
        return self._stored_levels() if self._reader.persistent else []

    def build(
        self,
        levels: Sequence[Level],
        progress: Callable[[float], None] | None,
        cancelled: Callable[[], bool] | None,
        preview: OverviewBlock | None = None,
    ) -> list[Level]:
        """Build the levels that `levels` lacks; none if cancelled."""
        with self._lock:
            if self.missing_count(levels) == 0:
                return []
            if self._reader.persistent and (stored := self._stored_levels()):
                return stored
            if not self._reader.persistent:
                folder = Path(tempfile.mkdtemp(prefix="hrviewer-"))
                self._folder = FolderCache(folder / "overviews")
                self._cleanup = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
            path = self._folder.path
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._claimed(cancelled) as claimed:
                if not claimed:
                    return []
                if stored := self._stored_levels():  # another process has just built them
                    return stored
                log.info("building %d overview levels in %s", self.missing_count(levels), path)
                unfinished = path.with_name(f"{UNFINISHED}{path.name}")
                shutil.rmtree(unfinished, ignore_errors=True)  # of a killed process
                unfinished.mkdir()
                try:
                    if not self._write(unfinished, progress, cancelled, preview):
                        log.info("building overviews was cancelled")
                        return []
                    shutil.rmtree(path, ignore_errors=True)
                    self._folder.finish(unfinished)
                finally:
                    shutil.rmtree(unfinished, ignore_errors=True)
                return self._stored_levels()

    @contextmanager
    def _claimed(self, cancelled: Callable[[], bool] | None) -> Iterator[bool]:
        """Wait until no other process builds these levels; false if cancelled meanwhile."""
        path = self._folder.path
        with ExitStack() as held:
            while True:
                try:
                    held.enter_context(claim(path.parent, path.name, path))
                    break
                except ClaimedError:
                    if cancelled is not None and cancelled():
                        yield False
                        return
                    time.sleep(0.2)
            yield True

    def close(self) -> None:
        """Remove the levels of an image without a persistent fingerprint."""
        self._folder.close()
        self._cleanup()

    def _make_level(
        self, times: int, tile: tuple[int, int], read: Callable[[int, int, int, int], DecodedTile]
    ) -> Level:
        base, dtype = self._base_level, self._base_level.dtype
        shape = halved_shape(base.shape, times)

        def decode(row: int, column: int) -> DecodedTile:
            return read(*level.tile_bounds(row, column))

        level = Level(
            image_key=base.image_key,
            name=base.name,
            index=base.index + times,
            shape=shape,
            tile=tile,
            downsample=(base.downsample[0] * 2**times, base.downsample[1] * 2**times),
            dtype=dtype,
            decode=decode,
            nodata=base.nodata,
            is_rgb=base.is_rgb,
        )
        return level

    def _in_memory_levels(self) -> list[Level]:
        halvings = _LazyHalvings(self._base_level)
        return [
            self._make_level(times, (TILE, TILE), partial(halvings.read, times))
            for times in range(1, missing_level_count(self._base_level.shape) + 1)
        ]

    def _stored_levels(self) -> list[Level]:
        """Return the stored levels; none if they are missing or incomplete."""
        if not self._folder.open():
            return []
        import zarr

        try:
            group = zarr.open_group(self._folder.path, mode="r")
            arrays = [
                group[str(times)]
                for times in range(1, missing_level_count(self._base_level.shape) + 1)
            ]
        except (KeyError, ValueError, OSError):
            return []
        levels = []
        for times, array in enumerate(arrays, 1):
            if not isinstance(array, zarr.Array):
                return []
            if (
                array.shape != halved_shape(self._base_level.shape, times)
                or array.dtype != self._base_level.dtype
            ):
                return []
            mask = group.get(_mask_name(times))
            if self._reader.has_mask and not isinstance(mask, zarr.Array):
                return []
            tiles = _StoredTiles(array, mask, partial(self._folder.check, self._reader.name))
            levels.append(self._make_level(times, tiles.tile, tiles.read))
        return levels

    def _write(
        self,
        folder: Path,
        progress: Callable[[float], None] | None,
        cancelled: Callable[[], bool] | None,
        preview: OverviewBlock | None,
    ) -> bool:
        """Write all levels; false if cancelled."""
        import zarr

        base = self._base_level
        group = zarr.open_group(folder, mode="w")
        read: Callable[[int, int, int, int], DecodedTile] = base.read_as_tile
        count = missing_level_count(base.shape)
        total = sum(4.0**-times for times in range(count))
        done = 0.0
        for times in range(1, count + 1):
            (h, w, c), above = halved_shape(base.shape, times), halved_shape(base.shape, times - 1)
            array = group.create_array(
                str(times), shape=(h, w, c), dtype=base.dtype, chunks=(TILE, TILE, c)
            )
            mask = None
            if self._reader.has_mask:
                mask = group.create_array(
                    _mask_name(times), shape=(h, w, 1), dtype=bool, chunks=(TILE, TILE, 1)
                )
            for y, x in _block_corners(h, w):
                if cancelled is not None and cancelled():
                    return False
                y1, x1 = min(y + TILE, h), min(x + BLOCK, w)
                tile = read(2 * y, min(2 * y1, above[0]), 2 * x, min(2 * x1, above[1]))
                means, valid = halve(base, tile)
                array[y:y1, x:x1] = means
                if preview is not None and times == 1:
                    preview(y, x, DecodedTile(means, 0, valid=valid))
                if mask is not None:
                    mask[y:y1, x:x1] = True if valid is None else valid[..., None]
                done += 4.0 ** (1 - times) * (y1 - y) * (x1 - x) / (h * w)
                if progress is not None:
                    progress(min(1.0, done / total))
            read = _StoredTiles(array, mask).read
        return True


def _block_corners(h: int, w: int) -> Iterator[tuple[int, int]]:
    return ((y, x) for y in range(0, h, TILE) for x in range(0, w, BLOCK))


def halve(level: Level, tile: DecodedTile) -> tuple[Pixels, Valid | None]:
    """Return the 2 × 2 means of a window of a level or its halvings, and where they have data."""
    mask = level.mask_of(tile.pixels, tile.valid)
    if mask is None:
        return block_mean(tile.pixels, 2), None
    means, coverage = masked_block_mean(tile.pixels, mask, 2, level.missing_value)
    return means, None if tile.valid is None else coverage > 0


def _mask_name(times: int) -> str:
    return f"mask-{times}"


class _StoredTiles:
    """A stored level and its mask; `check` raises an error if they were removed."""

    def __init__(
        self, array: Any, mask: Any | None, check: Callable[[], None] = lambda: None
    ) -> None:
        self._check = check
        self._pixels = ZarrTiles(array, "yxc", {})
        self._mask = None if mask is None else ZarrTiles(mask, "yxc", {})
        self.tile = self._pixels.tile

    def read(self, y0: int, y1: int, x0: int, x1: int) -> DecodedTile:
        """Return a window."""
        decoded = self._pixels.read(y0, y1, x0, x1)
        if self._mask is None:
            self._check()
            return decoded
        valid, size, *_ = self._mask.read(y0, y1, x0, x1)
        self._check()
        return decoded._replace(bytes=decoded.bytes + size, valid=valid[..., 0])


class _LazyHalvings:
    """Coarse levels of an image in memory, computed by the first read of one.

    That reads the whole image; each tile is charged its share of the cost.
    """

    def __init__(self, base: Level) -> None:
        self._base_level = base
        self._lock = threading.Lock()

    @cached_property
    def _computed(self) -> tuple[list[tuple[Pixels, Valid | None]], ReadCost]:
        h, w, _ = self._base_level.shape
        meter = ReadMeter()
        whole = self._base_level.read_as_tile(0, h, 0, w, meter=meter)
        levels: list[tuple[Pixels, Valid | None]] = [(whole.pixels, whole.valid)]
        start = time.perf_counter()
        for _ in range(missing_level_count(self._base_level.shape)):
            pixels, valid = levels[-1]
            levels.append(halve(self._base_level, DecodedTile(pixels, 0, valid=valid)))
        cost = meter.total
        cost.seconds += time.perf_counter() - start
        return levels[1:], cost

    def read(self, times: int, y0: int, y1: int, x0: int, x1: int) -> DecodedTile:
        """Return a window after a number of halvings."""
        with self._lock:
            levels, cost = self._computed
        pixels, valid = levels[times - 1]
        window = pixels[y0:y1, x0:x1].copy()
        share = window.size / pixels.size
        known = None if valid is None else valid[y0:y1, x0:x1].copy()
        return DecodedTile(window, round(cost.bytes * share), cost.seconds * share, known)
