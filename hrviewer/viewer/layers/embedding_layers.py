"""Codes on the screen: their colours, and what looks like a place that was clicked.

Both layers are hidden at first. Where the colours are shown, a click shows what looks like there.
"""

from __future__ import annotations

from collections.abc import Iterator

from napari.layers import Image

from hrviewer.app.maps.embedding_map import EmbeddingMap
from hrviewer.viewer.image.image_layer import METADATA_KEY, placement
from hrviewer.viewer.layers.feature_layers import LayerGroup

__all__ = ["EmbeddingLayers"]


class EmbeddingLayers(LayerGroup):
    """The layers of an image's codes.

    Parameters
    ----------
    image_layer : Image
        What was encoded.
    embeddings : Codes
        What is shown.
    previous : Coded, optional
        Those before them: what was shown stays shown.
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
            name="alike",
            visible=False,
            colormap="viridis",
            contrast_limits=(0.0, 1.0),
            opacity=0.8,
            interpolation2d="nearest",
            blending="translucent_no_depth",
            metadata={
                METADATA_KEY: {"overlay": "alike", "unit": "likeness to the place that was clicked"}
            },
            **place,
        )

    def __iter__(self) -> Iterator[Image]:
        """Both layers, the lower one first."""
        yield self.colours
        yield self.similarity

    def refresh(self) -> None:
        """Bring onto the screen what is new."""
        if not self.embeddings.changed:
            return
        self.embeddings.changed = False
        if self.embeddings.similarity_changed:
            self.embeddings.similarity_changed = False
            self.similarity.visible = True
        self._redraw_visible()
