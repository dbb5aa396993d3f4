"""Facts about loaded networks that policies and the engine use: scale, stride, halo, FLOPs."""

from __future__ import annotations

import math

from hrviewer.errors import ModelError
from hrviewer.geometry import snap_scale
from hrviewer.models import ModelCard, Network
from hrviewer.pyramid import Pyramid
from hrviewer.strategies import ModelInfo
from hrviewer.units import format_length

__all__ = ["channel_note", "model_info", "native_scale"]

MAX_ENLARGEMENT = 8
"""An image whose pixels are larger by more is of another kind than the training data."""

PIXEL_SIZE_TOLERANCE = 0.10
"""Pixel sizes that differ by less are treated as equal."""


def model_info(network: Network) -> ModelInfo:
    """Return the description of a network that a policy gets."""
    return ModelInfo(
        network.card,
        network.stride,
        network.halo,
        network.flops,
        network.period,
        bytes_per_pixel=lambda: network.bytes_per_pixel,
        token_flops=network.token_flops if network.accepts_tokens else None,
        has_attribution=network.has_attribution,
    )


def channel_note(card: ModelCard, pyramid: Pyramid) -> str:
    """Return which channels of an image a model for colour takes; empty for a colour image.

    Raises
    ------
    ModelError
        If the image has another number of channels than the model takes, or more than three of
        which none is known to be red.
    """
    card.check_channels(pyramid.channels)
    count, required = pyramid.channels, card.input.channels
    if isinstance(required, int) or count == 1 or (count == 3 and pyramid.is_rgb):
        return ""
    names = [info.name for info in pyramid.channel_info]
    if count > 3 and not pyramid.is_rgb and (count > 4 or any(names)):
        listed = ", ".join(name or str(index) for index, name in enumerate(names))
        raise ModelError(
            f"{card.name!r} is for {'grey' if required == 'gray' else 'colour'} and {pyramid.name} "
            f"has {count} channels ({listed}): select "
            f"{'one' if required == 'gray' else 'red, green and blue'} with --channels"
        )
    taken = [name or f"channel {index}" for index, name in enumerate(names)][
        : 1 if count < 3 else 3
    ]
    usage = "red, green and blue" if len(taken) == 3 else "grey"
    return f"{card.name!r} takes {', '.join(taken)} of {count} channels as {usage}"


def native_scale(card: ModelCard, pyramid: Pyramid) -> tuple[float, str]:
    """Return the scale at which pixels have the size the model was trained on, and a note.

    The note is for the user; it is empty where nothing is assumed or resampled.
    """
    wanted, actual = card.input.pixel_size, pyramid.pixel_size
    if wanted is None:
        return 1.0, ""
    if actual is None:
        return 1.0, (
            f"the image's pixel size is unknown and {card.name!r} expects {wanted:g} µm: "
            "full resolution is used"
        )
    scale = wanted / math.sqrt(actual[0] * actual[1])
    if abs(scale - 1) <= PIXEL_SIZE_TOLERANCE:
        return 1.0, ""
    sizes = (
        f"the image has {format_length(actual[0])} pixels and {card.name!r} expects "
        f"{format_length(wanted)}"
    )
    if scale < 1 / MAX_ENLARGEMENT:
        return 1.0, f"{sizes}, which no enlargement makes good: full resolution is used"
    snapped = snap_scale(scale)
    return snapped, f"{sizes}: patches are resampled by {snapped:g}"
