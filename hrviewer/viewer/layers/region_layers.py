"""Layers of regions and of the tissue: what is drawn is measured, what is found is drawn."""

from __future__ import annotations

import re
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from napari.layers import Labels, Layer, Shapes

from hrviewer.app.image_session import ImageSession
from hrviewer.app.services.region_service import RegionService
from hrviewer.app.state import AppState
from hrviewer.regions import Region
from hrviewer.runs.tissue import TissueMask
from hrviewer.viewer.image.geometry import (
    METADATA_KEY,
    drawn_shapes,
    isotropic_placement,
    placement,
)
from hrviewer.viewer.layers.image_tracker import layer_of
from hrviewer.viewer.layers.layer_list import keep_selection, remove_layers
from hrviewer.viewer.layers.roi import ensure_drawing_layer, is_region_layer, region_layer

if TYPE_CHECKING:
    from napari.components import ViewerModel

__all__ = ["RegionLayers"]

HOT_SPOT = "hot spot"
"""Class of hot spots."""

TISSUE_COLOUR = "#56b4e9"
TISSUE_OPACITY = 0.35

REGION_IN_VIEW = 0.5
"""Part of the view that a region takes when it is selected in the table."""


class RegionLayers:
    """The layer of regions, and an editable mask of the tissue.

    Parameters
    ----------
    viewer : ViewerModel
        The viewer.
    state : AppState
        Has the image.
    service : RegionService
        Measures.

    Attributes
    ----------
    tissue : Labels or None
        The mask, which napari's brush and eraser edit.
    """

    def __init__(self, viewer: ViewerModel, state: AppState, service: RegionService) -> None:
        self._viewer, self._state, self._service = viewer, state, service
        self.tissue: Labels | None = None
        self._painted = False
        service.spots_found.connect(self._add_spots)
        service.regions_read.connect(self._add)
        service.tissue_found.connect(self._show_tissue)
        service.tissue_changed.connect(self._on_tissue)
        viewer.layers.events.inserted.connect(self._on_inserted)
        viewer.layers.events.removed.connect(self._on_removed)
        viewer.layers.selection.events.active.connect(service.mark_changed)

    def close(self) -> None:
        """Follow the layer list no more."""
        events = self._viewer.layers.events
        events.inserted.disconnect(self._on_inserted)
        events.removed.disconnect(self._on_removed)
        self._viewer.layers.selection.events.active.disconnect(self._service.mark_changed)

    def show_region(self, row: int) -> None:
        """Select a region of the table on its layer, and move the view to it."""
        shapes, index = self._shape(row)
        image_layer = layer_of(self._state.image)
        if shapes is None or image_layer is None:
            return
        shapes.visible = True
        self._viewer.layers.selection.active = shapes
        shapes.mode = "select"
        shapes.selected_data = {index}
        region = self._service.rows[row].region
        box = region.bounds
        corners = np.array([(box.y, box.x), (box.y1, box.x1)], float) - 0.5
        leading = (0.0,) * (image_layer.ndim - 2)
        world = np.array([image_layer.data_to_world((*leading, *c))[-2:] for c in corners])
        camera, size = self._viewer.scene.camera, np.asarray(self._viewer.canvas.size, float)
        camera.center = (*camera.center[:-2], *world.mean(axis=0))
        side = np.maximum(np.abs(world[1] - world[0]), 1e-9)
        fits = float((REGION_IN_VIEW * size / side).min())
        if camera.zoom > fits or camera.zoom < fits / 4:
            camera.zoom = fits

    def rename(self, row: int, name: str, column: str = "name") -> None:
        """Name a region of the table, or its class."""
        shapes, index = self._shape(row)
        if shapes is not None:
            table = shapes.features.copy()
            if column not in table:
                table[column] = "region"
            table[column] = table[column].astype(object)
            table.loc[index, column] = name
            shapes.features = table
            self._service.mark_changed()

    def remove(self, rows: list[int]) -> None:
        """Remove regions of the table."""
        found = [self._shape(row) for row in rows]
        shapes = next((shapes for shapes, _ in found if shapes is not None), None)
        if shapes is not None:
            shapes.selected_data = {index for _, index in found}
            shapes.remove_selected()

    def _shape(self, row: int) -> tuple[Shapes | None, int]:
        """Return the layer and the index of the shape of a row."""
        shapes, image_layer = region_layer(self._viewer), layer_of(self._state.image)
        if shapes is None or image_layer is None or self._state.image is None:
            return None, -1
        drawn = drawn_shapes(image_layer, shapes, self._state.image.source.rect)
        return (shapes, drawn[row][0]) if row < len(drawn) else (None, -1)

    def _add_spots(self, image: ImageSession, regions: list[Region]) -> None:
        """Draw hot spots, in place of earlier ones."""
        image_layer = layer_of(image)
        if image_layer is None:
            return
        shapes = ensure_drawing_layer(self._viewer, image_layer)
        if "class" in shapes.features:
            shapes.selected_data = {
                int(i) for i in np.flatnonzero(shapes.features["class"] == HOT_SPOT)
            }
            shapes.remove_selected()
        self._add(image, regions)

    def _add(self, image: ImageSession, regions: list[Region]) -> None:
        """Draw regions: their outer outlines, for shapes of a layer have no holes."""
        image_layer = layer_of(image)
        if image_layer is None:
            return
        with keep_selection(self._viewer):
            shapes = ensure_drawing_layer(self._viewer, image_layer)
            _, units = isotropic_placement(image_layer)
            before = shapes.features.copy()
            outlines, rows = [], []
            for region in regions:
                for outline in region.outlines():
                    outlines.append((outline - 0.5) * units)
                    rows.append({"name": region.name, "class": region.label})
            if outlines:
                shapes.add(outlines, shape_type="polygon")
            added = pd.DataFrame(rows, columns=["name", "class"], dtype=object)
            shapes.features = pd.concat([before, added], ignore_index=True)
            shapes.selected_data = set()

    def _show_tissue(self, image: ImageSession, found: TissueMask) -> None:
        self._remove_tissue()
        image_layer = layer_of(image)
        if image_layer is None:
            return
        self.tissue = Labels(
            found.cells.astype(np.uint8),
            name="tissue",
            opacity=TISSUE_OPACITY,
            colormap={0: "transparent", 1: TISSUE_COLOUR, None: TISSUE_COLOUR},
            metadata={METADATA_KEY: {"overlay": "tissue", "side": found.side}},
            **placement(image_layer, found.side),
        )
        self.tissue.brush_size = 8
        for changed in (self.tissue.events.paint, self.tissue.events.labels_update):
            changed.connect(self._on_paint)
        with keep_selection(self._viewer):
            self._viewer.add_layer(self.tissue)

    def _on_paint(self, event: Any) -> None:
        self._painted = True  # napari announces it before the cells change

    def tick(self) -> None:
        """Take over what was painted."""
        if self._painted and self.tissue is not None:
            self._painted = False
            side = self.tissue.metadata[METADATA_KEY]["side"]
            self._service.edit_tissue(np.asarray(self.tissue.data) > 0, side)

    def _on_tissue(self) -> None:
        if self._state.settings.tissue == "off":
            self._remove_tissue()

    def _remove_tissue(self) -> None:
        layer, self.tissue = self.tissue, None
        if layer is not None:
            layer.events.paint.disconnect(self._on_paint)
            layer.events.labels_update.disconnect(self._on_paint)
            remove_layers(self._viewer, [layer])

    def _on_inserted(self, event: Any) -> None:
        if isinstance(event.value, Shapes):
            event.value.events.data.connect(self._on_data)
            event.value.events.features.connect(self._service.mark_changed)
        self._service.mark_changed()

    def _on_data(self, event: Any) -> None:
        if is_region_layer(event.source):
            number_names(event.source)
        self._service.mark_changed()

    def _on_removed(self, event: Any) -> None:
        layer: Layer = event.value
        if isinstance(layer, Shapes):
            layer.events.data.disconnect(self._on_data)
            layer.events.features.disconnect(self._service.mark_changed)
        if self.tissue is not None and layer == self.tissue:
            self.tissue = None
            self._service.set_tissue("off")
        self._service.mark_changed()


def number_names(shapes: Shapes) -> None:
    """Give every shape a name of its own, as it stands on the canvas and in the table."""
    table = shapes.features
    if "name" not in table or len(table) != len(shapes.data):
        return
    names: list[str] = []
    for given in table["name"].astype(str):
        base = re.sub(r" \d+$", "", given)  # napari gives a new shape the last one's features
        numbered = (f"{base} {number}" for number in count(2))
        names.append(given if given not in names else next(n for n in numbered if n not in names))
    if names != table["name"].tolist():
        shapes.features = table.assign(name=pd.Series(names, table.index, dtype=object))
