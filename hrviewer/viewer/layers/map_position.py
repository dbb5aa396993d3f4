"""Position under the cursor in the coordinates of a georeferenced image's map."""

from __future__ import annotations

from typing import Any
from weakref import ref

from napari.layers import Layer

from hrviewer.viewer.image.geometry import METADATA_KEY

__all__ = ["show_map_position"]


def show_map_position(layer: Layer) -> None:
    """Add the map coordinates under the cursor to a layer's line in the status bar."""
    pyramid = layer.metadata.get(METADATA_KEY, {}).get("pyramid")
    place = getattr(pyramid, "georeference", None)
    if place is None:
        return
    owner = ref(layer)

    def get_status(position: Any = None, *, world: bool = False, **options: Any) -> dict[str, str]:
        shown = owner()
        assert shown is not None
        status: dict[str, str] = type(shown).get_status(shown, position, world=world, **options)
        if position is not None:
            y, x = (shown.world_to_data(position) if world else position)[-2:]
            # napari counts from the centres of pixels, a map from their corners.
            status["coordinates"] += f" · {place.describe(float(y) + 0.5, float(x) + 0.5)}"
        return status

    layer.get_status = get_status
