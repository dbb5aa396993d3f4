"""Geometry of image layers: from the screen and from drawn shapes to pixels, and back to layers.

Pixels of the image are level-0 pixels counted from their corners; a napari layer counts from their
centres.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.app.image_session import Viewport
from hrviewer.errors import ParameterError
from hrviewer.geometry import Rect
from hrviewer.pyramid import Pyramid, open_pyramid
from hrviewer.regions import Region

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer, Shapes

__all__ = [
    "METADATA_KEY",
    "drawn_regions",
    "drawn_shapes",
    "is_aligned",
    "is_image_layer",
    "isotropic_placement",
    "pixel_at",
    "placement",
    "plane_of",
    "pyramid_of",
    "screen_pixel",
    "shape_of",
    "viewport_of",
    "visible_rect",
]

METADATA_KEY = "hrviewer"
"""Key of a layer's metadata under which hrviewer keeps its own."""


def viewport_of(viewer: ViewerModel, image_layer: Image) -> Viewport:
    """Return the visible part of an image, and the size of a screen pixel on it."""
    image = Rect(0, 0, *shape_of(image_layer))
    return Viewport(visible_rect(viewer, image_layer, image), screen_pixel(viewer, image_layer))


def visible_rect(viewer: ViewerModel, image_layer: Image, image: Rect) -> Rect:
    """Return the part of the image that is on the screen; empty if none is."""
    centre = np.asarray(viewer.scene.camera.center[-2:])
    half = np.asarray(viewer.canvas.size) / viewer.scene.camera.zoom / 2
    corners = [centre + half * sign for sign in product((-1, 1), repeat=2)]
    return _bounds(viewer, image_layer, corners) & image


def screen_pixel(viewer: ViewerModel, image_layer: Image) -> tuple[float, float]:
    """Return how many pixels of the image a screen pixel spans along y and along x.

    They differ where pixels have unequal sides.
    """
    origin = np.asarray(image_layer.data_to_world(np.zeros(image_layer.ndim)))
    steps = np.eye(image_layer.ndim)[-2:]
    sides = [np.linalg.norm(np.asarray(image_layer.data_to_world(s)) - origin) for s in steps]
    y, x = (float(1 / viewer.scene.camera.zoom / max(side, 1e-12)) for side in sides)
    return y, x


def drawn_regions(image_layer: Image, shapes: Shapes, image: Rect) -> list[Region]:
    """Return the shapes that have an area on the image as regions; see `drawn_shapes`."""
    return [region for _, region in drawn_shapes(image_layer, shapes, image)]


def drawn_shapes(image_layer: Image, shapes: Shapes, image: Rect) -> list[tuple[int, Region]]:
    """Return the shapes that have an area on the image, with their index in the layer.

    Names and classes are those of the layer's features. Lines and paths have no area, and are left
    out.
    """
    features = shapes.features
    to_pixels = _pixel_map(image_layer, shapes)
    regions = []
    for index, (kind, vertices) in enumerate(zip(shapes.shape_type, shapes.data, strict=True)):
        if kind in ("line", "path"):
            continue
        corners = ellipse_corners(vertices) if kind == "ellipse" else vertices
        ring = to_pixels[0] + np.asarray(corners, np.float64) @ to_pixels[1]
        name, label = (_feature(features, key, index) for key in ("name", "class"))
        with suppress(ParameterError):  # a click without a drag
            region = Region.from_polygons([[ring]], name, label)
            if region.clip(image) is not None:
                regions.append((index, region))
    return regions


def _pixel_map(image_layer: Image, layer: Layer) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the affine map from a layer's data to pixels ``(y, x)``: offset and rows of steps.

    napari maps one position at a time, which takes long for many outlines.
    """
    steps = np.vstack([np.zeros(layer.ndim), np.eye(layer.ndim)])
    pixels = np.array([pixel_at(image_layer, layer.data_to_world(step)) for step in steps])
    return pixels[0], pixels[1:] - pixels[0]


def _feature(features: Any, key: str, index: int) -> str:
    """Return a shape's name or class, as typed by the user."""
    given = str(features[key].iloc[index]).strip() if key in features else ""
    return given if given and given != "nan" else "region"


def ellipse_corners(box: NDArray[Any]) -> NDArray[np.float64]:
    """Return an ellipse's outline, ``(n, d)``, from the corners of the box around it."""
    first, second, opposite, last = np.asarray(box, np.float64)
    angle = np.linspace(0, 2 * np.pi, 128, endpoint=False)[:, None]
    across, down = (second - first) / 2, (last - first) / 2
    outline: NDArray[np.float64] = (
        (first + opposite) / 2 + np.cos(angle) * across + np.sin(angle) * down
    )
    return outline


