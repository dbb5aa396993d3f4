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
from hrviewer.viewer.image.lazy_level import Axes, Coarsest, Shown, arrange
from hrviewer.viewer.image.tile_loader import Fetcher

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.components import ViewerModel
    from napari.layers import Image, Layer

__all__ = [
    "KEY",
    "image_layer",
    "is_base",
    "lies_on",
    "placement",
    "plane_of",
    "pyramid_of",
    "shape_of",
    "small",
]

KEY = "hrviewer"
"""Under this name a layer's metadata holds what hrviewer knows of it."""

WHOLE = 16_000_000
"""Values; an image of no more is handed to napari as one array."""

COARSEST = 1_500_000
"""Pixels of the coarsest level, at most."""


def axes_of(pyramid: Pyramid) -> Axes:
    """Return how an image is handed to napari: eight-bit triples are colours."""
    if pyramid.channels == 1:
        return "yx"
    return "yxc" if pyramid.channels == 3 and pyramid.dtype == np.uint8 else "cyx"


def small(pyramid: Pyramid) -> bool:
    """Tell whether an image is one array for napari."""
    return math.prod(pyramid.levels[0].shape) <= WHOLE


def levels_of(pyramid: Pyramid, read: bool) -> list[Any]:
    """Return what napari slices, finest first; the coarsest a real array if it is to be read."""
    axes = axes_of(pyramid)
    one = small(pyramid)
    shapes = [] if one else pyramid.shapes
    scale = 1.0
    if not one:
        scale = max(a / b for a, b in zip(pyramid.shape, shapes[-1], strict=False))
        while math.prod(pyramid.shape) / scale**2 > COARSEST:
            scale *= 2
    fetcher = Fetcher(pyramid, scale)
    fetcher.patient = not read
    shown: list[Any] = [Shown(fetcher, index, axes) for index in range(len(shapes))]
    coarsest: Any = Coarsest(fetcher, len(shapes), axes)
    if shown and shown[-1].shape == coarsest.shape:
        shown.pop()
    if read:
        fetcher.fill()
        fetcher.fresh = False
        coarsest = arrange(fetcher.whole, axes)
    return [*shown, coarsest]


def image_layer(pyramid: Pyramid, *, read: bool = True) -> tuple[Any, dict[str, Any], str]:
    """Return a pyramid as napari's layer tuple; the layer's metadata holds the pyramid.

    Parameters
    ----------
    pyramid : Pyramid
        The image.
    read : bool
        Whether to read the coarsest level now, building what it needs, which may take its time;
        otherwise nothing is read, and pixels come beside the event loop once the layer is in a
        viewer that is followed (`arriving.follow`).
    """
    levels, axes = levels_of(pyramid, read), axes_of(pyramid)
    settings: dict[str, Any] = {
        "name": pyramid.name,
        "metadata": {KEY: {"pyramid": pyramid}},
        "multiscale": len(levels) > 1,
        "rgb": axes == "yxc",
        "contrast_limits": limits(levels[-1]) if read else widest(pyramid.dtype),
    }
    if axes != "yxc":
        settings["colormap"] = "gray"
    if pyramid.pixel_size is not None:
        channel = axes == "cyx"
        settings["scale"] = (*[1.0] * channel, *pyramid.pixel_size)
        settings["units"] = (*["pixel"] * channel, "um", "um")
    return (levels if len(levels) > 1 else levels[0]), settings, "image"


def widest(dtype: np.dtype[Any]) -> tuple[float, float]:
    """Return contrast limits for pixels that nobody has seen yet."""
    if dtype.kind == "f":
        return 0, 1
    return float(np.iinfo(dtype).min), float(np.iinfo(dtype).max)


def limits(pixels: NDArray[Any]) -> tuple[float, float]:
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
    if "pyramid" in layer.metadata.get(KEY, {}) or layer.ndim == 2:
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
    kept: Pyramid | None = layer.metadata.get(KEY, {}).get("pyramid")
    if kept is not None:
        return kept
    first = open_pyramid(layer)
    wanted = dict(zip(first.plane, plane, strict=False))
    return first if wanted in ({}, first.plane) else open_pyramid(layer, plane=wanted)


def is_base(layer: Any) -> bool:
    """Tell whether a layer is an image to look at, and no overlay of ours."""
    from napari.layers import Image

    return isinstance(layer, Image) and "overlay" not in layer.metadata.get(KEY, {})


def shape_of(base: Image) -> tuple[int, int]:
    """Return the height and width of a layer's finest level."""
    data = base.data[0] if base.multiscale else base.data
    shape = data.shape[:-1] if base.rgb else data.shape
    return int(shape[-2]), int(shape[-1])


def placement(base: Image, cell: float) -> dict[str, Any]:
    """Return where a map of `cell` pixels of a layer lies, as keywords of a layer on top of it.

    The centre of the map's first cell is ``(cell - 1) / 2`` pixels from the centre of the
    layer's first pixel.
    """
    from napari.utils.transforms import Affine

    scale, shear, rotate = base.scale[-2:], base.shear, base.rotate
    flat = base.ndim == 2
    matrix = np.diag(scale)
    if flat:
        matrix = Affine(scale=scale, shear=shear, rotate=rotate).linear_matrix
    offset = matrix @ np.full(2, (cell - 1) / 2)
    place: dict[str, Any] = {
        "scale": scale * cell,
        "translate": base.translate[-2:] + offset,
        "units": base.units[-2:],
        "axis_labels": base.axis_labels[-2:],
    }
    if flat:
        place |= {"shear": shear, "rotate": rotate, "affine": base.affine}
    return place


def lies_on(layer: Layer, base: Image) -> bool:
    """Tell whether a layer with the pixels of another one lies where that one does."""
    place = placement(base, 1.0)
    return all(np.array_equal(getattr(layer, key), value) for key, value in place.items())
