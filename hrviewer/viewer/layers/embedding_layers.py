"""Layers of embeddings: their colours, and their similarity to a selected location.

Both are hidden at first. Where the colours are visible, a click selects a location.
"""

from __future__ import annotations

from collections.abc import Iterator

from napari.layers import Image

from hrviewer.app.maps.embedding_map import EmbeddingMap
from hrviewer.viewer.image.geometry import METADATA_KEY, placement
from hrviewer.viewer.layers.feature_layers import LayerGroup

__all__ = ["EmbeddingLayers"]


class EmbeddingLayers(LayerGroup):
    """Layers of an image's embeddings.

    Parameters
    ----------
    image_layer : Image
        The image.
    embeddings : EmbeddingMap
        The displayed embeddings.
    previous : EmbeddingLayers, optional
        Earlier layers: visible ones stay visible.
    """

    def __init__(
        self, image_layer: Image, embeddings: EmbeddingMap, previous: EmbeddingLayers | None = None
    ) -> None:
        super().__init__()
        self.embeddings = embeddings
        place = placement(image_layer, embeddings.cell)
        self.colours: Image = Image(
            embeddings.colours,
            rgb=True,
            name="embeddings",
            visible=previous is not None and previous.colours.visible,
            opacity=0.9,
            interpolation2d="nearest",
            blending="translucent_no_depth",
            metadata={METADATA_KEY: {"overlay": "embeddings"}},
            **place,
        )
        self.similarity: Image = Image(
            embeddings.similarity,
            name="similarity",
            visible=False,
            colormap="viridis",
            contrast_limits=(0.0, 1.0),
            opacity=0.8,
            interpolation2d="nearest",
            blending="translucent_no_depth",
            metadata={
                METADATA_KEY: {
                    "overlay": "similarity",
                    "unit": "similarity to the selected location",
                }
            },
            **place,
        )

    def __iter__(self) -> Iterator[Image]:
        """Both layers, the lower one first."""
        yield self.colours
        yield self.similarity

    def refresh(self) -> None:
        """Display what changed."""
        if not self.embeddings.changed:
            return
        self.embeddings.changed = False
        if self.embeddings.similarity_changed:
            self.embeddings.similarity_changed = False
            self.similarity.visible = True
        self._redraw_visible()
