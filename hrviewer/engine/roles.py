"""Pixels of the size that a network learned from."""

from __future__ import annotations

import math

from hrviewer.geometry import snap_scale
from hrviewer.models import ModelCard
from hrviewer.pyramid import Pyramid

__all__ = ["native_scale"]

PIXEL_SIZE_TOLERANCE = 0.10
"""Pixel sizes that differ by less are taken as equal."""


def native_scale(card: ModelCard, pyramid: Pyramid) -> tuple[float, str]:
    """Return the scale at which the network sees pixels of its own size, and what to say of it."""
    wanted, have = card.input.pixel_size, pyramid.pixel_size
    if wanted is None:
        return 1.0, ""
    if have is None:
        return 1.0, (
            f"the image's pixel size is unknown and {card.name!r} expects {wanted:g} µm: "
            "full resolution is taken for it"
        )
    scale = wanted / math.sqrt(have[0] * have[1])
    if abs(scale - 1) <= PIXEL_SIZE_TOLERANCE:
        return 1.0, ""
    snapped = snap_scale(scale)
    return snapped, (
        f"the image has {have[0]:.3g} µm pixels and {card.name!r} expects {wanted:g} µm: "
        f"looks are resampled by {snapped:g}"
    )
