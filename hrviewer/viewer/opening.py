"""Opening an image beside the event loop.

Whatever takes long is done on a thread: reading the header, building the coarse levels that an
image lacks (once: they are kept), reading the coarsest. The window's thread only adds the layer.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hrviewer.pyramid import open_pyramid
from hrviewer.viewer.levels import image_layer

__all__ = ["Opening"]


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
