"""Loading of one image's tiles for the screen.

`TileLoader.read_available` returns at once: tiles that are in memory, and elsewhere a coarser
level, upsampled; missing tiles are then decoded on threads, nearest to the view's centre first, and
a newer view cancels what the older one still waited for. `TileLoader.read_exact` waits for the
pixels.

Invariants: `read_available` waits for no file and no decoding; tiles in view are referenced here as
well as in the shared cache, so that other reads cannot evict them; threads live only as long as
there is something to load. Nothing here imports napari or Qt.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.errors import HrviewerError
from hrviewer.pyramid import Level, Pyramid
from hrviewer.pyramid.overviews import halve
from hrviewer.pyramid.remote import NetworkError, is_url
from hrviewer.pyramid.tile_cache import DecodedTile, Tile, TileKey

__all__ = ["TileLoader"]

log = logging.getLogger(__name__)

MAX_WORKERS = max(1, min(4, (os.cpu_count() or 2) // 2))
"""Threads that decode for the screen; the event loop and inference keep their share."""

REMOTE_WORKERS = 8
"""The same for an image behind a URL: they wait for its server most of the time."""

RETRY_SECONDS = 3.0
"""Until a tile is requested again after a failure of the network."""

OPAQUE = 255

Window = tuple[int, int, int, int]
"""Rows and columns of a level, ``(y0, y1, x0, x1)``."""


class TileLoader:
    """Returns windows of levels at once, and loads what is missing.

    Parameters
    ----------
    pyramid : Pyramid
        The image.
    scale : float
        Level-0 pixels per pixel of the coarsest array, which is kept whole.
    channels : tuple of int, optional
        Channels to show; all by default.
    derive : callable, optional
        Turns the channels of a tile, ``(h, w, c)``, into one that is shown instead, ``(h, w, 1)``.
    alpha : bool
        Whether an opacity follows the channels: 0 where there are no data.

    Attributes
    ----------
    coarsest : ndarray, shape (h, w, c)
        The image at `scale`; zeros until `coarsest_loaded`.
    coarsest_loaded : bool
        Whether `coarsest` was read.
    coarsest_mask : ndarray of bool, shape (h, w), or None
        Where `coarsest` has data; None if everywhere.
    build_fraction : float or None
        How much of the missing levels is built, while they are.
    dirty : bool
        Whether something was loaded since the last refresh, which unsets it.
    on_missing : callable
        Called, on the thread of `read_available`, when something is missing and being loaded.
    progressive : bool
        Whether the layer is refreshed when something is loaded; otherwise every read is exact.
    failure : str
        The last thing that could not be read.
    """

    def __init__(
        self,
        pyramid: Pyramid,
        scale: float,
        channels: tuple[int, ...] | None = None,
        derive: Callable[[NDArray[Any]], NDArray[Any]] | None = None,
        *,
        alpha: bool = False,
    ) -> None:
        self.pyramid, self.scale = pyramid, scale
        self.channels, self.alpha, self.derive = channels, alpha, derive
        self._bands = 1 if derive else len(channels or range(pyramid.channels)) + alpha
        h, w = (math.ceil(side / scale - 1e-9) for side in pyramid.plane_shape)
        self.shapes = [(height, width, self._bands) for height, width, _ in pyramid.shapes]
        self.coarsest = np.zeros((h, w, self._bands), pyramid.dtype)
        self.coarsest_loaded = False
        self.coarsest_mask: NDArray[np.bool_] | None = None
        self.build_fraction: float | None = None
        self.dirty = False
        self.on_missing: Callable[[], None] = lambda: None
        self.progressive = False
        self.failure = ""
        self._lock = threading.Lock()
        self._queue: deque[TileKey] = deque()
        self._pending: set[TileKey] = set()
        self._in_view: dict[TileKey, NDArray[Any]] = {}
        self._failed: dict[TileKey, float] = {}
        self._retry_at = math.inf
        self._max_workers = REMOTE_WORKERS if is_url(pyramid.path) else MAX_WORKERS
        self._workers = 0
        self._coarsest_lock = threading.Lock()
        self._coarsest_thread: threading.Thread | None = None
        self._cancelled = threading.Event()

    def __deepcopy__(self, memo: dict[int, Any]) -> TileLoader:
        """A duplicated layer has a view of its own on the same image."""
        memo[id(self)] = twin = TileLoader(
            self.pyramid, self.scale, self.channels, self.derive, alpha=self.alpha
        )
        twin.coarsest, twin.coarsest_loaded = self.coarsest, self.coarsest_loaded
        twin.coarsest_mask, twin.progressive = self.coarsest_mask, self.progressive
        return twin

    # For the screen.

    def read_available(self, index: int, window: Window) -> NDArray[Any]:
        """Return a window of a level as far as it is loaded, ``(h, w, c)``; load the rest."""
        y0, y1, x0, x1 = window
        out = np.empty((y1 - y0, x1 - x0, self._bands), self.pyramid.dtype)
        level = self._level(index)
        missing: list[TileKey] = []
        kept: dict[TileKey, NDArray[Any]] = {}
        if level is None:
            self._upsample(out, index, window, window)
        else:
            for key in level.tiles(y0, y1, x0, x1):
                part = clip(level.tile_bounds(key.row, key.column), window)
                pixels = self._cached(level, key)
                if pixels is None:
                    missing.append(key)
                    self._upsample(out, index, window, part)
                else:
                    kept[key] = pixels
                    paste(out, window, pixels, level.tile_bounds(key.row, key.column), part)
        self._request(level, missing, kept, ((y0 + y1) / 2, (x0 + x1) / 2))
        if not self.coarsest_loaded:
            self.start_coarsest()
        return out

    def start_coarsest(self) -> None:
        """Read the coarsest array on a thread, building missing levels first."""
        with self._lock:
            self._cancelled.clear()
            if self.coarsest_loaded or self._coarsest_thread is not None:
                return
            self._coarsest_thread = threading.Thread(
                target=self._run_coarsest, name="hrviewer-fill", daemon=True
            )
            self._coarsest_thread.start()
        self.on_missing()

    def cancel(self) -> None:
        """Cancel all loading; what is being decoded is dropped."""
        with self._lock:
            self._queue.clear()
            self._pending.clear()
            self._in_view.clear()
            self._retry_at = math.inf
            self._cancelled.set()

    @property
    def is_cancelled(self) -> bool:
        """Whether nothing was read since `cancel`."""
        return self._cancelled.is_set()

    @property
    def is_loading(self) -> bool:
        """Whether something is being loaded."""
        with self._lock:
            return bool(self._pending) or self._coarsest_thread is not None

    @property
    def waits_to_retry(self) -> bool:
        """Whether tiles in view failed by the network, and will be requested again."""
        return self._retry_at < math.inf

    def retry_when_due(self) -> None:
        """Have the view read again once its failed tiles may be requested again."""
        if time.monotonic() >= self._retry_at:
            self._retry_at, self.dirty = math.inf, True

    # Exact pixels.

    def read_exact(self, index: int, window: Window) -> NDArray[Any]:
        """Return a window of a level, ``(h, w, c)``, waiting for it."""
        level = self._level(index)
        if level is None:
            self.load_coarsest()
            level = self.pyramid.levels[index]
        return self._displayed(level, level.read_as_tile(*window))

    def load_coarsest(self) -> None:
        """Read the coarsest array, waiting for it."""
        self._read_coarsest(lambda: False)

    # Inside.

    def _level(self, index: int) -> Level | None:
        levels = self.pyramid.levels
        return levels[index] if index < len(levels) else None

    def _cached(self, level: Level, key: TileKey) -> NDArray[Any] | None:
        kept = self._in_view.get(key)
        if kept is not None:
            return kept
        tile = level.cached_tile(key)
        return None if tile is None else self._displayed(level, tile)

    def _displayed(self, level: Level, tile: DecodedTile | Tile) -> NDArray[Any]:
        """Return the channels of a tile that are shown, and their opacity if there is one."""
        pixels = tile.pixels
        has_gaps = self.pyramid.has_gaps
        mask = level.mask_of(pixels, tile.valid) if has_gaps else None
        if mask is not None and level.dtype.kind == "f":
            pixels = np.where(mask, pixels, level.dtype.type(np.nan))
        if self.channels is not None and self.channels != tuple(range(pixels.shape[2])):
            # An index would lay the channels apart, which slows every copy of the tile tenfold.
            pixels = pixels.take(self.channels, axis=2)
        if self.derive is not None:
            pixels = self.derive(pixels)
        if self.alpha:
            known = np.ones(pixels.shape[:2], bool) if mask is None else mask.any(axis=2)
            opacity = np.where(known, OPAQUE, 0)
            pixels = np.concatenate([pixels, opacity[..., None].astype(pixels.dtype)], axis=2)
        return pixels

    def _upsample(self, out: NDArray[Any], index: int, window: Window, part: Window) -> None:
        """Fill a part of a window from the finest coarser level that is held there."""
        h, w, _ = self.shapes[index]
        for coarser in self.pyramid.levels[index + 1 :]:
            rows = nearest_indices(part[0], part[1], h, coarser.shape[0])
            columns = nearest_indices(part[2], part[3], w, coarser.shape[1])
            area = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
            keys = list(coarser.tiles(*area))
            tiles = [self._cached(coarser, key) for key in keys]
            found = [tile for tile in tiles if tile is not None]
            if len(found) < len(keys):
                continue
            source = np.empty((area[1] - area[0], area[3] - area[2], out.shape[2]), out.dtype)
            for key, tile in zip(keys, found, strict=True):
                span = coarser.tile_bounds(key.row, key.column)
                paste(source, area, tile, span, clip(span, area))
            break
        else:
            rows = nearest_indices(part[0], part[1], h, self.coarsest.shape[0])
            columns = nearest_indices(part[2], part[3], w, self.coarsest.shape[1])
            source, area = self.coarsest, (0, 0, 0, 0)
        y, x = part[0] - window[0], part[2] - window[2]
        # Columns first, of the few rows that there are; `take` is ten times as fast as an index.
        few = source[rows[0] - area[0] : rows[-1] - area[0] + 1]
        wide = few.take(columns - area[2], axis=1).take(rows - rows[0], axis=0)
        out[y : y + len(rows), x : x + len(columns)] = wide

    def _request(
        self,
        level: Level | None,
        missing: list[TileKey],
        kept: dict[TileKey, NDArray[Any]],
        centre: tuple[float, float],
    ) -> None:
        """Request these tiles, and no others."""

        def distance(key: TileKey) -> float:
            assert level is not None
            y0, y1, x0, x1 = level.tile_bounds(key.row, key.column)
            return math.dist(((y0 + y1) / 2, (x0 + x1) / 2), centre)

        with self._lock:
            self._cancelled.clear()
            now = time.monotonic()
            again = {key: self._failed.get(key, now) for key in missing}
            wanted = [key for key in missing if again[key] <= now]
            self._retry_at = min((at for at in again.values() if at > now), default=math.inf)
            # Tiles that are being decoded are not requested twice.
            decoding = self._pending.difference(self._queue)
            self._pending, self._in_view = set(wanted), kept
            self._queue = deque(
                sorted((key for key in wanted if key not in decoding), key=distance)
            )
            if level is None or not wanted:
                return
            while self._workers < min(self._max_workers, len(self._queue)):
                self._workers += 1
                threading.Thread(
                    target=self._decode_loop, name="hrviewer-fetch", daemon=True
                ).start()
        self.on_missing()

    def _decode_loop(self) -> None:
        while True:
            with self._lock:
                if not self._queue:
                    self._workers -= 1
                    return
                key = self._queue.popleft()
            pixels = None
            try:
                level = self.pyramid.levels[key.level]
                pixels = self._displayed(level, level.load_tile(key))
            except Exception as error:
                log.debug("a tile for the screen", exc_info=error)
                with self._lock:
                    if key in self._pending:
                        passing = isinstance(error, NetworkError)
                        after = time.monotonic() + RETRY_SECONDS if passing else math.inf
                        self._failed[key] = after
                        self.failure = str(error)
            with self._lock:
                if key in self._pending:
                    self._pending.discard(key)
                    self.dirty = True
                    if pixels is not None:
                        self._in_view[key] = pixels

    def _run_coarsest(self) -> None:
        try:
            self._read_coarsest(self._cancelled.is_set)
        except Exception as error:
            log.debug("the coarsest level", exc_info=error)
            self.failure = str(error)
        finally:
            with self._lock:
                self._coarsest_thread = None

    def _read_coarsest(self, cancelled: Callable[[], bool]) -> None:
        with self._coarsest_lock:
            if self.coarsest_loaded:
                return
            if self.pyramid.missing_levels():
                self.build_fraction = 0.0
                try:
                    self.pyramid.build_overviews(self._set_build_fraction, cancelled, self._preview)
                finally:
                    self.build_fraction = None
            if cancelled() and self.pyramid.missing_levels():
                return
            read, coverage = self.pyramid.read_with_coverage(self.pyramid.rect, self.scale)
            self.coarsest_mask = None if coverage is None else coverage > 0
            tile = DecodedTile(read, 0, valid=self.coarsest_mask)
            pixels = self._displayed(self.pyramid.levels[-1], tile)
            if pixels.shape != self.coarsest.shape:
                raise HrviewerError(f"{self.pyramid.name}: the coarsest level does not fit")
            self.coarsest[:] = pixels
            self.coarsest_loaded = self.dirty = True

    def _preview(self, y: int, x: int, tile: DecodedTile) -> None:
        """Show a block of the first missing level in the coarsest array, while others are built."""
        base = self.pyramid.levels[-1]
        halvings = math.log2(self.scale / max(base.downsample)) - 1
        side = 2 ** round(halvings)
        if halvings < 0 or abs(halvings - round(halvings)) > 1e-3 or y % side or x % side:
            return
        for _ in range(round(halvings)):
            means, valid = halve(base, tile)
            tile = DecodedTile(means, 0, valid=valid)
        pixels = self._displayed(base, tile)
        rows, columns = y // side, x // side
        target = self.coarsest[rows : rows + pixels.shape[0], columns : columns + pixels.shape[1]]
        target[...] = pixels[: target.shape[0], : target.shape[1]]
        self.dirty = True

    def _set_build_fraction(self, fraction: float) -> None:
        self.build_fraction = fraction


def clip(span: Window, window: Window) -> Window:
    """Return what two windows share."""
    return (
        max(span[0], window[0]),
        min(span[1], window[1]),
        max(span[2], window[2]),
        min(span[3], window[3]),
    )


def paste(
    out: NDArray[Any], window: Window, pixels: NDArray[Any], span: Window, part: Window
) -> None:
    """Copy a part of pixels that cover `span` into an array that covers `window`."""
    y0, y1, x0, x1 = part
    out[y0 - window[0] : y1 - window[0], x0 - window[2] : x1 - window[2]] = pixels[
        y0 - span[0] : y1 - span[0], x0 - span[2] : x1 - span[2]
    ]


def nearest_indices(start: int, stop: int, length: int, coarser: int) -> NDArray[np.intp]:
    """Return which of `coarser` pixels lie under those from `start` to `stop` of `length`."""
    middle = (np.arange(start, stop) + 0.5) * (coarser / length)
    return np.minimum(middle.astype(np.intp), coarser - 1)
