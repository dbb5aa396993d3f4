"""Layers of a run's annotations: shapes and points that the user can edit.

Invariants: every change bears its author and time; what a layer cannot hold (holes, several parts)
is saved as it is, and not displayed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from napari.layers import Points, Shapes

from hrviewer.app.image_session import ImageSession
from hrviewer.app.services.annotation_service import AnnotationService
from hrviewer.app.state import AppState
from hrviewer.io.annotations import current_user, timestamp
from hrviewer.io.features import Feature
from hrviewer.viewer.image.geometry import METADATA_KEY, placement
from hrviewer.viewer.layers.image_tracker import layer_of
from hrviewer.viewer.layers.layer_features import features_of
from hrviewer.viewer.layers.layer_list import keep_selection, remove_layers

if TYPE_CHECKING:
    from napari.components import ViewerModel

__all__ = ["AnnotationLayers", "annotation_layers"]

ANNOTATION_COLOUR = "#ffd54f"
MAX_UNDO = 200
"""Edits that can be taken back."""

Snapshot = tuple[Any, list[str], pd.DataFrame]
"""Coordinates, types of shapes, and the table of a layer."""

FEATURE_COLUMNS = ("label", "author", "time", "name")


def annotation_layers(
    features: Sequence[Feature], transform: dict[str, Any], name: str
) -> tuple[Shapes, Points]:
    """Return features as editable layers: those with one simple outline, and points."""
    outlined = [feature for feature in features if is_simple_polygon(feature)]
    marked = [feature for feature in features if feature.point is not None]
    shapes = Shapes(
        [feature.polygons[0][0] - 0.5 for feature in outlined] or None,
        shape_type="polygon",
        name=name,
        features=feature_table(outlined),
        edge_color=ANNOTATION_COLOUR,
        face_color="transparent",
        edge_width=2,
        ndim=2,
        **transform,
    )
    points = Points(
        np.array([feature.point for feature in marked], float).reshape(-1, 2) - 0.5,
        name=f"{name}: points",
        features=feature_table(marked),
        face_color=ANNOTATION_COLOUR,
        border_color="black",
        size=12,
        ndim=2,
        **transform,
    )
    return shapes, points


def is_simple_polygon(feature: Feature) -> bool:
    """Return whether a layer can hold a feature's outline."""
    return len(feature.polygons) == 1 and len(feature.polygons[0]) == 1


def feature_table(features: Sequence[Feature]) -> pd.DataFrame:
    """Return the table of features, a row each."""
    rows = [
        {
            "label": f.label,
            "author": f.metadata.get("author", ""),
            "time": f.metadata.get("time", ""),
            "name": f.name,
        }
        for f in features
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=list(FEATURE_COLUMNS), dtype=object)


