"""Picture of a whole image with its overlays, a few hundred pixels wide.

It is drawn from what is in memory, so it waits for nothing: from the coarsest level, and from the
maps' coarse levels. What is not loaded yet is grey; of an image whose coarse levels are being
built, the part that has come is drawn, and the rest is black, as on the canvas.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.app.maps.raster import MapName
from hrviewer.viewer.image.geometry import METADATA_KEY, shape_of
from hrviewer.viewer.image.image_layer import is_channel_of
from hrviewer.viewer.image.layer_refresh import tile_loader_of
from hrviewer.viewer.image.tile_loader import nearest_indices

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image

    from hrviewer.viewer.layers.overlays import Overlays

__all__ = ["overview_picture", "overview_size"]

Picture = NDArray[np.float32]
"""Colours ``(h, w, 3)``, 0 to 1."""

UNLOADED = 0.25
"""Grey of what is not loaded."""

ORDER: tuple[MapName, ...] = ("cost", "saliency", "patches", "output")
"""Maps from the lowest to the topmost."""


def overview_size(layer: Image, height: int, width: int) -> tuple[int, int]:
    """Return the height and width of an image's picture that fits into a box.

    Pixels of unequal sides are stretched as on the canvas.
    """
    sides = np.asarray(shape_of(layer)) * np.abs(np.asarray(layer.scale[-2:], float))
    h, w = sides * min(height / sides[0], width / sides[1])
    return max(1, round(float(h))), max(1, round(float(w)))


def overview_picture(
    viewer: ViewerModel, layer: Image, overlays: Overlays | None, size: tuple[int, int]
) -> NDArray[np.uint8]:
    """Return an image with its visible channels and maps.

    Parameters
    ----------
    viewer : ViewerModel
        Holds the layers of the image's other channels.
    layer : Image
        The layer that stands for the image.
    overlays : Overlays, optional
        Of the image.
    size : tuple of int
        Height and width of the picture.

    Returns
    -------
    ndarray of uint8, shape (h, w, 3)
    """
    pyramid = layer.metadata.get(METADATA_KEY, {}).get("pyramid")
    channels = [] if pyramid is None else [o for o in viewer.layers if is_channel_of(o, pyramid)]
    shown = [one for one in viewer.layers if one.visible and (one is layer or one in channels)]
    parts = [(one, part) for one in shown if (part := _draw(one, size)) is not None]
    picture = np.full((*size, 3), 0 if parts else UNLOADED, np.float32)
    for one, part in parts:
        picture = picture + part if one.blending == "additive" else part
    np.clip(picture, 0, 1, out=picture)
    if overlays is not None and overlays.image_layer is layer and not overlays.is_hidden:
        for name in ORDER:
            if overlays.layers[name].visible:
                _blend(picture, overlays, name, shape_of(layer))
    return np.asarray(picture * 255 + 0.5, np.uint8)


def _draw(layer: Any, size: tuple[int, int]) -> Picture | None:
    """Return one layer's colours, None if it is not in memory."""
    loader = tile_loader_of(layer)
    if loader is not None:
        comes = loader.build_fraction is not None
        source = loader.coarsest if loader.coarsest_loaded or comes else None
    else:
        data = layer.data[-1] if layer.multiscale else layer.data
        source = data if isinstance(data, np.ndarray) else None
    if source is None or source.ndim - bool(layer.rgb or loader is not None) != 2:
        return None
    rows, columns = (
        nearest_indices(0, n, n, length) for n, length in zip(size, source.shape[:2], strict=True)
    )
    pixels = source[rows[:, None], columns]
    if layer.rgb:
        full = 255 if pixels.dtype == np.uint8 else 1
        return np.asarray(pixels[..., :3] / full, np.float32)
    values = pixels if pixels.ndim == 2 else pixels[..., 0]
    return _map_colours(layer, values)[..., :3] * np.float32(layer.opacity)


def _blend(picture: Picture, overlays: Overlays, name: MapName, shape: tuple[int, int]) -> None:
    """Draw a map over a picture."""
    raster, (h, w) = overlays.maps.rasters[name], picture.shape[:2]
    level = raster.level_for(max(shape[0] / h, shape[1] / w))
    values, cell = raster.levels[level], raster.cell * 2**level
    rows, columns = (
        np.minimum((np.arange(n) + 0.5) * (length / n) // cell, last - 1).astype(np.intp)
        for n, length, last in zip((h, w), shape, values.shape, strict=True)
    )
    part = values[rows[:, None], columns]
    layer = overlays.layers[name]
    colours = _map_colours(layer, np.nan_to_num(part))
    opacity = np.where(np.isfinite(part), colours[..., 3] * layer.opacity, 0)[..., None]
    picture *= 1 - opacity
    picture += colours[..., :3] * opacity


def _map_colours(layer: Any, values: NDArray[Any]) -> NDArray[np.float32]:
    """Return the colours ``(h, w, 4)`` that a layer gives to values."""
    low, high = layer.contrast_limits
    scaled = np.clip((values.astype(np.float32) - low) / max(high - low, 1e-12), 0, 1)
    scaled = np.nan_to_num(scaled) ** np.float32(layer.gamma)
    colours = layer.colormap.map(scaled.ravel())
    return np.asarray(colours, np.float32).reshape(*values.shape, 4)
