"""Region of interest: the shapes that a run is restricted to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari.layers import Image, Shapes

from hrviewer.viewer.image.geometry import isotropic_placement, screen_pixel

if TYPE_CHECKING:
    from napari.components import ViewerModel

__all__ = ["region_layer", "start_region"]

LINE_WIDTH = 2.0
"""Of a region's outline, in screen pixels when its layer is made."""


def region_layer(viewer: ViewerModel) -> Shapes | None:
    """Return the layer of shapes that regions are drawn on: the active one, or the topmost."""
    active = viewer.layers.selection.active
    if isinstance(active, Shapes):
        return active
    return next((layer for layer in reversed(viewer.layers) if isinstance(layer, Shapes)), None)


def start_region(viewer: ViewerModel, image_layer: Image) -> None:
    """Let the user draw a rectangle."""
    shapes = region_layer(viewer)
    if shapes is None:
        y, x = screen_pixel(viewer, image_layer)
        place, _ = isotropic_placement(image_layer)
        shapes = Shapes(
            name="region",
            edge_color="#ffd54f",
            edge_width=max(1.0, LINE_WIDTH * (y * x) ** 0.5),
            face_color="transparent",
            scale=place["scale"],
            translate=place["translate"],
            units=place["units"],
        )
        viewer.add_layer(shapes)
    viewer.layers.selection.active = shapes
    shapes.mode = "add_rectangle"
