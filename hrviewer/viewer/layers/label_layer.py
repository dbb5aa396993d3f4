"""Layer of the labels that a head is fitted to: a point for each, which the user may remove."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from napari.layers import Points

from hrviewer.app.services.head_training import HeadTrainer
from hrviewer.app.state import AppState
from hrviewer.io.features import Feature
from hrviewer.io.geojson import OKABE_ITO
from hrviewer.viewer.image.geometry import METADATA_KEY, placement
from hrviewer.viewer.layers.image_tracker import layer_of
from hrviewer.viewer.layers.layer_list import keep_selection

if TYPE_CHECKING:
    from napari.components import ViewerModel

__all__ = ["LabelLayer"]

LABEL_SIZE = 10.0
"""Diameter of a label, in screen pixels when it is assigned."""


class LabelLayer:
    """A `Points` layer of the current image's labels.

    Parameters
    ----------
    viewer : ViewerModel
        The viewer.
    state : AppState
        Has the labels.
    trainer : HeadTrainer
        Learns which labels the user removed.

    Attributes
    ----------
    layer : Points or None
        The layer; None where there are no labels.
    """

    def __init__(self, viewer: ViewerModel, state: AppState, trainer: HeadTrainer) -> None:
        self._viewer, self._state, self._trainer = viewer, state, trainer
        self.layer: Points | None = None
        self._labels: list[Feature] = []
        self._colours: dict[str, str] = {}
        self._updating = False
        state.labels_changed.connect(self._update)
        viewer.layers.events.removed.connect(self._on_removed)

    def close(self) -> None:
        """Follow the layer list no more."""
        self._viewer.layers.events.removed.disconnect(self._on_removed)

    def _update(self) -> None:
        image = self._state.image
        labels = [] if image is None else image.labels
        if labels == self._labels:
            return
        grown = bool(self._labels) and labels[: len(self._labels)] == self._labels
        new = labels[len(self._labels) :] if grown else labels
        self._labels = [*labels]
        self._updating = True
        if not grown:
            self._remove()
        image_layer = layer_of(image)
        if new and image is not None and image_layer is not None:
            if self.layer is None:
                self._make(image_layer)
            size = LABEL_SIZE * image.source.viewport().pixel[1]
            for label in new:
                self._add(label, size)
        self._updating = False

    def _make(self, image_layer: Any) -> None:
        self.layer = Points(
            ndim=2,
            name="labels",
            features=pd.DataFrame({"label": np.empty(0, object)}),
            border_color="black",
            metadata={METADATA_KEY: {"overlay": "labels"}},
            **placement(image_layer, 1.0),
        )
        self.layer.events.data.connect(self._on_data)
        with keep_selection(self._viewer):
            self._viewer.add_layer(self.layer)

    def _add(self, label: Feature, size: float) -> None:
        assert self.layer is not None
        tones = [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in OKABE_ITO]
        colour = self._colours.setdefault(label.label, tones[len(self._colours) % len(tones)])
        self.layer.selected_data = set()
        self.layer.feature_defaults = pd.DataFrame([{"label": label.label}])
        self.layer.current_face_color = colour
        self.layer.current_size = size
        self.layer.add(np.array([label.point]) - 0.5)
        self.layer.selected_data = set()

    def _remove(self) -> None:
        layer, self.layer = self.layer, None
        if layer is not None:
            layer.events.data.disconnect(self._on_data)
            if layer in self._viewer.layers:
                self._viewer.layers.remove(layer)

    def _on_data(self, event: Any) -> None:
        """Hand over what the user moved or removed."""
        if self._updating or self.layer is None:
            return
        classes = self.layer.features["label"]
        if len(classes) != len(self.layer.data):
            return  # in the middle of a removal
        labels = [
            Feature("annotation", str(label), point=(float(y) + 0.5, float(x) + 0.5))
            for (y, x), label in zip(self.layer.data, classes, strict=True)
        ]
        self._labels = labels
        self._trainer.set_labels(labels)

    def _on_removed(self, event: Any) -> None:
        if self.layer is not None and event.value == self.layer and not self._updating:
            self.layer, self._labels = None, []
            self._trainer.set_labels([])
