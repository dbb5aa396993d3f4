"""Preprocessing: from a rectangle of the image to the pixels that a network takes."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from hrviewer.geometry import Rect
from hrviewer.models import ModelCard
from hrviewer.pyramid import Pyramid
from hrviewer.pyramid.read_cost import ReadMeter

__all__ = ["read_input"]


def read_input(
    pyramid: Pyramid, card: ModelCard, rect: Rect, scale: float, meter: ReadMeter | None = None
) -> NDArray[Any]:
    """Return the pixels of an input, not yet prepared by the card.

    Beyond the image's border they have the card's letterbox value, if it has one; otherwise the
    image is reflected.

    Parameters
    ----------
    pyramid : Pyramid
        The image.
    card : ModelCard
        The card of the network.
    rect : Rect
        The rectangle to read; see `hrviewer.strategies.input_rect`.
    scale : float
        Level-0 pixels per network pixel.
    meter : ReadMeter, optional
        Adds up what the tiles cost.

    Returns
    -------
    ndarray, shape (h, w, c)
        In the image's dtype; of the tile's size, for a network of fixed size.
    """
    fill = None if rect in pyramid.rect else card.input.border_fill(pyramid.dtype)
    pixels: NDArray[Any] = pyramid.read(rect, scale, fill=fill, meter=meter)
    return pixels[: card.input.tile, : card.input.tile] if card.input.fixed else pixels
