"""Undo and redo of what the user draws: shapes and points, which napari does not undo.

Invariant: a layer's states are copies, at most `MAX_STATES` and `MAX_VERTICES` of them in all; what
hrviewer displays itself is not in the user's hands and has no history.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Layer, Points, Shapes

from hrviewer.viewer.image.geometry import METADATA_KEY

if TYPE_CHECKING:
    import pandas as pd
    from napari.components import ViewerModel

__all__ = ["DrawingHistories", "DrawingHistory"]

MAX_STATES = 100
MAX_VERTICES = 1_000_000
"""Vertices of all states of a layer together."""

UNDO_KEY, REDO_KEY = "Control-Z", "Control-Shift-Z"

FINISHED = ("added", "removed", "changed")
"""Actions of napari's data events after which a layer is whole again."""


@dataclass(frozen=True, eq=False)
class DrawingState:
    """What is drawn on a layer at one time.

    Parameters
    ----------
    data : list of ndarray
        Vertices of each shape, or one array of points.
    kinds : list of str
        Types of shapes; empty for points.
    features : DataFrame
        A row for each.
    colors : tuple of ndarray
        Of edges or borders, and of faces.
    """

    data: list[Any]
    kinds: list[str]
    features: pd.DataFrame
    colors: tuple[Any, Any]

    @property
    def size(self) -> int:
        """Number of vertices."""
        return sum(len(part) for part in self.data)


class DrawingHistory:
    """The states of one layer.

    Parameters
    ----------
    layer : Shapes or Points
        The layer; it gets the keys of undo and redo.
    """

    def __init__(self, layer: Shapes | Points) -> None:
        self.layer = layer
        self._states = [state_of(layer)]
        self._at = 0
        self._restoring = False
        layer.events.data.connect(self._on_data)
        # napari binds keys to functions of the layer.
        layer.bind_key(UNDO_KEY, lambda _: self.undo(), overwrite=True)
        layer.bind_key(REDO_KEY, lambda _: self.redo(), overwrite=True)

    @property
    def can_undo(self) -> bool:
        """Whether there is an earlier state."""
        return self._at > 0

    @property
    def can_redo(self) -> bool:
        """Whether something was undone."""
        return self._at + 1 < len(self._states)

    def undo(self) -> None:
        """Bring back the state before the last change."""
        if self.can_undo:
            self._restore(self._at - 1)

    def redo(self) -> None:
        """Make the last undone change again."""
        if self.can_redo:
            self._restore(self._at + 1)

    def close(self) -> None:
        """Follow the layer no more."""
        self.layer.events.data.disconnect(self._on_data)

    def _on_data(self, event: Any) -> None:
        action = str(getattr(event, "action", "changed")).rsplit(".", 1)[-1].lower()
        if self._restoring or action not in FINISHED:
            return
        self._states[self._at + 1 :] = [state_of(self.layer)]
        while len(self._states) > 2 and (
            len(self._states) > MAX_STATES or sum(s.size for s in self._states) > MAX_VERTICES
        ):
            del self._states[0]
        self._at = len(self._states) - 1

    def _restore(self, index: int) -> None:
        self._restoring = True
        try:
            restore(self.layer, self._states[index])
            self._at = index
        finally:
            self._restoring = False


class DrawingHistories:
    """The histories of all layers in a viewer that the user draws on.

    Parameters
    ----------
    viewer : ViewerModel
        The viewer.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._histories: list[DrawingHistory] = []
        viewer.layers.events.inserted.connect(self._on_inserted)
        viewer.layers.events.removed.connect(self._on_removed)
        for layer in viewer.layers:
            self._follow(layer)

    def of(self, layer: Layer | None) -> DrawingHistory | None:
        """Return a layer's history; None of one that the user does not draw on."""
        # Equal, not identical: napari hands plug-ins proxies of its layers.
        return next((history for history in self._histories if history.layer == layer), None)

    def undo(self) -> None:
        """Undo the last change of the active layer."""
        history = self.of(self._viewer.layers.selection.active)
        if history is not None:
            history.undo()

    def redo(self) -> None:
        """Make the last undone change of the active layer again."""
        history = self.of(self._viewer.layers.selection.active)
        if history is not None:
            history.redo()

    def close(self) -> None:
        """Follow the viewer no more."""
        self._viewer.layers.events.inserted.disconnect(self._on_inserted)
        self._viewer.layers.events.removed.disconnect(self._on_removed)
        for history in self._histories:
            history.close()
        self._histories = []

    def _on_inserted(self, event: Any) -> None:
        self._follow(event.value)

    def _on_removed(self, event: Any) -> None:
        history = self.of(event.value)
        if history is not None:
            history.close()
            self._histories.remove(history)

    def _follow(self, layer: Layer) -> None:
        own = layer.metadata.get(METADATA_KEY, {})
        if isinstance(layer, Shapes | Points) and "overlay" not in own and self.of(layer) is None:
            self._histories.append(DrawingHistory(layer))


def state_of(layer: Shapes | Points) -> DrawingState:
    """Return a copy of what is drawn."""
    features = layer.features.copy()
    if isinstance(layer, Shapes):
        colors = np.array(layer.edge_color), np.array(layer.face_color)
        return DrawingState(
            [np.array(part) for part in layer.data], [*layer.shape_type], features, colors
        )
    colors = np.array(layer.border_color), np.array(layer.face_color)
    return DrawingState([np.array(layer.data)], [], features, colors)


def restore(layer: Shapes | Points, state: DrawingState) -> None:
    """Draw a state again."""
    if isinstance(layer, Points):
        layer.selected_data = set()
        layer.data = state.data[0]
        layer.features = state.features
        if len(state.data[0]):
            layer.border_color, layer.face_color = state.colors
        return
    layer.selected_data = set(range(len(layer.data)))
    layer.remove_selected()
    if state.data:
        edges, faces = state.colors
        layer.add(state.data, shape_type=state.kinds, edge_color=edges, face_color=faces)
        layer.features = state.features
    layer.selected_data = set()
