"""A pyramid as napari image layers: one for colours, otherwise one for each channel.

The layers of channels add up to a composite, each with its own colour and contrast. The first one
stands for the image; the others go with it.

Invariants: no level is ever loaded whole, except the coarsest, an array of a megapixel or two
(napari keeps that one for its thumbnail and never asks for it again, so it is filled in place);
all pixels come through the pyramid's shared tile cache.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.pyramid import Pyramid
from hrviewer.pyramid.channels import NAMED_COLORS, ChannelInfo
from hrviewer.pyramid.stains import separate_stain, stain_color
from hrviewer.viewer.image.geometry import METADATA_KEY
from hrviewer.viewer.image.lazy_level import Axes, CoarsestLevel, LazyLevel, transpose
from hrviewer.viewer.image.tile_loader import TileLoader

__all__ = [
    "contrast_limits",
    "fits_single_array",
    "image_layer_data",
    "image_layers_data",
    "initial_limits",
    "is_channel_of",
    "stain_layer_data",
]

LayerData = tuple[Any, dict[str, Any], str]

MAX_SINGLE_ARRAY_VALUES = 16_000_000
"""Values; an image of no more is handed to napari as one array."""

MAX_COARSEST_PIXELS = 1_500_000
"""Pixels of the coarsest level, at most."""

MAX_CHANNEL_LAYERS = 32
MAX_COMPOSITE = 6
"""Channels that are displayed at once, at first."""

STAIN_LIMITS = 0.0, 170.0
"""Contrast limits of a stain: deeper ones are rare."""

CHANNEL_COLORS = ("00FFFF", "FF00FF", "FFFF00", "00FF00", "FF0000", "0000FF")
"""Colours of channels of which the file gives none."""


def axes_of(pyramid: Pyramid) -> Axes:
    """Return how an image's layer is handed to napari: colours in bytes, or one channel."""
    return "yxc" if pyramid.is_rgb and pyramid.dtype == np.uint8 else "yx"


def fits_single_array(pyramid: Pyramid) -> bool:
    """Return whether an image is one array for napari."""
    return math.prod(pyramid.levels[0].shape) <= MAX_SINGLE_ARRAY_VALUES


def coarsest_scale(pyramid: Pyramid) -> float:
    """Return the scale of an image's coarsest array."""
    scale = 1.0
    if not fits_single_array(pyramid):
        shape = pyramid.shapes[-1]
        scale = max(a / b for a, b in zip(pyramid.plane_shape, shape, strict=False))
        while math.prod(pyramid.plane_shape) / scale**2 > MAX_COARSEST_PIXELS:
            scale *= 2
    return scale


def make_loader(pyramid: Pyramid, channel: int) -> TileLoader:
    """Return the tile loader of a layer, with the scale of its coarsest array."""
    scale = coarsest_scale(pyramid)
    if axes_of(pyramid) == "yxc":
        return TileLoader(pyramid, scale, (0, 1, 2), alpha=pyramid.has_gaps)
    return TileLoader(pyramid, scale, (channel,))


def levels_of(loader: TileLoader, axes: Axes, load_coarsest: bool) -> list[Any]:
    """Return what napari slices, finest first; the coarsest a real array if it is to be read."""
    loader.progressive = not load_coarsest
    count = 0 if fits_single_array(loader.pyramid) else len(loader.shapes)
    shown: list[Any] = [LazyLevel(loader, index, axes) for index in range(count)]
    coarsest: Any = CoarsestLevel(loader, count, axes)
    if shown and shown[-1].shape == coarsest.shape:
        shown.pop()
    if load_coarsest:
        loader.load_coarsest()
        loader.dirty = False
        coarsest = transpose(loader.coarsest, axes)
    return [*shown, coarsest]


def image_layers_data(pyramid: Pyramid, *, load_coarsest: bool = True) -> list[LayerData]:
    """Return a pyramid as napari's layer tuples, that of the image itself first.

    Parameters
    ----------
    pyramid, load_coarsest
        See `image_layer_data`.
    """
    if axes_of(pyramid) == "yxc":
        return [image_layer_data(pyramid, load_coarsest=load_coarsest)]
    count = min(pyramid.channels, MAX_CHANNEL_LAYERS)
    return [image_layer_data(pyramid, i, load_coarsest=load_coarsest) for i in range(count)]


def image_layer_data(
    pyramid: Pyramid, channel: int = 0, *, load_coarsest: bool = True
) -> LayerData:
    """Return a pyramid, or one of its channels, as napari's layer tuple.

    The metadata of the layer that stands for the image hold the pyramid.

    Parameters
    ----------
    pyramid : Pyramid
        The image.
    channel : int
        Which channel, unless the image is in colours.
    load_coarsest : bool
        Whether to read the coarsest level now, building what it needs, which may take its time;
        otherwise nothing is read, and pixels come beside the event loop once the layer is in a
        viewer that is followed (`layer_refresh.auto_refresh`).
    """
    axes, loader = axes_of(pyramid), make_loader(pyramid, channel)
    levels = levels_of(loader, axes, load_coarsest)
    own: dict[str, Any] = {"pyramid": pyramid}
    if channel > 0:
        own |= {"overlay": "channel"}
    settings: dict[str, Any] = {
        "name": pyramid.name,
        "metadata": {METADATA_KEY: own},
        "multiscale": len(levels) > 1,
        "rgb": axes == "yxc",
        "contrast_limits": initial_limits(loader),
    }
    if axes == "yx":
        settings |= channel_style(pyramid, channel)
    if pyramid.pixel_size is not None:
        settings["scale"], settings["units"] = pyramid.pixel_size, ("um", "um")
    return (levels if len(levels) > 1 else levels[0]), settings, "image"


