"""Where things are: from the screen and from drawn shapes to pixels of the image."""

from __future__ import annotations

import math
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.geometry import Rect

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Shapes

__all__ = ["pixel_at", "screen_pixel", "shapes_rect", "visible_rect"]


def visible_rect(viewer: ViewerModel, image_layer: Image, image: Rect) -> Rect:
    """Return the part of the image that is on the screen; empty if none is."""
    centre = np.asarray(viewer.scene.camera.center[-2:])
    half = np.asarray(viewer.canvas.size) / viewer.scene.camera.zoom / 2
    corners = [centre + half * sign for sign in product((-1, 1), repeat=2)]
    return _bounds(viewer, image_layer, corners) & image


def screen_pixel(viewer: ViewerModel, image_layer: Image) -> float:
    """Return the side of a screen pixel in pixels of the image."""
    return float(1 / viewer.scene.camera.zoom / abs(image_layer.scale[-1]))


def shapes_rect(viewer: ViewerModel, image_layer: Image, shapes: Shapes, image: Rect) -> Rect:
    """Return the bounds of the selected shapes, or of the last one drawn; empty if none is."""
    if not shapes.nshapes:
        return Rect(0, 0, 0, 0)
    chosen = sorted(shapes.selected_data) or [shapes.nshapes - 1]
    corners = [
        np.asarray(shapes.data_to_world(vertex))[-2:]
        for index in chosen
        for vertex in shapes.data[index]
    ]
    return _bounds(viewer, image_layer, corners) & image


def pixel_at(image_layer: Image, position: Any) -> tuple[float, float]:
    """Return the pixel under a position of the world, ``(y, x)``, counted from corners."""
    y, x = np.asarray(image_layer.world_to_data(position))[-2:]
    return float(y) + 0.5, float(x) + 0.5


def _bounds(viewer: ViewerModel, image_layer: Image, corners: list[NDArray[np.floating]]) -> Rect:
    world = np.array(viewer.dims.point, float)
    points = []
    for corner in corners:
        world[-2:] = corner
        points.append(pixel_at(image_layer, world))
    (y, x), (y1, x1) = np.min(points, axis=0), np.max(points, axis=0)
    top, left = math.floor(y), math.floor(x)
    return Rect(top, left, max(0, math.ceil(y1) - top), max(0, math.ceil(x1) - left))
