"""Position under the cursor, in micrometres or on the map, and the magnification."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any
from weakref import ref

from hrviewer.pyramid import Pyramid
from hrviewer.viewer.image.geometry import METADATA_KEY, screen_pixel

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

__all__ = ["describe_position", "show_position"]

SCREEN_PIXEL = 10.0
"""Micrometres that a screen pixel shows at a magnification of 1: 0.25 µm are 40×."""

MIN_MAGNIFICATION = 0.001
"""Smaller ones mean nothing to a microscopist."""


def show_position(viewer: ViewerModel, layer: Layer) -> None:
    """Add the position on the image, and the magnification, to a layer's line in the status bar."""
    pyramid = layer.metadata.get(METADATA_KEY, {}).get("pyramid")
    if pyramid is None:
        return
    owner, window = ref(layer), ref(viewer)

    def get_status(position: Any = None, *, world: bool = False, **options: Any) -> dict[str, str]:
        shown, model = owner(), window()
        assert shown is not None
        status: dict[str, str] = type(shown).get_status(shown, position, world=world, **options)
        if position is not None and model is not None:
            y, x = (shown.world_to_data(position) if world else position)[-2:]
            # napari counts from the centres of pixels, a map from their corners.
            place = float(y) + 0.5, float(x) + 0.5
            facts = describe_position(pyramid, *place, screen_pixel(model, shown))
            status["coordinates"] += "".join(f" · {fact}" for fact in facts)
        return status

    layer.get_status = get_status


def describe_position(
    pyramid: Pyramid, y: float, x: float, pixel: tuple[float, float]
) -> list[str]:
    """Return a position as texts: on the map, or in micrometres with the magnification.

    Parameters
    ----------
    pyramid : Pyramid
        The image.
    y, x : float
        Level-0 pixels, from the corner of the image.
    pixel : tuple of float
        Level-0 pixels per screen pixel, ``(y, x)``.
    """
    if pyramid.georeference is not None:
        return [pyramid.georeference.describe(y, x)]
    size = pyramid.pixel_size
    if size is None:
        return [f"pixel {math.floor(y)}, {math.floor(x)}"]
    side = math.sqrt(size[0] * pixel[0] * size[1] * pixel[1])
    place = f"y {y * size[0]:,.1f} µm, x {x * size[1]:,.1f} µm"
    magnification = SCREEN_PIXEL / side
    return [place, f"{magnification:.3g}×"] if magnification >= MIN_MAGNIFICATION else [place]