def stain_layer_data(pyramid: Pyramid, stain: str) -> LayerData:
    """Return a stain of an image in colours as napari's layer tuple; nothing is read yet."""
    from napari.utils.colormaps import Colormap

    derive = partial(separate_stain, stain=stain)
    loader = TileLoader(pyramid, coarsest_scale(pyramid), (0, 1, 2), derive)
    levels = levels_of(loader, "yx", load_coarsest=False)
    settings: dict[str, Any] = {
        "name": f"{pyramid.name}: {stain}",
        "metadata": {METADATA_KEY: {"pyramid": pyramid, "overlay": "stain", "stain": stain}},
        "multiscale": len(levels) > 1,
        "rgb": False,
        "contrast_limits": STAIN_LIMITS,
        "colormap": Colormap([[1, 1, 1], [*stain_color(stain)]], name=stain),
    }
    if pyramid.pixel_size is not None:
        settings["scale"], settings["units"] = pyramid.pixel_size, ("um", "um")
    return (levels if len(levels) > 1 else levels[0]), settings, "image"


def is_channel_of(layer: Any, pyramid: Pyramid) -> bool:
    """Return whether a layer displays another channel, or a stain, of an image."""
    own = layer.metadata.get(METADATA_KEY, {})
    return own.get("overlay") in ("channel", "stain") and own.get("pyramid") is pyramid


def channel_style(pyramid: Pyramid, channel: int) -> dict[str, Any]:
    """Return a channel layer's name, colour, blending and visibility."""
    if pyramid.channels == 1:
        return {"colormap": "gray"}
    infos = pyramid.channel_info
    title = infos[channel].name or f"channel {channel}"
    colors = [info.color for info in infos]
    names = [info.name.strip().lower() for info in infos]
    natural = NAMED_COLORS.keys() <= set(names) and all(
        color in (None, NAMED_COLORS.get(name, color))
        for name, color in zip(names, colors, strict=True)
    )
    # Many bands without colours of their own are shown one by one, in grey.
    bands = len(infos) > MAX_COMPOSITE and not natural and not any(colors)
    visible, lowest = channel < (3 if pyramid.is_rgb else MAX_COMPOSITE), 0
    if bands:
        visible = channel == 0
    elif natural:
        visible = names[channel] in NAMED_COLORS
        lowest = next(i for i, name in enumerate(names) if name in NAMED_COLORS)
    return {
        "name": f"{pyramid.name}: {title}",
        "colormap": "gray" if bands else channel_colormap(infos, channel),
        "blending": "translucent_no_depth" if channel == lowest or bands else "additive",
        "visible": visible,
    }


def channel_colormap(infos: tuple[ChannelInfo, ...], channel: int) -> Any:
    """Return the colour map from black to a channel's colour."""
    from napari.utils.colormaps import Colormap

    colors = [info.color for info in infos]
    # The same colour for all, as some programs write it, says nothing.
    given = colors[channel] if len(set(colors)) > 1 or len(colors) == 1 else None
    named = NAMED_COLORS.get(infos[channel].name.strip().lower())
    digits = given or named or CHANNEL_COLORS[channel % len(CHANNEL_COLORS)]
    end = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    return Colormap([[0, 0, 0], end], name=f"#{digits}")


def initial_limits(loader: TileLoader) -> tuple[float, float]:
    """Return contrast limits: the file's, or of the pixels if they are loaded, or of the type."""
    pyramid, dtype = loader.pyramid, loader.coarsest.dtype
    if loader.channels is not None and len(loader.channels) == 1:
        window = pyramid.channel_info[loader.channels[0]].window
        if window is not None:
            return window
    if loader.coarsest_loaded:
        return contrast_limits(loader.coarsest, loader.coarsest_mask, pyramid.channels == 1)
    if dtype.kind == "f":
        return 0, 1
    return float(np.iinfo(dtype).min), float(np.iinfo(dtype).max)


def contrast_limits(
    pixels: NDArray[Any], mask: NDArray[np.bool_] | None = None, whole_byte: bool = True
) -> tuple[float, float]:
    """Return contrast limits from the coarsest level.

    Parameters
    ----------
    pixels : ndarray
        ``(h, w)`` or ``(h, w, c)``.
    mask : ndarray of bool, shape (h, w), optional
        Where there are data; everywhere by default.
    whole_byte : bool
        Whether bytes have the limits 0 and 255, unless they are the numbers of a few bits.
    """
    known = pixels if mask is None else pixels[mask]
    finite = known[np.isfinite(known)] if known.dtype.kind == "f" else known
    if not finite.size:
        return 0, 1
    if pixels.dtype == np.uint8 and (pixels.ndim == 3 and pixels.shape[2] >= 3):
        return 0, 255
    if pixels.dtype == np.uint8 and whole_byte:
        top = int(finite.max())
        return (0, 255) if top >= 16 else (0, float(max(top, 1)))
    low, high = map(float, np.percentile(finite, (0.5, 99.5)))
    return (low, high) if high > low else (low, low + 1)
