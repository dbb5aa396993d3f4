"""What the person draws over the image, and what a file marks on it."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING

from hrviewer.errors import UserError
from hrviewer.io.annotations import FILE
from hrviewer.io.features import Feature
from hrviewer.io.ground_truth import read_features
from hrviewer.io.run_features import objects_of
from hrviewer.runs import Run
from hrviewer.viewer.image.image_layer import placement, pyramid_of
from hrviewer.viewer.layers.annotation_layers import Annotations, Tool, layers_of

if TYPE_CHECKING:
    from hrviewer.viewer.controller import Controller

__all__ = ["Drawing"]


class Drawing:
    """Has a run's annotations on the screen while the run is.

    Parameters
    ----------
    controller : Controller
        Has the image and the run, and tells the person.

    Attributes
    ----------
    annotations : Annotations or None
        Those of the run on the screen.
    """

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self.annotations: Annotations | None = None
        self._bringing: tuple[Path, Future[list[Feature]]] | None = None

    @property
    def busy(self) -> bool:
        """Whether something is being read or written."""
        drawn = self.annotations is not None and self.annotations.busy
        return drawn or self._bringing is not None

    def annotate(self, tool: Tool, label: str, *, correct: bool) -> None:
        """Let the person draw over the run; with `correct`, start from what the network found."""
        controller = self._controller
        with controller.telling():
            run, base = controller.run, controller.need_base()
            if run is None:
                raise UserError("annotations are kept in a run: run a strategy, or open a run")
            if self.annotations is None:
                self.annotations = Annotations(controller.viewer, base, run.path, controller.reader)
            if correct:
                self.annotations.add(controller.reader.submit(objects_of, run))
            self.annotations.take_up(tool, label)

    def bring_in(self, path: Path) -> None:
        """Show what a file marks as layers: regions, hints, or something to compare with."""
        controller = self._controller
        with controller.telling():
            pyramid = pyramid_of(controller.need_base())
            name = pyramid.path or pyramid.name
            read = controller.reader.submit(read_features, path, name, pyramid.shape)
            self._bringing = path, read

    def show(self, run: Run) -> None:
        """Show what was drawn over a run before."""
        self.put_away()
        controller = self._controller
        if controller.overlays is not None and (run.path / FILE).is_file():
            base = controller.overlays.base
            self.annotations = Annotations(controller.viewer, base, run.path, controller.reader)

    def put_away(self, *, now: bool = False) -> None:
        """Keep what was drawn over one run before another takes its place."""
        if self.annotations is not None:
            drawn, self.annotations = self.annotations, None
            with self._controller.telling():
                drawn.close(now=now)
            self._controller.annotated.emit("")

    def tick(self) -> None:
        """Take in what was read, and keep what was drawn."""
        controller = self._controller
        if self.annotations is not None:
            with controller.telling(anew=False):
                words = self.annotations.tick()
                if words is not None:
                    controller.annotated.emit(words)
        if self._bringing is not None and self._bringing[1].done():
            (path, read), self._bringing = self._bringing, None
            with controller.telling():
                place = placement(controller.need_base(), 1.0)
                for layer in layers_of(read.result(), place, path.stem):
                    if len(layer.data):
                        controller.viewer.add_layer(layer)
