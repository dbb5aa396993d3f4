"""The truth as points over the image: those in view, at most a few thousand of them.

Invariants: what is really there is read and asked for beside the window's thread; `follow` and
`tick` wait for nothing. Where more objects are in view than can be drawn, every so-many-th is.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Layer, Points
from numpy.typing import NDArray

from hrviewer.errors import HrviewerError
from hrviewer.geometry import Rect
from hrviewer.ground_truth import GroundTruth
from hrviewer.io.ground_truth import read_ground_truth
from hrviewer.pyramid import Pyramid
from hrviewer.viewer.image.geometry import screen_pixel, visible_rect
from hrviewer.viewer.image.image_layer import METADATA_KEY, placement, pyramid_of, shape_of

if TYPE_CHECKING:
    from hrviewer.viewer.controller import Controller

__all__ = ["MAX_POINTS", "GroundTruthPoints", "GroundTruthService", "ground_truth_lookup"]

MAX_POINTS = 2000
POINT_SIZE = 9.0
"""Of a ring, in screen pixels."""
POINT_COLOUR = "#ff4fd8"
"""Told apart from every overlay's colours, also by colour-blind people."""

GroundTruthLookup = Callable[[Rect], GroundTruth]


def ground_truth_lookup(pyramid: Pyramid, path: Path | None) -> GroundTruthLookup:
    """Return what finds the objects in a rectangle; it is called beside the window's thread.

    Parameters
    ----------
    pyramid : Pyramid
        The image.
    path : Path, optional
        The file that holds them; None asks the image itself.
    """
    if path is None:
        known = pyramid.synthetic_image
        if known is None:
            raise ValueError(f"{pyramid.name} does not know its truth")
        return known.ground_truth

    @cache
    def whole() -> GroundTruth:
        return read_ground_truth(path, pyramid.path or pyramid.name, pyramid.plane_shape)

    return lambda rect: whole().clip(rect)


class GroundTruthPoints:
    """A `Points` layer that follows the view.

    Parameters
    ----------
    viewer : ViewerModel
        Where it is shown.
    image_layer : Image
        What it lies on.
    lookup : callable
        See `finder`.
    executor : Executor
        Where it is called.
    """

    def __init__(
        self, viewer: ViewerModel, image_layer: Image, lookup: GroundTruthLookup, executor: Executor
    ) -> None:
        self.viewer, self.image_layer = viewer, image_layer
        self.layer = Points(
            np.zeros((0, 2)),
            name="truth",
            symbol="ring",
            face_color=POINT_COLOUR,
            border_width=0,
            metadata={METADATA_KEY: {"overlay": "truth"}},
            **placement(image_layer, 1.0),
        )
        active = viewer.layers.selection.active
        viewer.add_layer(self.layer)
        viewer.layers.selection.active = active
        self._lookup, self._executor = lookup, executor
        self._loading: tuple[Rect, Future[GroundTruth]] | None = None
        self._covered: Rect | None = None
        self._every_nth = 1

    @property
    def is_loading(self) -> bool:
        """Whether objects are being looked up."""
        return self._loading is not None

    def follow_view(self, view: Rect, image: Rect, pixel: float) -> None:
        """Show what is visible.

        Parameters
        ----------
        view, image : Rect
            What is visible of the image, level-0 pixels.
        pixel : float
            A screen pixel's side, level-0 pixels.
        """
        if self._loading is None and not self._is_covered(view):
            covered = view.pad(max(view.h, view.w) // 2) & image
            self._loading = covered, self._executor.submit(self._lookup, covered)
        size = POINT_SIZE * pixel
        if abs(self.layer.current_size / size - 1) > 0.05:
            self.layer.current_size = size
            self.layer.size = size

    def tick(self) -> str | None:
        """Draw what came; return what to say of it, None if nothing did.

        Raises
        ------
        UserError
            If the truth cannot be read.
        """
        if self._loading is None or not self._loading[1].done():
            return None
        (covered, found), self._loading = self._loading, None
        points = found.result().points
        self._covered, self._every_nth = covered, -(-len(points) // MAX_POINTS) or 1
        self._draw(points[:: self._every_nth])
        some = f", every {self._every_nth}th is shown" if self._every_nth > 1 else ""
        return f"{len(points):,} objects in and around the view{some}"

    def remove(self) -> None:
        """Take the layer away."""
        if self._loading is not None:
            self._loading[1].cancel()
            self._loading = None
        if self.layer in self.viewer.layers:
            self.viewer.layers.remove(self.layer)

    def _is_covered(self, view: Rect) -> bool:
        """Whether what is drawn still serves: it covers the view, and not far too much of it."""
        covered = self._covered
        if covered is None or view not in covered:
            return False
        return self._every_nth == 1 or covered.area <= 16 * view.area

    def _draw(self, points: NDArray[np.float64]) -> None:
        # Pixel centres are at whole numbers in a layer, at halves in level-0 pixels.
        size = self.layer.current_size
        self.layer.data = points - 0.5
        self.layer.size = size
        self.layer.selected_data = set()


class GroundTruthService:
    """Shows and hides what is really there.

    Parameters
    ----------
    controller : Controller
        Has the image, and tells the person.

    Attributes
    ----------
    points : TruthPoints or None
        What is shown.
    path : Path or None
        Where it is from; None asks the image itself.
    """

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self.points: GroundTruthPoints | None = None
        self.path: Path | None = None

    @property
    def is_running(self) -> bool:
        """Whether objects are being looked up."""
        return self.points is not None and self.points.is_loading

    def show(self, path: Path | None) -> None:
        """Show what the image itself knows, or a file does."""
        self.hide()
        controller = self._controller
        with controller.reporting_errors():
            base = controller.require_image_layer()
            find = ground_truth_lookup(pyramid_of(base), path)
            self.points = GroundTruthPoints(controller.viewer, base, find, controller.read_executor)
            self.path = path
        controller.ground_truth_status_changed.emit("looking…" if self.points else "")

    def hide(self) -> None:
        """Take it off the image."""
        if self.points is not None:
            shown, self.points = self.points, None
            shown.remove()
            self._controller.ground_truth_status_changed.emit("")

    def on_layer_removed(self, layer: Layer) -> None:
        """Show it no longer, if it or its image was taken away."""
        if self.points is not None and layer in (self.points.image_layer, self.points.layer):
            self.hide()

    def tick(self) -> None:
        """Follow the view, and draw what came."""
        controller, shown = self._controller, self.points
        if shown is None:
            return
        image = Rect(0, 0, *shape_of(shown.image_layer))
        view = visible_rect(controller.viewer, shown.image_layer, image)
        if not view.empty:
            shown.follow_view(view, image, screen_pixel(controller.viewer, shown.image_layer))
        try:
            words = shown.tick()
        except HrviewerError as error:
            self.hide()
            controller.report_error(str(error))
        else:
            if words is not None:
                controller.ground_truth_status_changed.emit(words)
