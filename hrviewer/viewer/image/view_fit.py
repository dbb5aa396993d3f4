"""Fit of an image to the view once the window has its size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer

__all__ = ["ViewFit", "camera_state", "fit_layer"]

MARGIN = 0.05
"""Part of the canvas that stays blank around a layer."""

SETTLE_TICKS = 3
"""Ticks after which a window has its size."""


class ViewFit:
    """Shows all of an image a few ticks later, unless the camera was moved meanwhile.

    Parameters
    ----------
    viewer : ViewerModel
        The viewer.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._ticks, self._camera = 0, camera_state(viewer)

    def request(self) -> None:
        """Fit the image when the widgets beside it have their size."""
        self._ticks, self._camera = SETTLE_TICKS, camera_state(self._viewer)

    def tick(self, image_layer: Image | None) -> None:
        """Count down."""
        if self._ticks:
            self._ticks -= 1
            still = camera_state(self._viewer) == self._camera
            if not self._ticks and still and image_layer is not None:
                fit_layer(self._viewer, image_layer)


def fit_layer(viewer: ViewerModel, layer: Layer) -> None:
    """Show all of a layer.

    napari fits the view to layers that have all of the viewer's axes; an image without channels
    above one with channels has fewer.
    """
    if layer.ndim >= viewer.dims.ndim or viewer.dims.ndisplay == 3:
        viewer.reset_view(layers=[layer] if layer.ndim >= viewer.dims.ndim else None)
        return
    low, high = layer.extent.world[:, -2:]
    viewer.scene.camera.center = tuple((low + high) / 2)
    size = viewer.canvas.viewbox_size(viewer.layers)
    viewer.scene.camera.zoom = (1 - MARGIN) * float(np.min(size / (high - low + layer.scale[-2:])))


def camera_state(viewer: ViewerModel) -> tuple[float, ...]:
    """Return the camera's centre and zoom."""
    return (*viewer.scene.camera.center, viewer.scene.camera.zoom)
