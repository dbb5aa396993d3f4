"""Layer of the ground truth: rings around the objects in view, of constant size on the screen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Points

from hrviewer.app.maps.ground_truth_points import GroundTruthPoints
from hrviewer.app.services.ground_truth_service import GroundTruthService
from hrviewer.app.state import AppState
from hrviewer.viewer.image.geometry import METADATA_KEY, placement
from hrviewer.viewer.layers.image_tracker import layer_of
from hrviewer.viewer.layers.layer_list import keep_selection

if TYPE_CHECKING:
    from typing import Any

    from napari.components import ViewerModel

__all__ = ["GroundTruthLayer"]

POINT_SIZE = 9.0
"""Diameter of a ring, in screen pixels."""

POINT_COLOUR = "#ff4fd8"
"""Distinct from every overlay's colours, also for colour-blind users."""


class GroundTruthLayer:
    """A `Points` layer of the current image's ground truth.

    Parameters
    ----------
    viewer : ViewerModel
        The viewer.
    state : AppState
        Has the ground truth.
    service : GroundTruthService
        Hides it when the user removes the layer.

    Attributes
    ----------
    layer : Points or None
        The layer; None where no ground truth is displayed.
    """

    def __init__(self, viewer: ViewerModel, state: AppState, service: GroundTruthService) -> None:
        self._viewer, self._state, self._service = viewer, state, service
        self.layer: Points | None = None
        self._shown: GroundTruthPoints | None = None
        self._drawn: Any = None
        state.ground_truth_changed.connect(self._update)
        state.image_closed.connect(self._update)
        viewer.layers.events.removed.connect(self._on_removed)

    def tick(self) -> None:
        """Keep the rings' size on the screen."""
        image = self._state.image
        if self.layer is not None and image is not None:
            # napari scales points by the last axis.
            size = POINT_SIZE * image.source.viewport().pixel[1]
            if abs(self.layer.current_size / size - 1) > 0.05:
                self.layer.current_size = size
                self.layer.size = size

    def close(self) -> None:
        """Follow the layer list no more."""
        self._viewer.layers.events.removed.disconnect(self._on_removed)

    def _update(self) -> None:
        image = self._state.image
        shown = None if image is None else image.ground_truth
        if shown is not self._shown:
            self._shown, self._drawn = shown, None
            self._remove()
        image_layer = layer_of(image)
        if shown is None or image_layer is None:
            return
        if self.layer is None:
            self.layer = Points(
                np.zeros((0, 2)),
                name="ground truth",
                symbol="ring",
                face_color=POINT_COLOUR,
                border_width=0,
                metadata={METADATA_KEY: {"overlay": "ground_truth"}},
                **placement(image_layer, 1.0),
            )
            with keep_selection(self._viewer):
                self._viewer.add_layer(self.layer)
        if shown.points is not self._drawn:
            self._drawn = shown.points
            size = self.layer.current_size
            # Pixel centres are at whole numbers in a layer, at halves in level-0 pixels.
            self.layer.data = shown.points - 0.5
            self.layer.size = size
            self.layer.selected_data = set()

    def _remove(self) -> None:
        layer, self.layer = self.layer, None
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)

    def _on_removed(self, event: Any) -> None:
        if self.layer is not None and event.value == self.layer:
            self.layer = None
            self._service.hide()
