"""Layers of detected objects: lines where few are in view, a raster of screen pixels otherwise."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from napari.layers import Image, Layer, Vectors

from hrviewer.app.image_session import Viewport
from hrviewer.app.maps.object_map import ObjectDrawing, ObjectMap
from hrviewer.viewer.image.geometry import METADATA_KEY, isotropic_placement, placement
from hrviewer.viewer.layers.layer_list import NO_LINES, as_vectors

__all__ = ["ObjectLayers"]

LINE_WIDTH = 2.0
"""Of a line, in screen pixels."""


class ObjectLayers:
    """Two layers, of which one is visible.

    Parameters
    ----------
    image_layer : Image
        The image.

    Attributes
    ----------
    objects : ObjectMap or None
        The displayed objects.
    """

    def __init__(self, image_layer: Image) -> None:
        self.objects: ObjectMap | None = None
        self._image_layer = image_layer
        self._drawn: ObjectDrawing | None = None
        self._visible, self._hidden = True, False
        place, self._units = isotropic_placement(image_layer)
        metadata = {METADATA_KEY: {"overlay": "objects"}}
        self.lines = Vectors(
            NO_LINES,
            name="objects",
            vector_style="line",
            edge_width=1,
            opacity=1.0,
            blending="translucent_no_depth",
            metadata=metadata,
            **place,
        )
        self.raster = Image(
            np.zeros((1, 1, 4), np.uint8),
            name="objects (raster)",
            rgb=True,
            visible=False,
            blending="translucent_no_depth",
            metadata=metadata,
            **placement(image_layer, 1.0),
        )

    def __iter__(self) -> Iterator[Layer]:
        """Both layers."""
        yield self.raster
        yield self.lines

    @property
    def is_visible(self) -> bool:
        """Whether the user wants to see objects."""
        return self._visible

    def set_visible(self, visible: bool) -> None:
        """Show or hide the objects."""
        self._visible = visible
        self._apply_visibility()

    def set_hidden(self, hidden: bool) -> None:
        """Hide the objects for a while, or show them again."""
        self._hidden = hidden
        self._apply_visibility()

    def refresh(self) -> None:
        """Display the last drawing."""
        drawing = None if self.objects is None else self.objects.drawing
        if drawing is self._drawn:
            return
        self._drawn = drawing
        if drawing is not None and drawing.raster is not None:
            corner = float(drawing.covered.y), float(drawing.covered.x)
            place = placement(self._image_layer, drawing.pixel, corner)
            self.raster.data = drawing.raster
            self.raster.scale, self.raster.translate = place["scale"], place["translate"]
        else:
            lines = np.zeros((0, 2, 2)) if drawing is None else drawing.lines.copy()
            lines[:, 0] -= 0.5
            self.lines.data = as_vectors(lines * self._units)
            if drawing is not None and len(lines):
                self.lines.edge_color = drawing.colors
        self._apply_visibility()

    def follow_view(self, viewport: Viewport) -> None:
        """Keep the width of lines on the screen."""
        width = LINE_WIDTH * viewport.side
        if self.lines.visible and abs(self.lines.edge_width / width - 1) > 0.01:
            self.lines.edge_width = width

    def _apply_visibility(self) -> None:
        drawing = self._drawn
        shown = self._visible and not self._hidden and drawing is not None
        as_raster = drawing is not None and drawing.raster is not None
        self.raster.visible = shown and as_raster
        self.lines.visible = shown and not as_raster
