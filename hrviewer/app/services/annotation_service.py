"""What the person draws over the image, and what a file marks on it."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING

from hrviewer.errors import HrviewerError
from hrviewer.io.annotations import ANNOTATIONS_FILE
from hrviewer.io.features import Feature
from hrviewer.io.ground_truth import read_features
from hrviewer.io.run_features import detected_objects
from hrviewer.runs import Run
from hrviewer.viewer.image.image_layer import placement, pyramid_of
from hrviewer.viewer.layers.annotation_layers import (
    AnnotationLayers,
    AnnotationTool,
    annotation_layers,
)

if TYPE_CHECKING:
    from hrviewer.viewer.controller import Controller

__all__ = ["AnnotationService"]


class AnnotationService:
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
        self.annotations: AnnotationLayers | None = None
        self._importing: tuple[Path, Future[list[Feature]]] | None = None

    @property
    def is_running(self) -> bool:
        """Whether something is being read or written."""
        drawn = self.annotations is not None and self.annotations.has_pending_io
        return drawn or self._importing is not None

    def annotate(self, tool: AnnotationTool, label: str, *, from_predictions: bool) -> None:
        """Let the user draw over the run, from its predictions if `from_predictions`."""
        controller = self._controller
        with controller.reporting_errors():
            run, base = controller.run, controller.require_image_layer()
            if run is None:
                raise HrviewerError("annotations are kept in a run: run a strategy, or open a run")
            if self.annotations is None:
                self.annotations = AnnotationLayers(
                    controller.viewer, base, run.path, controller.read_executor
                )
            if from_predictions:
                self.annotations.add_when_ready(
                    controller.read_executor.submit(detected_objects, run)
                )
            self.annotations.start_drawing(tool, label)

    def import_file(self, path: Path) -> None:
        """Show what a file marks as layers: regions, hints, or something to compare with."""
        controller = self._controller
        with controller.reporting_errors():
            pyramid = pyramid_of(controller.require_image_layer())
            name = pyramid.path or pyramid.name
            read = controller.read_executor.submit(read_features, path, name, pyramid.plane_shape)
            self._importing = path, read

    def load(self, run: Run) -> None:
        """Show what was drawn over a run before."""
        self.save_and_close()
        controller = self._controller
        if controller.overlays is not None and (run.path / ANNOTATIONS_FILE).is_file():
            base = controller.overlays.image_layer
            self.annotations = AnnotationLayers(
                controller.viewer, base, run.path, controller.read_executor
            )

    def save_and_close(self, *, wait: bool = False) -> None:
        """Keep what was drawn over one run before another takes its place."""
        if self.annotations is not None:
            drawn, self.annotations = self.annotations, None
            with self._controller.reporting_errors():
                drawn.close(wait=wait)
            self._controller.annotations_saved.emit("")

    def tick(self) -> None:
        """Take in what was read, and keep what was drawn."""
        controller = self._controller
        if self.annotations is not None:
            with controller.reporting_errors(clear=False):
                words = self.annotations.tick()
                if words is not None:
                    controller.annotations_saved.emit(words)
        if self._importing is not None and self._importing[1].done():
            (path, read), self._importing = self._importing, None
            with controller.reporting_errors():
                place = placement(controller.require_image_layer(), 1.0)
                for layer in annotation_layers(read.result(), place, path.stem):
                    if len(layer.data):
                        controller.viewer.add_layer(layer)
