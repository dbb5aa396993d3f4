"""Fit of an image to the view once the window has its size."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image

__all__ = ["ViewFit", "camera_state"]

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
                self._viewer.reset_view(layers=[image_layer])


def camera_state(viewer: ViewerModel) -> tuple[float, ...]:
    """Return the camera's centre and zoom."""
    return (*viewer.scene.camera.center, viewer.scene.camera.zoom)
