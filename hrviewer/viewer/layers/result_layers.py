"""Overlays of the results on the screen, kept up to date with the state.

They are hidden while another image is current and removed with their image, so that the results of
one image never lie over another one.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from hrviewer.app.image_session import ImageSession
from hrviewer.app.state import AppState
from hrviewer.viewer.layers.image_tracker import layer_of
from hrviewer.viewer.layers.left_layers import OverlayCopies
from hrviewer.viewer.layers.overlays import Overlays

if TYPE_CHECKING:
    from napari.components import ViewerModel

__all__ = ["ResultLayers"]

REFRESH_SECONDS = 0.1
"""Seconds between refreshes of the overlays in Live, at least."""


class ResultLayers:
    """Displays the result maps of the image that has any.

    Parameters
    ----------
    viewer : ViewerModel
        The viewer.
    state : AppState
        Has the result maps.

    Attributes
    ----------
    overlays : Overlays or None
        The displayed overlays.
    """

    def __init__(self, viewer: ViewerModel, state: AppState) -> None:
        self._viewer, self._state = viewer, state
        self.overlays: Overlays | None = None
        self._copies = OverlayCopies(viewer)
        self._image: ImageSession | None = None
        self._hidden = False
        self._request = 0
        self._refreshed_at = 0.0
        state.overlays_replaced.connect(self._on_replaced)
        state.image_closed.connect(self._on_image_closed)
        state.embeddings_requested.connect(self._show_embeddings)

    def set_hidden(self, hidden: bool) -> None:
        """Hide the overlays for a while, or show them again."""
        self._hidden = hidden
        self._apply_visibility()

    @property
    def embeddings_visible(self) -> bool:
        """Whether embeddings are displayed."""
        group = None if self.overlays is None else self.overlays.embedding_layers
        return group is not None and bool(group.colours.visible)

    @property
    def attention_wanted(self) -> bool:
        """Whether attention is displayed, or was never asked for."""
        group = None if self.overlays is None else self.overlays.attention_layers
        return group is None or group.any_visible

    def tick(self) -> None:
        """Display what was drawn, at the resolution of the view."""
        overlays, image, live = self.overlays, self._image, self._state.live
        if overlays is None or image is None or image is not self._state.image:
            return
        if live.enabled:
            if live.held or not self._is_due(overlays):
                return
            overlays.refresh(hidden=not live.updating)
        else:
            overlays.refresh()
        viewport = image.source.viewport()
        if not viewport.rect.empty:
            overlays.follow_view(viewport)
        if self._state.run_state == "idle" and not (live.enabled and live.updating):
            overlays.maps.settle_scales()

    def _is_due(self, overlays: Overlays) -> bool:
        """Return whether the last change is long enough ago; a new view is always due."""
        now = time.perf_counter()
        if self._request == self._state.live.request and now - self._refreshed_at < REFRESH_SECONDS:
            return False
        self._request = self._state.live.request
        rasters = overlays.maps.rasters.items()
        if any(raster.changed and overlays.layers[name].visible for name, raster in rasters):
            self._refreshed_at = now
        return True

    def _on_replaced(self) -> None:
        found = next((s for s in self._state.images if s.maps is not None), None)
        layer = layer_of(found)
        if found is None or found.maps is None or layer is None:
            self._remove()
            self._follow_copies()
            return
        if self.overlays is None or self.overlays.maps is not found.maps:
            self._image = found
            self.overlays = Overlays(self._viewer, layer, found.maps, previous=self.overlays)
        self._apply_visibility()
        self._follow_copies()

    def _on_image_closed(self, image: ImageSession) -> None:
        if image is self._image:
            self._remove()

    def _remove(self) -> None:
        overlays, self.overlays, self._image = self.overlays, None, None
        if overlays is not None:
            overlays.remove()

    def _follow_copies(self) -> None:
        self._copies.follow(layer_of(self._state.image), self.overlays or ())

    def _apply_visibility(self) -> None:
        if self.overlays is not None:
            hidden = self._hidden or self._image is not self._state.image
            if hidden != self.overlays.is_hidden:
                self.overlays.set_hidden(hidden)

    def _show_embeddings(self) -> None:
        group = None if self.overlays is None else self.overlays.embedding_layers
        if group is not None:
            group.colours.visible = True
