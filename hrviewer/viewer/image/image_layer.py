"""A pyramid as a napari image layer.

Invariants: no level is ever loaded whole, except the coarsest, an array of a megapixel or two
(napari keeps that one for its thumbnail and never asks for it again, so it is filled in place);
all pixels come through the pyramid's shared tile cache.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.pyramid import Pyramid, open_pyramid
from hrviewer.viewer.image.lazy_level import Axes, CoarsestLevel, LazyLevel, transpose
from hrviewer.viewer.image.tile_loader import TileLoader

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.components import ViewerModel
    from napari.layers import Image, Layer

__all__ = [
    "METADATA_KEY",
    "fits_single_array",
    "image_layer_data",
    "is_aligned",
    "is_image_layer",
    "placement",
    "plane_of",
    "pyramid_of",
    "shape_of",
]

METADATA_KEY = "hrviewer"
"""Under this name a layer's metadata holds what hrviewer knows of it."""

MAX_SINGLE_ARRAY_VALUES = 16_000_000
"""Values; an image of no more is handed to napari as one array."""

MAX_COARSEST_PIXELS = 1_500_000
"""Pixels of the coarsest level, at most."""


def axes_of(pyramid: Pyramid) -> Axes:
    """Return how an image is handed to napari: eight-bit triples are colours."""
    if pyramid.channels == 1:
        return "yx"
    return "yxc" if pyramid.channels == 3 and pyramid.dtype == np.uint8 else "cyx"


def fits_single_array(pyramid: Pyramid) -> bool:
    """Tell whether an image is one array for napari."""
    return math.prod(pyramid.levels[0].shape) <= MAX_SINGLE_ARRAY_VALUES


def levels_of(pyramid: Pyramid, load_coarsest: bool) -> list[Any]:
    """Return what napari slices, finest first; the coarsest a real array if it is to be read."""
    axes = axes_of(pyramid)
    one = fits_single_array(pyramid)
    shapes = [] if one else pyramid.shapes
    scale = 1.0
    if not one:
        scale = max(a / b for a, b in zip(pyramid.plane_shape, shapes[-1], strict=False))
        while math.prod(pyramid.plane_shape) / scale**2 > MAX_COARSEST_PIXELS:
            scale *= 2
    fetcher = TileLoader(pyramid, scale)
    fetcher.progressive = not load_coarsest
    shown: list[Any] = [LazyLevel(fetcher, index, axes) for index in range(len(shapes))]
    coarsest: Any = CoarsestLevel(fetcher, len(shapes), axes)
    if shown and shown[-1].shape == coarsest.shape:
        shown.pop()
    if load_coarsest:
        fetcher.load_coarsest()
        fetcher.dirty = False
        coarsest = transpose(fetcher.coarsest, axes)
    return [*shown, coarsest]


def image_layer_data(
    pyramid: Pyramid, *, load_coarsest: bool = True
) -> tuple[Any, dict[str, Any], str]:
    """Return a pyramid as napari's layer tuple; the layer's metadata holds the pyramid.

    Parameters
    ----------
    pyramid : Pyramid
        The image.
    load_coarsest : bool
        Whether to read the coarsest level now, building what it needs, which may take its time;
        otherwise nothing is read, and pixels come beside the event loop once the layer is in a
        viewer that is followed (`arriving.follow`).
    """
    levels, axes = levels_of(pyramid, load_coarsest), axes_of(pyramid)
    settings: dict[str, Any] = {
        "name": pyramid.name,
        "metadata": {METADATA_KEY: {"pyramid": pyramid}},
        "multiscale": len(levels) > 1,
        "rgb": axes == "yxc",
        "contrast_limits": contrast_limits(levels[-1])
        if load_coarsest
        else dtype_limits(pyramid.dtype),
    }
    if axes != "yxc":
        settings["colormap"] = "gray"
    if pyramid.pixel_size is not None:
        channel = axes == "cyx"
        settings["scale"] = (*[1.0] * channel, *pyramid.pixel_size)
        settings["units"] = (*["pixel"] * channel, "um", "um")
    return (levels if len(levels) > 1 else levels[0]), settings, "image"


