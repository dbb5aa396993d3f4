"""Visibility of images that lie over each other: results belong to the one that is shown.

An image that becomes current is shown, and those in its place are hidden, so that its numbers and
overlays never stand over another one's pixels. Images that the user mixes, by opacity or blending,
stay as they are, and so do images that lie beside each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from hrviewer.viewer.image.geometry import METADATA_KEY
from hrviewer.viewer.image.image_layer import is_channel_of
from hrviewer.viewer.layers.layer_list import set_layer_visible

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer

__all__ = ["ImageVisibility"]

OPAQUE = ("opaque", "translucent", "translucent_no_depth")
"""Ways of blending in which an image of full opacity covers what is below."""


class ImageVisibility:
    """Shows one of several images that lie over each other.

    Parameters
    ----------
    viewer : ViewerModel
        The viewer.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._hidden: dict[Image, list[Layer]] = {}

    def show(self, image: Image, images: Iterable[Image]) -> None:
        """Show an image, and hide those in its place.

        Parameters
        ----------
        image : Image
            The layer that stands for the image; its channels and stains go with it.
        images : iterable of Image
            All images.
        """
        hidden = self._hidden.pop(image, [])
        if not self.is_visible(image):
            for layer in hidden or [image]:
                set_layer_visible(layer, True)
        if self._viewer.canvas.grid.enabled or not is_opaque(image):
            return
        for other in images:
            if other != image and self.is_visible(other) and covers(other, image):
                self._hidden[other] = [each for each in self._layers(other) if each.visible]
                for layer in self._hidden[other]:
                    set_layer_visible(layer, False)

    def shown(self, current: Image, images: Sequence[Image]) -> Image:
        """Return the image whose pixels are on the screen where the current one should be.

        Parameters
        ----------
        current : Image
            The current image.
        images : sequence of Image
            All images, the lowest first.

        Returns
        -------
        Image
            The topmost one that covers the current image; if that is hidden, the topmost one that
            is visible; otherwise the current one.
        """
        if self._viewer.canvas.grid.enabled:
            return current
        visible = [image for image in reversed(images) if self.is_visible(image)]
        if not self.is_visible(current):
            return visible[0] if visible else current
        above = visible[: visible.index(current)]
        return next((image for image in above if covers(image, current)), current)

    def forget(self, image: Image) -> None:
        """Keep nothing of an image that is removed."""
        self._hidden.pop(image, None)

    def is_visible(self, image: Image) -> bool:
        """Return whether any layer of an image is visible."""
        return any(layer.visible for layer in self._layers(image))

    def _layers(self, image: Image) -> list[Layer]:
        """Return an image's layer, and those of its other channels and its stains."""
        pyramid = image.metadata.get(METADATA_KEY, {}).get("pyramid")
        parts = self._viewer.layers if pyramid is not None else ()
        return [image, *(layer for layer in parts if is_channel_of(layer, pyramid))]


def is_opaque(image: Image) -> bool:
    """Return whether nothing is seen through an image."""
    return image.blending in OPAQUE and image.opacity == 1


def covers(image: Image, other: Image) -> bool:
    """Return whether an image hides a part of another one below it."""
    if not is_opaque(image):
        return False
    (low, high), (other_low, other_high) = (
        np.asarray(layer.extent.world)[:, -2:] for layer in (image, other)
    )
    return bool(np.all(np.minimum(high, other_high) > np.maximum(low, other_low)))
