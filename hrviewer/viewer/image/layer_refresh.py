"""Bringing what was fetched onto the screen.

`follow` is told of a viewer; from then on its layers with images of ours answer at once and are
refreshed as pixels arrive, at most ten times a second, on the window's thread, while they are
visible. Nothing ticks while nothing is fetched.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils import progress
from napari.utils.notifications import show_warning
from qtpy.QtCore import QObject, QTimer, Signal

from hrviewer.viewer.image.image_layer import contrast_limits
from hrviewer.viewer.image.lazy_level import LazyLevel
from hrviewer.viewer.image.tile_loader import TileLoader

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer

__all__ = ["LayerRefresher", "auto_refresh"]

REFRESH_INTERVAL_MS = 100
"""Milliseconds between refreshes of a layer, at least."""


_attached: weakref.WeakSet[TileLoader] = weakref.WeakSet()


def auto_refresh(viewer: ViewerModel) -> None:
    """Watch a viewer's layers, those there and those to come; may be called again."""
    events = viewer.layers.events
    events.inserted.connect(_on_inserted)
    events.removed.connect(_on_removed)
    for layer in viewer.layers:
        auto_refresh_layer(layer)


def auto_refresh_layer(layer: Layer) -> None:
    """Refresh a layer as pixels arrive, if it is one of ours."""
    fetcher = tile_loader_of(layer)
    if fetcher is not None and fetcher not in _attached:
        LayerRefresher(unwrap(layer), fetcher)


def tile_loader_of(layer: Layer) -> TileLoader | None:
    """Return who fetches for a layer, None if it is not one of ours."""
    data: Any = getattr(layer, "data", None)
    if getattr(layer, "multiscale", False) and len(data):
        data = data[0]
    data = unwrap(data)
    return data.loader if isinstance(data, LazyLevel) else None


def unwrap(layer: Any) -> Any:
    """Return what is behind the proxies that napari hands to plug-ins."""
    return getattr(layer, "__wrapped__", layer)


def _on_inserted(event: Any) -> None:
    auto_refresh_layer(event.value)


def _on_removed(event: Any) -> None:
    fetcher = tile_loader_of(event.value)
    if fetcher is not None:
        fetcher.cancel()


class LayerRefresher(QObject):
    """Refreshes one layer; lives as long as its fetcher.

    Parameters
    ----------
    layer : Image
        On the screen; kept weakly.
    loader : Fetcher
        Says when something is missing.
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
        self._timer = QTimer(self)
        self._timer.setInterval(REFRESH_INTERVAL_MS)
        self._timer.timeout.connect(self._tick)
        self._missing.connect(self._start_timer)
        layer.events.visible.connect(self._on_visible)
        loader.on_missing = self.notify_missing
        loader.progressive = True
        _attached.add(loader)
        self._start_timer()

    def notify_missing(self) -> None:
        """Begin to tick; from whatever thread slices, Qt brings it to the window's."""
        self._missing.emit()

    def _start_timer(self) -> None:
        if not self._timer.isActive():
            self._timer.start()

    def _on_visible(self, event: Any = None) -> None:
        layer, fetcher = self._layer(), self._loader()
        if layer is not None and fetcher is not None and not layer.visible:
            fetcher.cancel()

    def _tick(self) -> None:
        layer, fetcher = self._layer(), self._loader()
        if layer is None or fetcher is None:
            self._timer.stop()
            return
        busy = fetcher.is_loading
        self._report_progress(fetcher)
        if fetcher.dirty:
            fetcher.dirty = False
            if fetcher.coarsest_loaded and not self._coarsest_shown:
                self._coarsest_shown = True
                self._autoscale_contrast(layer, fetcher)
            # To refresh is to look: a layer that is gone would fetch once more.
            if layer.visible and not fetcher.is_cancelled:
                layer.refresh(highlight=False, extent=False)
        elif not busy:
            self._timer.stop()

    def _autoscale_contrast(self, layer: Image, loader: TileLoader) -> None:
        """Set the contrast, unless it was known or the person has."""
        if loader.coarsest.dtype != np.uint8 and [*layer.contrast_limits] == self._initial_limits:
            layer.contrast_limits_range = layer.contrast_limits = contrast_limits(loader.coarsest)

    def _report_progress(self, loader: TileLoader) -> None:
        """Say how far missing levels are built, and what cannot be shown."""
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
            show_warning(self._reported_failure)
