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

from hrviewer.viewer.image.image_layer import limits
from hrviewer.viewer.image.lazy_level import Shown
from hrviewer.viewer.image.tile_loader import Fetcher

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer

__all__ = ["Arrivals", "follow"]

BETWEEN = 100
"""Milliseconds between refreshes of a layer, at least."""


_watched: weakref.WeakSet[Fetcher] = weakref.WeakSet()


def follow(viewer: ViewerModel) -> None:
    """Watch a viewer's layers, those there and those to come; may be called again."""
    events = viewer.layers.events
    events.inserted.connect(_inserted)
    events.removed.connect(_removed)
    for layer in viewer.layers:
        watch(layer)


def watch(layer: Layer) -> None:
    """Refresh a layer as pixels arrive, if it is one of ours."""
    fetcher = fetcher_of(layer)
    if fetcher is not None and fetcher not in _watched:
        Arrivals(bare(layer), fetcher)


def fetcher_of(layer: Layer) -> Fetcher | None:
    """Return who fetches for a layer, None if it is not one of ours."""
    data: Any = getattr(layer, "data", None)
    if getattr(layer, "multiscale", False) and len(data):
        data = data[0]
    data = bare(data)
    return data.fetcher if isinstance(data, Shown) else None


def bare(it: Any) -> Any:
    """Return what is behind the proxies that napari hands to plug-ins."""
    return getattr(it, "__wrapped__", it)


def _inserted(event: Any) -> None:
    watch(event.value)


def _removed(event: Any) -> None:
    fetcher = fetcher_of(event.value)
    if fetcher is not None:
        fetcher.rest()


class Arrivals(QObject):
    """Refreshes one layer; lives as long as its fetcher.

    Parameters
    ----------
    layer : Image
        On the screen; kept weakly.
    fetcher : Fetcher
        Says when something is missing.
    """

    _wanting = Signal()

    def __init__(self, layer: Image, fetcher: Fetcher) -> None:
        super().__init__()
        self._layer = weakref.ref(layer)
        self._fetcher = weakref.ref(fetcher)
        self._limits = [*layer.contrast_limits]
        self._whole = fetcher.filled and not fetcher.fresh
        self._bar: Any = None
        self._told = ""
        self._timer = QTimer(self)
        self._timer.setInterval(BETWEEN)
        self._timer.timeout.connect(self._tick)
        self._wanting.connect(self._begin)
        layer.events.visible.connect(self._on_visible)
        fetcher.wanting = self.wanting
        fetcher.patient = True
        _watched.add(fetcher)
        self._begin()

    def wanting(self) -> None:
        """Begin to tick; from whatever thread slices, Qt brings it to the window's."""
        self._wanting.emit()

    def _begin(self) -> None:
        if not self._timer.isActive():
            self._timer.start()

    def _on_visible(self, event: Any = None) -> None:
        layer, fetcher = self._layer(), self._fetcher()
        if layer is not None and fetcher is not None and not layer.visible:
            fetcher.rest()

    def _tick(self) -> None:
        layer, fetcher = self._layer(), self._fetcher()
        if layer is None or fetcher is None:
            self._timer.stop()
            return
        busy = fetcher.busy
        self._tell(fetcher)
        if fetcher.fresh:
            fetcher.fresh = False
            if fetcher.filled and not self._whole:
                self._whole = True
                self._stretch(layer, fetcher)
            # To refresh is to look: a layer that is gone would fetch once more.
            if layer.visible and not fetcher.resting:
                layer.refresh(highlight=False, extent=False)
        elif not busy:
            self._timer.stop()

    def _stretch(self, layer: Image, fetcher: Fetcher) -> None:
        """Set the contrast, unless it was known or the person has."""
        if fetcher.whole.dtype != np.uint8 and [*layer.contrast_limits] == self._limits:
            layer.contrast_limits_range = layer.contrast_limits = limits(fetcher.whole)

    def _tell(self, fetcher: Fetcher) -> None:
        """Say how far missing levels are built, and what cannot be shown."""
        part = fetcher.fraction
        if part is not None and self._bar is None:
            name = fetcher.pyramid.name
            self._bar = progress(total=100, desc=f"{name}: building an overview, once")
        if self._bar is not None:
            self._bar.update(round(100 * (1 if part is None else part)) - self._bar.n)
            if part is None:
                self._bar.close()
                self._bar = None
        if fetcher.failure and fetcher.failure != self._told:
            self._told = fetcher.failure
            show_warning(self._told)
