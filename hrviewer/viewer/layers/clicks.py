"""Clicks on the canvas as clicks on the current image."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import numpy as np

from hrviewer.app.state import AppState, PatchClick
from hrviewer.viewer.image.geometry import pixel_at
from hrviewer.viewer.layers.image_tracker import layer_of
from hrviewer.viewer.layers.result_layers import ResultLayers

if TYPE_CHECKING:
    from napari.components import ViewerModel

__all__ = ["ClickHandler"]

MAX_MOVE_PX = 3
"""Screen pixels that the mouse may move within a click."""


class ClickHandler:
    """Emits `AppState.patch_clicked`.

    Parameters
    ----------
    viewer : ViewerModel
        The viewer.
    state : AppState
        Has the current image.
    results : ResultLayers
        Has the layers whose visibility changes what a click does.
    """

    def __init__(self, viewer: ViewerModel, state: AppState, results: ResultLayers) -> None:
        self._viewer, self._state, self._results = viewer, state, results
        viewer.mouse_drag_callbacks.append(self.on_mouse)

    def on_mouse(self, viewer: Any, event: Any) -> Generator[None, None, None]:
        """Distinguish a click from a drag."""
        start = np.asarray(event.pos)
        yield
        while event.type == "mouse_move":
            yield
        if np.abs(np.asarray(event.pos) - start).max() <= MAX_MOVE_PX:
            self.click(event.position)

    def click(self, position: Any) -> None:
        """Click at a world position."""
        image_layer = layer_of(self._state.image)
        if image_layer is not None:
            results = self._results
            point = pixel_at(image_layer, position)
            self._state.patch_clicked.emit(
                PatchClick(point, results.embeddings_visible, results.attention_wanted)
            )

    def close(self) -> None:
        """React to clicks no more."""
        if self.on_mouse in self._viewer.mouse_drag_callbacks:
            self._viewer.mouse_drag_callbacks.remove(self.on_mouse)
