"""A pyramid as a napari image layer.

Invariants: no level is ever loaded whole, except the coarsest, an array of a megapixel or two
(napari keeps that one for its thumbnail and never asks for it again, so it is filled in place);
all pixels come through the pyramid's shared tile cache.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.pyramid import Pyramid
from hrviewer.viewer.image.geometry import METADATA_KEY
from hrviewer.viewer.image.lazy_level import Axes, CoarsestLevel, LazyLevel, transpose
from hrviewer.viewer.image.tile_loader import TileLoader

__all__ = ["fits_single_array", "image_layer_data"]

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
    """Return whether an image is one array for napari."""
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
    loader = TileLoader(pyramid, scale)
    loader.progressive = not load_coarsest
    shown: list[Any] = [LazyLevel(loader, index, axes) for index in range(len(shapes))]
    coarsest: Any = CoarsestLevel(loader, len(shapes), axes)
    if shown and shown[-1].shape == coarsest.shape:
        shown.pop()
    if load_coarsest:
        loader.load_coarsest()
        loader.dirty = False
        coarsest = transpose(loader.coarsest, axes)
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
        viewer that is followed (`layer_refresh.auto_refresh`).
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
    """Return contrast limits for pixels that are not loaded yet."""
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