def pixel_at(image_layer: Image, position: Any) -> tuple[float, float]:
    """Return the pixel at a world position, ``(y, x)``, counted from corners."""
    y, x = np.asarray(image_layer.world_to_data(position))[-2:]
    return float(y) + 0.5, float(x) + 0.5


def plane_of(viewer: ViewerModel, layer: Image) -> tuple[int, ...]:
    """Return the displayed plane of a layer with further axes (t, z).

    Layers of hrviewer have none: inference uses all channels, whichever is displayed.
    """
    if "pyramid" in layer.metadata.get(METADATA_KEY, {}) or layer.ndim == 2:
        return ()
    first = layer.data[0] if layer.multiscale else layer.data
    point = np.round(np.asarray(layer.world_to_data(viewer.dims.point))[:-2])
    return tuple(int(min(max(i, 0), n - 1)) for i, n in zip(point, first.shape, strict=False))


def pyramid_of(layer: Image, plane: Sequence[int] = ()) -> Pyramid:
    """Return the pyramid of a layer; one is opened on its data if hrviewer did not open it.

    Parameters
    ----------
    layer : Image
        Any image layer.
    plane : sequence of int
        Which plane of further axes; the first if not given.

    Raises
    ------
    HrviewerError
        If the layer's data cannot be read.
    """
    kept: Pyramid | None = layer.metadata.get(METADATA_KEY, {}).get("pyramid")
    if kept is not None:
        return kept
    first = open_pyramid(layer)
    wanted = dict(zip(first.plane, plane, strict=False))
    return first if wanted in ({}, first.plane) else open_pyramid(layer, plane=wanted)


def is_image_layer(layer: Any) -> bool:
    """Return whether a layer is an image, and no overlay of hrviewer."""
    from napari.layers import Image

    return isinstance(layer, Image) and "overlay" not in layer.metadata.get(METADATA_KEY, {})


def shape_of(image_layer: Image) -> tuple[int, int]:
    """Return the height and width of a layer's finest level."""
    data = image_layer.data[0] if image_layer.multiscale else image_layer.data
    shape = data.shape[:-1] if image_layer.rgb else data.shape
    return int(shape[-2]), int(shape[-1])


def placement(
    image_layer: Image,
    cell: float | tuple[float, float],
    origin: tuple[float, float] = (0.0, 0.0),
) -> dict[str, Any]:
    """Return the placement of a map of `cell` pixels, as keywords of a layer on top of an image.

    The centre of the map's first cell is ``origin + (cell - 1) / 2`` pixels from the centre of the
    layer's first pixel.
    """
    from napari.utils.transforms import Affine

    scale, shear, rotate = image_layer.scale[-2:], image_layer.shear, image_layer.rotate
    flat = image_layer.ndim == 2
    matrix = np.diag(scale)
    if flat:
        matrix = Affine(scale=scale, shear=shear, rotate=rotate).linear_matrix
    cells = np.broadcast_to(np.asarray(cell, float), 2)
    offset = matrix @ (np.asarray(origin, float) + (cells - 1) / 2)
    place: dict[str, Any] = {
        "scale": scale * cells,
        "translate": image_layer.translate[-2:] + offset,
        "units": image_layer.units[-2:],
        "axis_labels": image_layer.axis_labels[-2:],
    }
    if flat:
        place |= {"shear": shear, "rotate": rotate, "affine": image_layer.affine}
    return place


def isotropic_placement(image_layer: Image) -> tuple[dict[str, Any], NDArray[np.float64]]:
    """Return where a layer lies whose units have equal sides, and its units per pixel ``(y, x)``.

    Lines have one width on such a layer, also where pixels have unequal sides. Coordinates of
    pixels are multiplied by the units per pixel.
    """
    place = placement(image_layer, 1.0)
    scale = np.asarray(place["scale"], float)
    unit = float(np.sqrt(np.abs(scale).prod()))
    return place | {"scale": (unit, unit)}, scale / unit


def is_aligned(layer: Layer, image_layer: Image) -> bool:
    """Return whether a layer that was placed by `isotropic_placement` is still on its image."""
    place, _ = isotropic_placement(image_layer)
    return all(np.array_equal(getattr(layer, key), value) for key, value in place.items())


def _bounds(viewer: ViewerModel, image_layer: Image, corners: list[NDArray[np.floating]]) -> Rect:
    world = np.array(viewer.dims.point, float)
    points = []
    for corner in corners:
        world[-2:] = corner
        points.append(pixel_at(image_layer, world))
    (y, x), (y1, x1) = np.min(points, axis=0), np.max(points, axis=0)
    top, left = math.floor(y), math.floor(x)
    return Rect(top, left, max(0, math.ceil(y1) - top), max(0, math.ceil(x1) - left))
