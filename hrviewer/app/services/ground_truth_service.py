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

from hrviewer.errors import UserError
from hrviewer.geometry import Rect
from hrviewer.ground_truth import Truth
from hrviewer.io.ground_truth import read_truth
from hrviewer.pyramid import Pyramid
from hrviewer.viewer.image.geometry import screen_pixel, visible_rect
from hrviewer.viewer.image.image_layer import KEY, placement, pyramid_of, shape_of

if TYPE_CHECKING:
    from hrviewer.viewer.controller import Controller

__all__ = ["MOST", "TruthPoints", "Truths", "finder"]

MOST = 2000
SIZE = 9.0
"""Of a ring, in screen pixels."""
COLOUR = "#ff4fd8"
"""Told apart from every overlay's colours, also by colour-blind people."""

Find = Callable[[Rect], Truth]


def finder(pyramid: Pyramid, path: Path | None) -> Find:
    """Return what finds the objects in a rectangle; it is called beside the window's thread.

    Parameters
    ----------
    pyramid : Pyramid
        The image.
    path : Path, optional
        The file that holds them; None asks the image itself.
    """
    if path is None:
        known = pyramid.recipe
        if known is None:
            raise ValueError(f"{pyramid.name} does not know its truth")
        return known.truth

    @cache
    def whole() -> Truth:
        return read_truth(path, pyramid.path or pyramid.name, pyramid.shape)

    return lambda rect: whole().clip(rect)


class TruthPoints:
    """A `Points` layer that follows the view.

    Parameters
    ----------
    viewer : ViewerModel
        Where it is shown.
    base : Image
        What it lies on.
    find : callable
        See `finder`.
    worker : Executor
        Where it is called.
    """

    def __init__(self, viewer: ViewerModel, base: Image, find: Find, worker: Executor) -> None:
        self.viewer, self.base = viewer, base
        self.layer = Points(
            np.zeros((0, 2)),
            name="truth",
            symbol="ring",
            face_color=COLOUR,
            border_width=0,
            metadata={KEY: {"overlay": "truth"}},
            **placement(base, 1.0),
        )
        active = viewer.layers.selection.active
        viewer.add_layer(self.layer)
        viewer.layers.selection.active = active
        self._find, self._worker = find, worker
        self._asked: tuple[Rect, Future[Truth]] | None = None
        self._covered: Rect | None = None
        self._every = 1

    @property
    def busy(self) -> bool:
        """Whether objects are being looked up."""
        return self._asked is not None

    def follow(self, view: Rect, image: Rect, pixel: float) -> None:
        """Show what is visible.

        Parameters
        ----------
        view, image : Rect
            What is visible of the image, level-0 pixels.
        pixel : float
            A screen pixel's side, level-0 pixels.
        """
        if self._asked is None and not self._fits(view):
            covered = view.pad(max(view.h, view.w) // 2) & image
            self._asked = covered, self._worker.submit(self._find, covered)
        size = SIZE * pixel
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
        if self._asked is None or not self._asked[1].done():
            return None
        (covered, found), self._asked = self._asked, None
        points = found.result().points
        self._covered, self._every = covered, -(-len(points) // MOST) or 1
        self._draw(points[:: self._every])
        some = f", every {self._every}th is shown" if self._every > 1 else ""
        return f"{len(points):,} objects in and around the view{some}"

    def remove(self) -> None:
        """Take the layer away."""
        if self._asked is not None:
            self._asked[1].cancel()
            self._asked = None
        if self.layer in self.viewer.layers:
            self.viewer.layers.remove(self.layer)

    def _fits(self, view: Rect) -> bool:
        """Whether what is drawn still serves: it covers the view, and not far too much of it."""
        covered = self._covered
        if covered is None or view not in covered:
            return False
        return self._every == 1 or covered.area <= 16 * view.area

    def _draw(self, points: NDArray[np.float64]) -> None:
        # Pixel centres are at whole numbers in a layer, at halves in level-0 pixels.
        size = self.layer.current_size
        self.layer.data = points - 0.5
        self.layer.size = size
        self.layer.selected_data = set()


class Truths:
    """Shows and hides what is really there.

    Parameters
    ----------
    controller : Controller
        Has the image, and tells the person.

    Attributes
    ----------
    points : TruthPoints or None
        What is shown.
    file : Path or None
        Where it is from; None asks the image itself.
    """

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self.points: TruthPoints | None = None
        self.file: Path | None = None

    @property
    def busy(self) -> bool:
        """Whether objects are being looked up."""
        return self.points is not None and self.points.busy

    def show(self, path: Path | None) -> None:
        """Show what the image itself knows, or a file does."""
        self.hide()
        controller = self._controller
        with controller.telling():
            base = controller.need_base()
            find = finder(pyramid_of(base), path)
            self.points = TruthPoints(controller.viewer, base, find, controller.reader)
            self.file = path
        controller.truth_told.emit("looking…" if self.points else "")

    def hide(self) -> None:
        """Take it off the image."""
        if self.points is not None:
            shown, self.points = self.points, None
            shown.remove()
            self._controller.truth_told.emit("")

    def forget(self, layer: Layer) -> None:
        """Show it no longer, if it or its image was taken away."""
        if self.points is not None and layer in (self.points.base, self.points.layer):
            self.hide()

    def tick(self) -> None:
        """Follow the view, and draw what came."""
        controller, shown = self._controller, self.points
        if shown is None:
            return
        image = Rect(0, 0, *shape_of(shown.base))
        view = visible_rect(controller.viewer, shown.base, image)
        if not view.empty:
            shown.follow(view, image, screen_pixel(controller.viewer, shown.base))
        try:
            words = shown.tick()
        except UserError as error:
            self.hide()
            controller.fail(str(error))
        else:
            if words is not None:
                controller.truth_told.emit(words)
