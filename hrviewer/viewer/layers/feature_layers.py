"""Groups of layers that display the features of a run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from napari.layers import Image, Layer

__all__ = ["LayerGroup"]


class LayerGroup(ABC):
    """Layers that belong together, hidden at first."""

    def __init__(self) -> None:
        self._hidden_layers: list[Layer] = []

    @abstractmethod
    def __iter__(self) -> Iterator[Image]:
        """Return all layers, the lowest first."""

    @abstractmethod
    def refresh(self) -> None:
        """Display what changed."""

    def set_hidden(self, hidden: bool) -> None:
        """Hide all layers for a while, or show those that were visible."""
        if hidden:
            self._hidden_layers += [layer for layer in self if layer.visible]
        for layer in self._hidden_layers:
            layer.visible = not hidden
        if not hidden:
            self._hidden_layers.clear()

    def _redraw_visible(self) -> None:
        """Redraw the visible layers."""
        for layer in self:
            if layer.visible:
                layer.set_view_slice()
                layer.events.set_data()
