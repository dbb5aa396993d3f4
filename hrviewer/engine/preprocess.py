"""Preprocessing: from a rectangle of the image to the pixels that a network takes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.geometry import Rect
from hrviewer.models import ModelCard
from hrviewer.pyramid import Pyramid
from hrviewer.pyramid.area_read import Coverage
from hrviewer.pyramid.read_cost import ReadMeter
from hrviewer.pyramid.resample import Fill

__all__ = ["prepare_input", "read_input", "value_range"]


def value_range(card: ModelCard, pyramid: Pyramid) -> tuple[float, float]:
    """Return the pixel values that a network gets as 0 and 255.

    They are the user's, else those of the model's card, else the image's.
    """
    return pyramid.given_range or card.input.value_range or pyramid.value_range.ends


def prepare_input(
    pyramid: Pyramid,
    card: ModelCard,
    pixels: NDArray[Any],
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Return an image's pixels as the network's input; see `ModelCard.prepare`."""
    return card.prepare(pixels, out, value_range(card, pyramid))


def _border_fill(pyramid: Pyramid, card: ModelCard) -> Fill:
    return card.input.border_fill(pyramid.dtype, value_range(card, pyramid))


def read_input(
    pyramid: Pyramid, card: ModelCard, rect: Rect, scale: float, meter: ReadMeter | None = None
) -> tuple[NDArray[Any], Coverage | None]:
    """Return the pixels of an input, not yet prepared by the card, and where they have data.

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
    pixels : ndarray, shape (h, w, c)
        In the image's dtype; of the tile's size, for a network of fixed size.
    coverage : ndarray, shape (h, w), or None
        The part of each pixel that has data; None if that is all of all.
    """
    fill = None if rect in pyramid.rect else _border_fill(pyramid, card)
    pixels, coverage = pyramid.read_with_coverage(rect, scale, fill=fill, meter=meter)
    if card.input.fixed:
        pixels = pixels[: card.input.tile, : card.input.tile]
        coverage = None if coverage is None else coverage[: card.input.tile, : card.input.tile]
    return pixels, coverage
