"""Refresh of image layers as their pixels arrive, and the viewer's one clock.

After `auto_refresh` a viewer's layers with images of hrviewer answer at once and are refreshed as
pixels arrive, at most ten times a second, on the window's thread, while they are visible. The
clock has one timer for all layers and for the panel; it stops while nothing is registered.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari.utils import progress
from napari.utils.notifications import show_warning
from qtpy.QtCore import QCoreApplication, QObject, QTimer, Signal

from hrviewer.escaping import plain_text
from hrviewer.viewer.image.image_layer import initial_limits
from hrviewer.viewer.image.lazy_level import LazyLevel
from hrviewer.viewer.image.mixed_pixel_sizes import allow_mixed_pixel_sizes
from hrviewer.viewer.image.tile_loader import TileLoader

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer

__all__ = ["Clock", "LayerRefresher", "auto_refresh", "clock"]

REFRESH_INTERVAL_MS = 100
"""Milliseconds between refreshes of a layer, at least."""


@dataclass
class _Subscription:
    """A registered callback."""

    interval: float
    due: float


class Clock(QObject):
    """One timer for everything that is done regularly on the window's thread."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._entries: dict[Callable[[], None], _Subscription] = {}
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._fire)

    def start(
        self, callback: Callable[[], None], interval_ms: int, *, at_once: bool = False
    ) -> None:
        """Call something every so many milliseconds from now on; at first at once if wanted."""
        interval = interval_ms / 1000
        due = time.monotonic() + (0 if at_once else interval)
        self._entries[callback] = _Subscription(interval, due)
        self._schedule()

    def set_interval(self, callback: Callable[[], None], interval_ms: int) -> None:
        """Change the interval of a registered callback."""
        entry = self._entries.get(callback)
        if entry is not None and entry.interval != interval_ms / 1000:
            self.start(callback, interval_ms)

    def stop(self, callback: Callable[[], None]) -> None:
        """Call it no more."""
        self._entries.pop(callback, None)
        if not self._entries:
            self._timer.stop()

    def is_active(self, callback: Callable[[], None]) -> bool:
        """Return whether something is registered."""
        return callback in self._entries

    def _schedule(self) -> None:
        if self._entries:
            due = min(entry.due for entry in self._entries.values())
            self._timer.start(max(0, round(1000 * (due - time.monotonic()))))

    def _fire(self) -> None:
        now = time.monotonic() + 0.001
        try:
            for callback, entry in list(self._entries.items()):
                if entry.due <= now and self._entries.get(callback) is entry:
                    entry.due = now + entry.interval
                    callback()
        finally:
            self._schedule()


_clock: Clock | None = None


def clock() -> Clock:
    """Return the application's clock."""
    global _clock
    if _clock is None:
        _clock = Clock(QCoreApplication.instance())
    return _clock


_attached: weakref.WeakSet[TileLoader] = weakref.WeakSet()


def auto_refresh(viewer: ViewerModel) -> None:
    """Refresh a viewer's layers, present and future; may be called again."""
    allow_mixed_pixel_sizes()
    events = viewer.layers.events
    events.inserted.connect(_on_inserted)
    events.removed.connect(_on_removed)
    for layer in viewer.layers:
        auto_refresh_layer(layer)


def auto_refresh_layer(layer: Layer) -> None:
    """Refresh a layer as pixels arrive, if hrviewer loads them."""
    loader = tile_loader_of(layer)
    if loader is not None and loader not in _attached:
        LayerRefresher(unwrap(layer), loader)


def tile_loader_of(layer: Layer) -> TileLoader | None:
    """Return the tile loader of a layer, None if hrviewer does not load it."""
    data: Any = getattr(layer, "data", None)
    if getattr(layer, "multiscale", False) and len(data):
        data = data[0]
    data = unwrap(data)
    return data.loader if isinstance(data, LazyLevel) else None


def unwrap(layer: Any) -> Any:
    """Return the object behind a proxy that napari handed to the plugin."""
    return getattr(layer, "__wrapped__", layer)


def _on_inserted(event: Any) -> None:
    auto_refresh_layer(event.value)


def _on_removed(event: Any) -> None:
    loader = tile_loader_of(event.value)
    if loader is not None:
        loader.cancel()


class LayerRefresher(QObject):
    """Refreshes one layer; lives as long as its tile loader.

    Parameters
    ----------
    layer : Image
        The layer; referenced weakly.
    loader : TileLoader
        Reports missing tiles.
    """

    _missing = Signal()

    def __init__(self, layer: Image, loader: TileLoader) -> None:
        super().__init__()
        self._layer = weakref.ref(layer)
        self._loader = weakref.ref(loader)
        self._initial_limits = [*layer.contrast_limits]
        self._coarsest_shown = loader.coarsest_loaded and not loader.dirty
        self._progress_bar: Any = None
        self._reported_failure = ""
        self._missing.connect(self._start_timer)
        layer.events.visible.connect(self._on_visible)
        loader.on_missing = self.notify_missing
        loader.progressive = True
        _attached.add(loader)
        self._start_timer()

    def notify_missing(self) -> None:
        """Begin to tick; from the thread that slices, Qt brings it to the window's thread."""
        self._missing.emit()

    def _start_timer(self) -> None:
        if not clock().is_active(self._tick):
            clock().start(self._tick, REFRESH_INTERVAL_MS)

    def _on_visible(self, event: Any = None) -> None:
        layer, loader = self._layer(), self._loader()
        if layer is not None and loader is not None and not layer.visible:
            loader.cancel()

    def _tick(self) -> None:
        layer, loader = self._layer(), self._loader()
        if layer is None or loader is None:
            clock().stop(self._tick)
            return
        busy = loader.is_loading
        loader.retry_when_due()
        self._report_progress(loader)
        if loader.dirty:
            loader.dirty = False
            if loader.coarsest_loaded and not self._coarsest_shown:
                self._coarsest_shown = True
                self._autoscale_contrast(layer, loader)
            # A refresh reads: a layer that was removed would load tiles once more.
            if layer.visible and not loader.is_cancelled:
                layer.refresh(highlight=False, extent=False)
        elif not busy and not loader.waits_to_retry:
            clock().stop(self._tick)

    def _autoscale_contrast(self, layer: Image, loader: TileLoader) -> None:
        """Set the contrast limits, unless they were known or the user has set them."""
        if not layer.rgb and [*layer.contrast_limits] == self._initial_limits:
            layer.contrast_limits_range = layer.contrast_limits = initial_limits(loader)

    def _report_progress(self, loader: TileLoader) -> None:
        """Report how far missing levels are built, and tiles that cannot be read."""
        part = loader.build_fraction
        if part is not None and self._progress_bar is None:
            name = loader.pyramid.name
            self._progress_bar = progress(total=100, desc=f"{name}: building an overview, once")
        if self._progress_bar is not None:
            self._progress_bar.update(
                round(100 * (1 if part is None else part)) - self._progress_bar.n
            )
            if part is None:
                self._progress_bar.close()
                self._progress_bar = None
        if loader.failure and loader.failure != self._reported_failure:
            self._reported_failure = loader.failure
            show_warning(plain_text(self._reported_failure))
