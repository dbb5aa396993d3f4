"""A pyramid as a napari image layer.

Invariants: no level is ever loaded whole, except the coarsest, which is a real array of a few
megapixels at most (napari keeps that one for its thumbnail and never reads it again); all pixels
come through the pyramid's shared tile cache. `Lazy.__getitem__` is the one place where the
window waits for a file.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from hrviewer.pyramid import Pyramid, open_pyramid

if TYPE_CHECKING:
    from napari.layers import Image

Axes = Literal["yx", "yxc", "cyx"]

__all__ = ["KEY", "Lazy", "image_layer", "is_base", "placement", "pyramid_of", "shape_of"]

KEY = "hrviewer"
"""Under this name a layer's metadata holds what hrviewer knows of it."""

WHOLE = 16_000_000
"""Values; an image of no more is handed to napari as one array."""

COARSEST = 1_500_000
"""Pixels of the coarsest level, at most."""


class Lazy:
    """A level as the array that napari slices.

    Parameters
    ----------
    level : Level
        Of a pyramid.
    axes : {"yx", "yxc", "cyx"}
        One channel, a colour image, or channels to step through.
    """

    def __init__(self, level: Any, axes: Axes) -> None:
        self._level, self._axes = level, axes
        self.shape: tuple[int, ...] = arranged(level.shape, axes)
        self.dtype = np.dtype(level.dtype)
        self.ndim = len(self.shape)
        self.size = math.prod(self.shape)
        # napari loads whole chunks around what is visible: pans inside them cost nothing.
        side = max(256, min(1024, *level.tile))
        self.chunks: tuple[int, ...] = arranged((side, side, level.shape[2]), axes)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        key = key if isinstance(key, tuple) else (key,)
        if Ellipsis in key:
            at = key.index(Ellipsis)
            gap = self.ndim - len(key) + 1
            key = (*key[:at], *[slice(None)] * gap, *key[at + 1 :])
        key = (*key, *[slice(None)] * (self.ndim - len(key)))
        first = self._axes.index("y")
        (y0, y1), (x0, x1) = (span(key[i], self.shape[i]) for i in (first, first + 1))
        pixels = arrange(self._level.read(y0, y1, x0, x1), self._axes)
        rest = [*key]
        for i in (first, first + 1):
            rest[i] = slice(None, None, key[i].step) if isinstance(key[i], slice) else 0
        return np.asarray(pixels[tuple(rest)])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[...], dtype)


def arranged(shape: tuple[int, int, int], axes: Axes) -> tuple[int, ...]:
    """Return ``(h, w, c)`` in the order of `axes`."""
    sizes = dict(zip("yxc", shape, strict=True))
    return tuple(sizes[axis] for axis in axes)


def arrange(pixels: NDArray[Any], axes: Axes) -> NDArray[Any]:
    """Return pixels ``(h, w, c)`` in the order of `axes`."""
    if axes == "yx":
        return pixels[..., 0]
    return np.moveaxis(pixels, -1, 0) if axes == "cyx" else pixels


def span(key: Any, length: int) -> tuple[int, int]:
    """Return the rows or columns that an index needs."""
    if isinstance(key, slice):
        start, stop, step = key.indices(length)
        if step < 0:
            raise IndexError("levels are not read backwards")
        return start, max(start, stop)
    index = int(key) % length
    return index, index + 1


def axes_of(pyramid: Pyramid) -> Axes:
    """Return how an image is handed to napari: eight-bit triples are colours."""
    if pyramid.channels == 1:
        return "yx"
    return "yxc" if pyramid.channels == 3 and pyramid.dtype == np.uint8 else "cyx"


def levels_of(pyramid: Pyramid) -> list[Any]:
    """Return what napari slices, finest first."""
    axes = axes_of(pyramid)
    if math.prod(pyramid.levels[0].shape) <= WHOLE:
        return [arrange(pyramid.read(pyramid.rect), axes)]
    lazy: list[Any] = [Lazy(level, axes) for level in pyramid.levels]
    scale = max(pyramid.levels[-1].downsample)
    while math.prod(pyramid.shape) / scale**2 > COARSEST:
        scale *= 2
    coarsest = arrange(pyramid.read(pyramid.rect, scale), axes)
    if coarsest.shape == lazy[-1].shape:
        lazy.pop()
    return [*lazy, coarsest]


def image_layer(pyramid: Pyramid) -> tuple[Any, dict[str, Any], str]:
    """Return a pyramid as napari's layer tuple; the layer's metadata holds the pyramid."""
    levels, axes = levels_of(pyramid), axes_of(pyramid)
    settings: dict[str, Any] = {
        "name": pyramid.name,
        "metadata": {KEY: {"pyramid": pyramid}},
        "multiscale": len(levels) > 1,
        "rgb": axes == "yxc",
        "contrast_limits": limits(levels[-1]),
    }
    if axes != "yxc":
        settings["colormap"] = "gray"
    if pyramid.pixel_size is not None:
        channel = axes == "cyx"
        settings["scale"] = (*[1.0] * channel, *pyramid.pixel_size)
        settings["units"] = (*["pixel"] * channel, "um", "um")
    return (levels if len(levels) > 1 else levels[0]), settings, "image"


def limits(pixels: NDArray[Any]) -> tuple[float, float]:
    """Return contrast limits from the coarsest level."""
    if pixels.dtype == np.uint8:
        return 0, 255
    finite = pixels[np.isfinite(pixels)] if pixels.dtype.kind == "f" else pixels
    if not finite.size:
        return 0, 1
    low, high = map(float, np.percentile(finite, (0.5, 99.5)))
    return (low, high) if high > low else (low, low + 1)


def pyramid_of(layer: Image) -> Pyramid:
    """Return the pyramid behind a layer, opening one on its data if it is not ours.

    Raises
    ------
    UserError
        If the layer's data cannot be looked at.
    """
    kept: Pyramid | None = layer.metadata.get(KEY, {}).get("pyramid")
    if kept is None:
        kept = open_pyramid(layer)
    return kept


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
