"""Opening an image beside the event loop.

Whatever takes long is done on a thread: reading the header, building the coarse levels that an
image lacks (once: they are kept), reading the coarsest. The window's thread only adds the layer.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hrviewer.app.services.run_worker import Status
from hrviewer.pyramid import open_pyramid
from hrviewer.viewer.image.image_layer import image_layer_data

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from hrviewer.viewer.controller import Controller

__all__ = ["ImageLoad", "ImageLoader"]


class ImageLoad:
    """An image on its way into the window.

    Parameters
    ----------
    path : str or Path
        What to open.
    pool : ThreadPoolExecutor
        Where it is done.

    Attributes
    ----------
    fraction : float
        How much of the coarse levels is built.
    layer_data : Future
        Gives napari's layer tuple; raises UserError if the image cannot be opened.
    """

    def __init__(self, path: str | Path, pool: ThreadPoolExecutor) -> None:
        self.path = str(path)
        self.fraction = 0.0
        self._cancelled = threading.Event()
        self.layer_data: Future[tuple[Any, dict[str, Any], str]] = pool.submit(self._open)

    def cancel(self) -> None:
        """Give up; levels that are half built are thrown away."""
        self._cancelled.set()
        self.layer_data.cancel()

    def _open(self) -> tuple[Any, dict[str, Any], str]:
        pyramid = open_pyramid(self.path)
        try:
            if pyramid.missing_levels():
                pyramid.build_overviews(self._set_fraction, self._cancelled.is_set)
            return image_layer_data(pyramid, load_coarsest=True)
        except BaseException:
            pyramid.close()
            raise

    def _set_fraction(self, fraction: float) -> None:
        self.fraction = fraction


SETTLE_TICKS = 3
"""Ticks after which a window has its size."""


class ImageLoader:
    """Opens images, one at a time: a newer one is wanted instead of an older.

    Parameters
    ----------
    controller : Controller
        Shows them, and tells the person.
    """

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._loading: ImageLoad | None = None
        self._ticks_to_fit, self._camera = 0, camera_state(controller.viewer)

    @property
    def is_running(self) -> bool:
        """Whether an image is being opened."""
        return self._loading is not None

    def open(self, path: str | Path) -> None:
        """Begin to open an image."""
        self.cancel()
        self._loading = ImageLoad(path, self._controller.read_executor)

    def cancel(self) -> None:
        """Give up what is being opened."""
        if self._loading is not None:
            self._loading.cancel()

    def fit(self) -> None:
        """Show all of the image when what stands beside it has its room, unless it was moved."""
        self._ticks_to_fit, self._camera = SETTLE_TICKS, camera_state(self._controller.viewer)

    def tick(self) -> None:
        """Say how far it is, or show it."""
        controller, opening = self._controller, self._loading
        if self._ticks_to_fit:
            self._ticks_to_fit -= 1
            still = camera_state(controller.viewer) == self._camera
            if not self._ticks_to_fit and still and controller.image_layer is not None:
                controller.viewer.reset_view(layers=[controller.image_layer])
        if opening is None:
            return
        if not opening.layer_data.done():
            name = Path(opening.path).name
            controller.progress_changed.emit(Status(opening.fraction, f"opening {name}"))
            return
        self._loading = None
        controller.progress_changed.emit(Status(0.0, ""))
        if not opening.layer_data.cancelled():
            with controller.reporting_errors():
                controller.add_image_layer(*opening.layer_data.result())
                controller.viewer.reset_view(layers=[controller.image_layer])
                self.fit()


def camera_state(viewer: ViewerModel) -> tuple[float, ...]:
    """Return where the camera stands, and how near."""
    return (*viewer.scene.camera.center, viewer.scene.camera.zoom)
