"""Workaround for napari's sliders, which overflow where pixels of very different sizes are shown.

napari 0.9 counts the steps of an axis in the smallest pixel of all layers, also of axes that have
no visible slider. A satellite image beside a slide has more than a slider of 32 bits can count, and
the process ends with an ``OverflowError`` in a callback of Qt.
"""

from __future__ import annotations

from typing import Any

from napari.components import LayerList
from napari.components.dims import RangeTuple

__all__ = ["bound_slider_steps"]

MAX_STEPS = 10**9 - 3
"""napari's field beside a slider is bounded by the next power of ten, in 32 bits too."""

_original_ranges: Any = LayerList._ranges


def bound_slider_steps() -> None:
    """Widen the steps of axes that have too many; it holds for the process."""
    LayerList._ranges = property(_bounded_ranges)


def _bounded_ranges(layers: LayerList) -> tuple[RangeTuple, ...]:
    return tuple(
        RangeTuple(start, stop, max(step, (stop - start) / MAX_STEPS))
        for start, stop, step in _original_ranges.fget(layers)
    )
