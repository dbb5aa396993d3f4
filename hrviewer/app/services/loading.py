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
from hrviewer.viewer.image.image_layer import image_layer

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from hrviewer.viewer.controller import Controller

__all__ = ["Opener", "Opening"]


class Opening:
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
    layer : Future
        Gives napari's layer tuple; raises UserError if the image cannot be opened.
    """

    def __init__(self, path: str | Path, pool: ThreadPoolExecutor) -> None:
        self.path = str(path)
        self.fraction = 0.0
        self._cancelled = threading.Event()
        self.layer: Future[tuple[Any, dict[str, Any], str]] = pool.submit(self._open)

    def cancel(self) -> None:
        """Give up; levels that are half built are thrown away."""
        self._cancelled.set()
        self.layer.cancel()

    def _open(self) -> tuple[Any, dict[str, Any], str]:
        pyramid = open_pyramid(self.path)
        try:
            if pyramid.missing_levels():
                pyramid.build_overviews(self._tell, self._cancelled.is_set)
            return image_layer(pyramid, read=True)
        except BaseException:
            pyramid.close()
            raise

    def _tell(self, fraction: float) -> None:
        self.fraction = fraction


SETTLED = 3
"""Ticks after which a window has its size."""


class Opener:
    """Opens images, one at a time: a newer one is wanted instead of an older.

    Parameters
    ----------
    controller : Controller
        Shows them, and tells the person.
    """

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._opening: Opening | None = None
        self._fit, self._view = 0, view_of(controller.viewer)

    @property
    def busy(self) -> bool:
        """Whether an image is being opened."""
        return self._opening is not None

    def open(self, path: str | Path) -> None:
        """Begin to open an image."""
        self.cancel()
        self._opening = Opening(path, self._controller.reader)

    def cancel(self) -> None:
        """Give up what is being opened."""
        if self._opening is not None:
            self._opening.cancel()

    def fit(self) -> None:
        """Show all of the image when what stands beside it has its room, unless it was moved."""
        self._fit, self._view = SETTLED, view_of(self._controller.viewer)

    def tick(self) -> None:
        """Say how far it is, or show it."""
        controller, opening = self._controller, self._opening
        if self._fit:
            self._fit -= 1
            still = view_of(controller.viewer) == self._view
            if not self._fit and still and controller.base is not None:
                controller.viewer.reset_view(layers=[controller.base])
        if opening is None:
            return
        if not opening.layer.done():
            name = Path(opening.path).name
            controller.progressed.emit(Status(opening.fraction, f"opening {name}"))
            return
        self._opening = None
        controller.progressed.emit(Status(0.0, ""))
        if not opening.layer.cancelled():
            with controller.telling():
                controller.show(*opening.layer.result())
                controller.viewer.reset_view(layers=[controller.base])
                self.fit()


def view_of(viewer: ViewerModel) -> tuple[float, ...]:
    """Return where the camera stands, and how near."""
    return (*viewer.scene.camera.center, viewer.scene.camera.zoom)
