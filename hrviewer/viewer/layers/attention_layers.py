"""Layers of attention, hidden at first.

Where one of them is visible, a click on a token shows its attention, and that of its region.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from napari.layers import Image
from numpy.typing import NDArray

from hrviewer.app.maps.attention_map import AttentionMap
from hrviewer.viewer.image.geometry import METADATA_KEY, placement
from hrviewer.viewer.layers.feature_layers import LayerGroup

__all__ = ["AttentionLayers"]


class AttentionLayers(LayerGroup):
    """Layers of an image's attention.

    Parameters
    ----------
    image_layer : Image
        The image.
    attention : AttentionMap
        The displayed attention.
    previous : AttentionLayers, optional
        Earlier layers: visible ones stay visible.
    """

    def __init__(
        self, image_layer: Image, attention: AttentionMap, previous: AttentionLayers | None = None
    ) -> None:
        super().__init__()
        self.attention, self._image_layer = attention, image_layer
        before = [layer.visible for layer in previous or ()] or [False] * 3
        self.merged = self._make_layer(
            "merged", attention.merged, "merged tokens share a colour", before[0]
        )
        self.attention_received = self._make_layer(
            "attention received", attention.attention_received, "relative to its maximum", before[1]
        )
        self.weights = self._make_layer(
            "attention", attention.weights, "of the clicked token, relative", before[2]
        )

    def _make_layer(self, name: str, data: NDArray[Any], unit: str, visible: bool) -> Image:
        scale: dict[str, Any] = {"colormap": "magma", "contrast_limits": (0.0, 1.0)}
        return Image(
            data,
            rgb=data.ndim == 3,
            name=name,
            visible=visible,
            opacity=0.7,
            interpolation2d="nearest",
            blending="translucent_no_depth",
            metadata={METADATA_KEY: {"overlay": name, "unit": unit}},
            **(scale if data.ndim == 2 else {}),
            **placement(self._image_layer, self.attention.cell),
        )

    def __iter__(self) -> Iterator[Image]:
        """All layers, the lowest first."""
        yield self.merged
        yield self.attention_received
        yield self.weights

    @property
    def any_visible(self) -> bool:
        """Whether one of them is visible."""
        return any(layer.visible for layer in self)

    def refresh(self) -> None:
        """Display what changed."""
        if not self.attention.changed:
            return
        self.attention.changed = False
        self._redraw_visible()
