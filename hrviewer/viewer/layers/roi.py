"""The region that the person chose: all of the image, what is on the screen, or what is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from napari.layers import Image, Shapes

from hrviewer.errors import UserError
from hrviewer.geometry import Rect
from hrviewer.viewer.image.geometry import drawn_rect, screen_pixel, visible_rect
from hrviewer.viewer.image.image_layer import shape_of

if TYPE_CHECKING:
    from napari.components import ViewerModel

__all__ = ["RegionKind", "chosen_rect", "draw_region", "shapes_of"]

RegionKind = Literal["whole", "visible", "drawn"]


def chosen_rect(viewer: ViewerModel, base: Image, kind: RegionKind) -> Rect | None:
    """Return a region, level-0 pixels; None for the whole image.

    Raises
    ------
    UserError
        If nothing is drawn, or the image is out of sight.
    """
    if kind == "whole":
        return None
    image = Rect(0, 0, *shape_of(base))
    if kind == "visible":
        rect = visible_rect(viewer, base, image)
        if rect.empty:
            raise UserError("the image is out of sight: bring it back, or choose another region")
        return rect
    shapes = shapes_of(viewer)
    rect = Rect(0, 0, 0, 0) if shapes is None else drawn_rect(viewer, base, shapes, image)
    if rect.empty:
        raise UserError(
            "no shape is drawn on the image: draw a rectangle, or choose another region"
        )
    return rect


def shapes_of(viewer: ViewerModel) -> Shapes | None:
    """Return the layer of shapes that regions are drawn on: the chosen one, or the topmost."""
    active = viewer.layers.selection.active
    if isinstance(active, Shapes):
        return active
    return next((layer for layer in reversed(viewer.layers) if isinstance(layer, Shapes)), None)


def draw_region(viewer: ViewerModel, base: Image) -> None:
    """Let the person draw a rectangle."""
    shapes = shapes_of(viewer)
    if shapes is None:
        shapes = Shapes(
            name="region",
            edge_color="#ffd54f",
            edge_width=max(1.0, 2 * screen_pixel(viewer, base)),
            face_color="transparent",
            scale=base.scale[-2:],
            translate=base.translate[-2:],
            units=base.units[-2:],
        )
        viewer.add_layer(shapes)
    viewer.layers.selection.active = shapes
    shapes.mode = "add_rectangle"
