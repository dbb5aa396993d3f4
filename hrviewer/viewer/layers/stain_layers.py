"""Stains of a section as layers over its image: one at a time, or the colours themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Layer

from hrviewer.pyramid import Pyramid
from hrviewer.viewer.image.geometry import METADATA_KEY
from hrviewer.viewer.image.image_layer import stain_layer_data
from hrviewer.viewer.layers.layer_list import keep_selection

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image

__all__ = ["has_stains", "show_stain", "shown_stain"]

MAX_PIXEL = 20.0
"""Micrometres; photographs of other things have larger pixels, or no pixel size."""


def has_stains(pyramid: Pyramid) -> bool:
    """Return whether an image may be a section in brightfield."""
    size = pyramid.pixel_size
    bytes_of_colours = pyramid.is_rgb and pyramid.dtype == np.uint8
    return bytes_of_colours and size is not None and max(size) <= MAX_PIXEL


def show_stain(viewer: ViewerModel, image_layer: Image, stain: str | None) -> None:
    """Show one stain instead of an image's colours; None shows the colours."""
    layers = _stain_layers(viewer, image_layer)
    if stain is not None and stain not in layers:
        pyramid = image_layer.metadata[METADATA_KEY]["pyramid"]
        data = stain_layer_data(pyramid, stain)
        data[1].update(scale=image_layer.scale, translate=image_layer.translate)
        layer = layers[stain] = Layer.create(*data)
        with keep_selection(viewer):
            viewer.layers.insert(viewer.layers.index(image_layer) + 1, layer)
    for name, layer in layers.items():
        layer.visible = name == stain


def shown_stain(viewer: ViewerModel, image_layer: Image) -> str | None:
    """Return the stain that is shown instead of an image's colours."""
    layers = _stain_layers(viewer, image_layer)
    return next((name for name, layer in layers.items() if layer.visible), None)


def _stain_layers(viewer: ViewerModel, image_layer: Image) -> dict[str, Any]:
    pyramid = image_layer.metadata.get(METADATA_KEY, {}).get("pyramid")
    own = [(layer, layer.metadata.get(METADATA_KEY, {})) for layer in viewer.layers]
    return {
        facts["stain"]: layer
        for layer, facts in own
        if "stain" in facts and facts.get("pyramid") is pyramid
    }
