"""The region that the person chose: all of the image, what is on the screen, or what is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from napari.layers import Image, Shapes

from hrviewer.errors import HrviewerError
from hrviewer.geometry import Rect
from hrviewer.viewer.image.geometry import screen_pixel, shapes_rect, visible_rect
from hrviewer.viewer.image.image_layer import shape_of

if TYPE_CHECKING:
    from napari.components import ViewerModel

__all__ = ["RegionKind", "region_layer", "region_rect", "start_region"]

RegionKind = Literal["whole", "visible", "drawn"]


def region_rect(viewer: ViewerModel, image_layer: Image, kind: RegionKind) -> Rect | None:
    """Return a region, level-0 pixels; None for the whole image.

    Raises
    ------
    UserError
        If nothing is drawn, or the image is out of sight.
    """
    if kind == "whole":
        return None
    image = Rect(0, 0, *shape_of(image_layer))
    if kind == "visible":
        rect = visible_rect(viewer, image_layer, image)
        if rect.empty:
            raise HrviewerError(
                "the image is out of sight: bring it back, or choose another region"
            )
        return rect
    shapes = region_layer(viewer)
    rect = Rect(0, 0, 0, 0) if shapes is None else shapes_rect(viewer, image_layer, shapes, image)
    if rect.empty:
        raise HrviewerError(
            "no shape is drawn on the image: draw a rectangle, or choose another region"
        )
    return rect


def region_layer(viewer: ViewerModel) -> Shapes | None:
    """Return the layer of shapes that regions are drawn on: the chosen one, or the topmost."""
    active = viewer.layers.selection.active
    if isinstance(active, Shapes):
        return active
    return next((layer for layer in reversed(viewer.layers) if isinstance(layer, Shapes)), None)


def start_region(viewer: ViewerModel, image_layer: Image) -> None:
    """Let the person draw a rectangle."""
    shapes = region_layer(viewer)
    if shapes is None:
        shapes = Shapes(
            name="region",
            edge_color="#ffd54f",
            edge_width=max(1.0, 2 * screen_pixel(viewer, image_layer)),
            face_color="transparent",
            scale=image_layer.scale[-2:],
            translate=image_layer.translate[-2:],
            units=image_layer.units[-2:],
        )
        viewer.add_layer(shapes)
    viewer.layers.selection.active = shapes
    shapes.mode = "add_rectangle"