class AnnotationLayers:
    """Editable layers of the annotations that `AnnotationService` has open.

    Parameters
    ----------
    viewer : ViewerModel
        The viewer.
    state : AppState
        Has the image.
    service : AnnotationService
        Reads and writes.

    Attributes
    ----------
    layers : (Shapes, Points) or None
        The layers; None where no annotations are open.
    """

    def __init__(self, viewer: ViewerModel, state: AppState, service: AnnotationService) -> None:
        self._viewer, self._state, self._service = viewer, state, service
        self.layers: tuple[Shapes, Points] | None = None
        self._not_displayable: list[Feature] = []
        self._stamping_paused = False
        self._history: list[tuple[Shapes | Points, Snapshot]] = []
        self._latest: dict[int, Snapshot] = {}
        service.loaded.connect(self._show)
        service.added.connect(self._append)
        service.tool_requested.connect(self._activate_tool)
        service.closed.connect(self._remove)
        service.imported.connect(self._show_imported)

    def features(self) -> list[Feature]:
        """Return all annotations, renumbered."""
        drawn = list(self._not_displayable)
        for layer in self.layers or ():
            drawn += features_of(layer.as_layer_data_tuple())
        return [
            Feature(f.kind, f.label, f.polygons, f.point, f.name, i, f.measurements, f.metadata)
            for i, f in enumerate(drawn)
        ]

    def _show(self, features: list[Feature]) -> None:
        image_layer = layer_of(self._state.image)
        if image_layer is None:
            return
        self._not_displayable = [
            f for f in features if f.point is None and not is_simple_polygon(f)
        ]
        self.layers = annotation_layers(features, placement(image_layer, 1.0), "annotations")
        for layer in self.layers:
            layer.metadata[METADATA_KEY] = {"annotations": True}
        self._history.clear()
        with keep_selection(self._viewer):
            for layer in self.layers:
                self._viewer.add_layer(layer)
                layer.events.data.connect(self._on_data)
                layer.bind_key("Control-Z", lambda _: self.undo(), overwrite=True)
                self._latest[id(layer)] = snapshot_of(layer)

    def _show_imported(self, image: ImageSession, features: list[Feature], name: str) -> None:
        image_layer = layer_of(image)
        if image_layer is None:
            return
        for layer in annotation_layers(features, placement(image_layer, 1.0), name):
            if len(layer.data):
                self._viewer.add_layer(layer)

    def _append(self, features: list[Feature]) -> None:
        marked = [feature for feature in features if feature.point is not None]
        if self.layers is None or not marked:
            return
        _, points = self.layers
        before = points.features
        self._stamping_paused = True
        points.add(np.array([feature.point for feature in marked], float) - 0.5)
        points.features = pd.concat([before, feature_table(marked)], ignore_index=True)
        points.selected_data = set()
        self._stamping_paused = False
        self._latest[id(points)] = snapshot_of(points)
        self._service.mark_edited(self.features)

    @property
    def can_undo(self) -> bool:
        """Whether there is an edit to take back."""
        return bool(self._history)

    def undo(self) -> None:
        """Take back the last edit."""
        if not self._history or self.layers is None:
            return
        layer, (data, shape_types, table) = self._history.pop()
        self._stamping_paused = True
        layer.selected_data = set()
        layer.data = data if isinstance(layer, Points) else (data, shape_types)
        layer.features = table
        layer.selected_data = set()
        self._stamping_paused = False
        self._latest[id(layer)] = snapshot_of(layer)
        self._service.mark_edited(self.features)

    def _remember(self, layer: Shapes | Points) -> None:
        """Keep what the layer was before an edit."""
        self._history.append((layer, self._latest[id(layer)]))
        del self._history[:-MAX_UNDO]
        self._latest[id(layer)] = snapshot_of(layer)

    def _remove(self) -> None:
        layers, self.layers = self.layers, None
        self._history.clear()
        self._latest.clear()
        for layer in layers or ():
            layer.events.data.disconnect(self._on_data)
        remove_layers(self._viewer, layers or ())

    def _activate_tool(self) -> None:
        if self.layers is None:
            return
        shapes, points = self.layers
        drawing = self._service.tool == "shapes"
        chosen = shapes if drawing else points
        for layer in (shapes, points):
            layer.feature_defaults = pd.DataFrame([self._stamp()])
        self._viewer.layers.selection.active = chosen
        chosen.mode = "add_polygon" if drawing else "add"

    def _stamp(self) -> dict[str, str]:
        label = self._service.label
        return {"label": label, "author": current_user(), "time": timestamp(), "name": ""}

    def _on_data(self, event: Any) -> None:
        """Stamp what was drawn or changed with the user and the time."""
        action = str(getattr(event, "action", "")).rsplit(".", 1)[-1].lower()
        if self._stamping_paused or action not in ("added", "changed", "removed"):
            return
        self._service.mark_edited(self.features)
        if action == "removed":
            self._remember(event.source)
            return
        layer = event.source
        count = len(layer.data)
        rows = [i % count for i in event.data_indices if isinstance(i, int | np.integer) and count]
        table = layer.features.copy()
        if not rows or max(rows) >= len(table):
            return
        stamp = self._stamp()
        keys = ("author", "time") if action == "changed" else tuple(stamp)
        for key in keys:
            table[key] = table[key].astype(object)
            table.loc[rows, key] = stamp[key]
        layer.features = table
        self._remember(layer)


def snapshot_of(layer: Shapes | Points) -> Snapshot:
    """Return a copy of what a layer holds."""
    if isinstance(layer, Points):
        return np.array(layer.data), [], layer.features.copy()
    return [np.array(each) for each in layer.data], list(layer.shape_type), layer.features.copy()