def dtype_limits(dtype: np.dtype[Any]) -> tuple[float, float]:
    """Return contrast limits for pixels that nobody has seen yet."""
    if dtype.kind == "f":
        return 0, 1
    return float(np.iinfo(dtype).min), float(np.iinfo(dtype).max)


def contrast_limits(pixels: NDArray[Any]) -> tuple[float, float]:
    """Return contrast limits from the coarsest level."""
    if pixels.dtype == np.uint8:
        return 0, 255
    finite = pixels[np.isfinite(pixels)] if pixels.dtype.kind == "f" else pixels
    if not finite.size:
        return 0, 1
    low, high = map(float, np.percentile(finite, (0.5, 99.5)))
    return (low, high) if high > low else (low, low + 1)


def plane_of(viewer: ViewerModel, layer: Image) -> tuple[int, ...]:
    """Return which plane of a layer with further axes (t, z) is on the screen.

    None of ours has any: channels are all looked at, whichever is shown.
    """
    if "pyramid" in layer.metadata.get(METADATA_KEY, {}) or layer.ndim == 2:
        return ()
    first = layer.data[0] if layer.multiscale else layer.data
    point = np.round(np.asarray(layer.world_to_data(viewer.dims.point))[:-2])
    return tuple(int(min(max(i, 0), n - 1)) for i, n in zip(point, first.shape, strict=False))


def pyramid_of(layer: Image, plane: Sequence[int] = ()) -> Pyramid:
    """Return the pyramid behind a layer, opening one on its data if it is not ours.

    Parameters
    ----------
    layer : Image
        Ours or anybody's.
    plane : sequence of int
        Which plane of further axes; the first if not given.

    Raises
    ------
    UserError
        If the layer's data cannot be looked at.
    """
    kept: Pyramid | None = layer.metadata.get(METADATA_KEY, {}).get("pyramid")
    if kept is not None:
        return kept
    first = open_pyramid(layer)
    wanted = dict(zip(first.plane, plane, strict=False))
    return first if wanted in ({}, first.plane) else open_pyramid(layer, plane=wanted)


def is_image_layer(layer: Any) -> bool:
    """Tell whether a layer is an image to look at, and no overlay of ours."""
    from napari.layers import Image

    return isinstance(layer, Image) and "overlay" not in layer.metadata.get(METADATA_KEY, {})


def shape_of(image_layer: Image) -> tuple[int, int]:
    """Return the height and width of a layer's finest level."""
    data = image_layer.data[0] if image_layer.multiscale else image_layer.data
    shape = data.shape[:-1] if image_layer.rgb else data.shape
    return int(shape[-2]), int(shape[-1])


def placement(image_layer: Image, cell: float) -> dict[str, Any]:
    """Return where a map of `cell` pixels of a layer lies, as keywords of a layer on top of it.

    The centre of the map's first cell is ``(cell - 1) / 2`` pixels from the centre of the
    layer's first pixel.
    """
    from napari.utils.transforms import Affine

    scale, shear, rotate = image_layer.scale[-2:], image_layer.shear, image_layer.rotate
    flat = image_layer.ndim == 2
    matrix = np.diag(scale)
    if flat:
        matrix = Affine(scale=scale, shear=shear, rotate=rotate).linear_matrix
    offset = matrix @ np.full(2, (cell - 1) / 2)
    place: dict[str, Any] = {
        "scale": scale * cell,
        "translate": image_layer.translate[-2:] + offset,
        "units": image_layer.units[-2:],
        "axis_labels": image_layer.axis_labels[-2:],
    }
    if flat:
        place |= {"shear": shear, "rotate": rotate, "affine": image_layer.affine}
    return place


def is_aligned(layer: Layer, image_layer: Image) -> bool:
    """Tell whether a layer with the pixels of another one lies where that one does."""
    place = placement(image_layer, 1.0)
    return all(np.array_equal(getattr(layer, key), value) for key, value in place.items())
