"""Regions: the shapes that a run is restricted to, on a layer of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Image, Layer, Shapes

from hrviewer.viewer.image.geometry import METADATA_KEY, isotropic_placement, screen_pixel

if TYPE_CHECKING:
    from napari.components import ViewerModel

__all__ = [
    "drawing_layer",
    "ensure_drawing_layer",
    "is_region_layer",
    "region_layer",
    "start_region",
]

COLOUR = "#ffd54f"

LINE_WIDTH = 2.0
"""Of a region's outline, in screen pixels when its layer is made."""


def region_layer(viewer: ViewerModel) -> Shapes | None:
    """Return the layer whose shapes are regions, never one of annotations.

    It is the active layer of shapes, as of an imported file, otherwise that of drawn regions.
    """
    active = viewer.layers.selection.active
    if isinstance(active, Shapes) and METADATA_KEY not in active.metadata:
        return active
    return drawing_layer(viewer)


def drawing_layer(viewer: ViewerModel) -> Shapes | None:
    """Return the layer that regions are drawn on; None without any."""
    return next((layer for layer in viewer.layers if is_region_layer(layer)), None)


def is_region_layer(layer: Layer) -> bool:
    """Return whether regions are drawn on a layer."""
    return isinstance(layer, Shapes) and "regions" in layer.metadata.get(METADATA_KEY, {})


def start_region(viewer: ViewerModel, image_layer: Image, tool: str = "add_rectangle") -> None:
    """Let the user draw with one of napari's tools for shapes."""
    shapes = ensure_drawing_layer(viewer, image_layer)
    viewer.layers.selection.active = shapes
    shapes.mode = tool


def ensure_drawing_layer(viewer: ViewerModel, image_layer: Image) -> Shapes:
    """Return the layer that regions are drawn on; it is added if there is none."""
    shapes = drawing_layer(viewer)
    if shapes is None:
        y, x = screen_pixel(viewer, image_layer)
        place, _ = isotropic_placement(image_layer)
        shapes = Shapes(
            name="region",
            edge_color=COLOUR,
            edge_width=max(1.0, LINE_WIDTH * (y * x) ** 0.5),
            face_color="transparent",
            features={"name": np.empty(0, object), "class": np.empty(0, object)},
            feature_defaults={"name": "region", "class": "region"},
            text={"string": "{name}", "color": COLOUR, "size": 10, "anchor": "upper_left"},
            metadata={METADATA_KEY: {"regions": True}},
            scale=place["scale"],
            translate=place["translate"],
            units=place["units"],
        )
        viewer.add_layer(shapes)
    return shapes
