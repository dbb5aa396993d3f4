"""Layers that outlive what made them: those of a closed panel, and the user's copies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from hrviewer.viewer.image.geometry import METADATA_KEY
from hrviewer.viewer.layers.layer_list import remove_layers, set_layer_visible

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer

__all__ = ["OverlayCopies", "mark_left", "remove_left"]


def mark_left(layers: Iterable[Layer]) -> None:
    """Mark layers that stay when the panel is closed."""
    for layer in layers:
        layer.metadata = layer.metadata | {
            METADATA_KEY: layer.metadata.get(METADATA_KEY, {}) | {"left": True}
        }


def remove_left(viewer: ViewerModel) -> None:
    """Remove the layers of a closed panel: nothing belongs to them any more."""
    left = [layer for layer in viewer.layers if layer.metadata.get(METADATA_KEY, {}).get("left")]
    remove_layers(viewer, left)


class OverlayCopies:
    """Shows the user's copies of overlays over their image only.

    Parameters
    ----------
    viewer : ViewerModel
        The viewer.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._hidden: set[Layer] = set()

    def follow(self, current: Image | None, own: Iterable[Layer]) -> None:
        """Hide the copies of other images' overlays, and show those of the current image again.

        Parameters
        ----------
        current : Image or None
            The layer of the current image.
        own : iterable of Layer
            The overlays themselves, which are not copies.
        """
        for copy in self._copies(list(own)):
            over = copy.metadata[METADATA_KEY]["over"]
            if current is None or over != current.unique_id:
                if copy.visible:
                    self._hidden.add(copy)
                    set_layer_visible(copy, False)
            elif copy in self._hidden:
                self._hidden.discard(copy)
                set_layer_visible(copy, True)
        self._hidden &= set(self._viewer.layers)

    def _copies(self, own: list[Layer]) -> Iterator[Layer]:
        for layer in self._viewer.layers:
            tagged = "over" in layer.metadata.get(METADATA_KEY, {})
            if tagged and not any(layer is each for each in own):
                yield layer
