"""Changes of the layer list that keep napari responsive."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

__all__ = ["keep_selection", "remove_layers"]


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
