"""Workaround for napari where images with pixels of very different or unknown sizes are shown.

napari 0.9 counts the steps of an axis in the smallest pixel of all layers, also of axes that have
no visible slider. A satellite image beside a slide has more than a slider of 32 bits can count, and
the process ends with an ``OverflowError`` in a callback of Qt. And it warns at every layer that is
added while one in micrometres and one in pixels are there, as a photograph beside a slide is.
"""

from __future__ import annotations

import logging
from typing import Any

from napari import __version__
from napari.components import LayerList
from napari.utils.notifications import show_warning

__all__ = ["allow_mixed_pixel_sizes"]

log = logging.getLogger(__name__)

MAX_STEPS = 10**9 - 3
"""napari's field beside a slider is bounded by the next power of ten, in 32 bits too."""

_original_ranges: Any = getattr(LayerList, "_ranges", None)  # private: versions may lack it


def allow_mixed_pixel_sizes() -> None:
    """Widen the steps of axes that have too many, and do not warn; it holds for the process."""
    if isinstance(_original_ranges, property):
        LayerList._ranges = property(_bounded_ranges)
    else:
        log.warning("napari %s: images of very different pixel sizes may end it", __version__)
    try:
        from napari._vispy import canvas
    except ImportError:  # another version of napari, or one without a canvas
        return
    if hasattr(canvas, "show_warning"):
        canvas.show_warning = _warn


def _bounded_ranges(layers: LayerList) -> tuple[Any, ...]:
    return tuple(
        each._replace(step=max(each.step, (each.stop - each.start) / MAX_STEPS))
        for each in _original_ranges.fget(layers)
    )


def _warn(message: str) -> None:
    if not message.startswith("Inconsistent units"):
        show_warning(message)
