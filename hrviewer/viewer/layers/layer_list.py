"""Changes of the layer list that keep napari responsive."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

__all__ = ["NO_LINES", "as_vectors", "keep_selection", "remove_layers", "set_layer_visible"]

NO_LINES = np.zeros((1, 2, 2))
"""Data of a layer of vectors without any: napari 0.9 fails to draw an empty one in 3-D."""


def as_vectors(lines: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return lines as data of a layer of vectors, which may not be empty."""
    return lines if len(lines) else NO_LINES


def remove_layers(viewer: ViewerModel, layers: Iterable[Layer]) -> None:
    """Remove layers that still exist; together, for napari collects garbage after each."""
    there = [layer for layer in layers if layer in viewer.layers]
    if there:
        with viewer.layers.batched_update():
            for layer in there:
                viewer.layers.remove(layer)


@contextmanager
def keep_selection(viewer: ViewerModel) -> Iterator[None]:
    """Keep the active layer."""
    active = viewer.layers.selection.active
    yield
    if active is not None and active in viewer.layers:
        viewer.layers.selection.active = active


def set_layer_visible(layer: Layer, visible: bool) -> None:
    """Show or hide a layer; napari redraws all layers even where that changes nothing."""
    if layer.visible != visible:
        layer.visible = visible
