"""The viewer's controller: the application together with its layers.

It builds state, services and layers, ticks once for all of them, and closes them. Layers listen to
the state; widgets call services and change settings.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Image, Layer, Points, Shapes
from napari.utils.notifications import show_error

from hrviewer.app.application import Application
from hrviewer.engine import ResultCache
from hrviewer.escaping import plain_text
from hrviewer.formatting import NO_ESTIMATE
from hrviewer.viewer.image.view_fit import ViewFit
from hrviewer.viewer.layers.annotation_layers import AnnotationLayers
from hrviewer.viewer.layers.canvas_text import CanvasText
from hrviewer.viewer.layers.clicks import ClickHandler
from hrviewer.viewer.layers.comparison_layers import ComparisonLayers
from hrviewer.viewer.layers.drawing_history import DrawingHistories
from hrviewer.viewer.layers.ground_truth_layer import GroundTruthLayer
from hrviewer.viewer.layers.image_tracker import ImageTracker, LayerDisplay, layer_of
from hrviewer.viewer.layers.label_layer import LabelLayer
from hrviewer.viewer.layers.left_layers import mark_left, remove_left
from hrviewer.viewer.layers.overlays import Overlays
from hrviewer.viewer.layers.region_layers import RegionLayers
from hrviewer.viewer.layers.result_layers import ResultLayers
from hrviewer.viewer.layers.roi import region_layer, start_region
from hrviewer.viewer.layers.view_drawing import describe_view

if TYPE_CHECKING:
    from napari.components import ViewerModel

__all__ = ["Controller"]


class Controller(Application):
    """The application in a napari viewer.

    Parameters
    ----------
    viewer : ViewerModel
        The viewer.
    cache, run_folder, low_priority
        As of `Application`.

    Attributes
    ----------
    results : ResultLayers
        Overlays of the current results.
    regions : RegionLayers
        Drawn regions and tissue.
    comparison : ComparisonLayers
        Runs side by side, or their difference.
    drawing : DrawingHistories
        Undo and redo of what the user draws.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        *,
        cache: ResultCache | None = None,
        run_folder: Path | None = None,
        low_priority: bool = True,
    ) -> None:
        self.viewer = viewer
        display = LayerDisplay(viewer)
        super().__init__(display, cache=cache, run_folder=run_folder, low_priority=low_priority)
        state = self.state
        state.error_notified.connect(notify)
        remove_left(viewer)
        self.view_fit = ViewFit(viewer)
        self.results = ResultLayers(viewer, state)
        self.ground_truth = GroundTruthLayer(viewer, state, self.ground_truth_service)
        self.labels = LabelLayer(viewer, state, self.head_trainer)
        self.annotations = AnnotationLayers(viewer, state, self.annotation_service)
        self.regions = RegionLayers(viewer, state, self.region_service)
        self.comparison = ComparisonLayers(
            viewer, state, self.compare_service, self.results, self.ground_truth
        )
        self.canvas_text = CanvasText(viewer, state)
        self.clicks = ClickHandler(viewer, state, self.results)
        self.drawing = DrawingHistories(viewer)
        self.tracker = display.tracker = ImageTracker(viewer, state)
        display.fit = self.view_fit.request

    @property
    def image_layer(self) -> Image | None:
        """The layer of the current image."""
        return layer_of(self.state.image)

    @property
    def overlays(self) -> Overlays | None:
        """Overlays of the current results."""
        return self.results.overlays

    @property
    def ground_truth_points(self) -> Points | None:
        """The layer of the ground truth, where it is displayed."""
        return self.ground_truth.layer

    def region_layer(self) -> Shapes | None:
        """Return the layer of shapes that regions are drawn on."""
        return region_layer(self.viewer)

    def draw_region(self, tool: str = "add_rectangle") -> None:
        """Let the user draw a region, a rectangle by default."""
        image_layer = self.image_layer
        if image_layer is not None:
            start_region(self.viewer, image_layer, tool)

    def inspect_patch(self, position: Any) -> None:
        """Inspect the patch at a world position, as a click there does."""
        self.clicks.click(position)

    def export_figure(self, path: Path, *, dpi: int = 300, inches: float = 7.0) -> None:
        """Write what is on the screen as a figure: PNG, SVG or PDF, by the file's suffix."""
        with self.state.reporting_errors():
            image, overlays = self.state.require_image(), self.overlays
            shown = overlays is not None and not overlays.is_hidden
            estimate = image.estimate if shown else NO_ESTIMATE
            parts = (image.name, estimate.amount, estimate.details)
            drawing = describe_view(
                self.viewer,
                overlays.legends() if overlays is not None and shown else [],
                overlays.visible_classes() if overlays is not None and shown else [],
                " · ".join(part for part in parts if part),
            )
            self.export_service.write_figure(drawing, path, dpi=dpi, inches=inches)

    def tick(self) -> None:
        """Take in the results of other threads, and display them."""
        super().tick()
        self.tracker.tick()
        self.results.tick()
        self.ground_truth.tick()
        self.regions.tick()
        self.comparison.tick()
        self.view_fit.tick(self.image_layer)

    def _result_layers(self) -> Iterator[Layer]:
        """Return the layers that display what the application has."""
        yield from self.results.overlays or ()
        yield from self.annotations.layers or ()
        singles = self.ground_truth.layer, self.labels.layer, self.regions.tissue
        yield from (layer for layer in singles if layer is not None)

    def close(self) -> None:
        """End everything; the layers stay."""
        if self._closed:
            return
        self.tracker.close()
        self.clicks.close()
        self.drawing.close()
        super().close()
        for displayed in (
            self.ground_truth, self.labels, self.regions, self.comparison, self.canvas_text
        ):  # fmt: skip
            displayed.close()
        mark_left(layer for layer in self._result_layers() if layer in self.viewer.layers)
        if self.results.overlays is not None:
            self.results.overlays.set_dimmed(False)
        self.results.overlays = None
        self.state.images, self.state.image = [], None


def notify(message: str) -> None:
    """Show an error as napari's notification."""
    show_error(plain_text(message))
