"""Layers of the comparison: runs side by side, or the difference of two."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.layers import Image
from psygnal import Signal

from hrviewer.app.services.compare_service import CompareService
from hrviewer.app.state import AppState
from hrviewer.viewer.layers.comparison_grid import ComparisonGrid
from hrviewer.viewer.layers.difference import difference_layer
from hrviewer.viewer.layers.ground_truth_layer import GroundTruthLayer
from hrviewer.viewer.layers.image_tracker import layer_of
from hrviewer.viewer.layers.result_layers import ResultLayers

if TYPE_CHECKING:
    from napari.components import ViewerModel

__all__ = ["ComparisonLayers"]


class ComparisonLayers:
    """Displays what `CompareService` compares; a single run's overlays are hidden meanwhile.

    Parameters
    ----------
    viewer : ViewerModel
        The viewer.
    state : AppState
        Has the current image.
    service : CompareService
        Has the compared runs.
    results : ResultLayers
        Overlays of a single run.
    ground_truth : GroundTruthLayer
        Is mirrored in every run of the grid.

    Attributes
    ----------
    grid : ComparisonGrid or None
        The runs side by side.
    difference : Image or None
        The layer of the difference.
    """

    grid_ready = Signal()

    def __init__(
        self,
        viewer: ViewerModel,
        state: AppState,
        service: CompareService,
        results: ResultLayers,
        ground_truth: GroundTruthLayer,
    ) -> None:
        self._viewer, self._state, self._service = viewer, state, service
        self._results, self._ground_truth = results, ground_truth
        self.grid: ComparisonGrid | None = None
        self.difference: Image | None = None
        service.grid_changed.connect(self._on_grid)
        service.map_changed.connect(self._on_map)
        service.difference_changed.connect(self._on_difference)
        viewer.layers.events.removed.connect(self._on_removed)

    @property
    def is_building(self) -> bool:
        """Whether layers of the grid are still being added, one a tick."""
        return self.grid is not None and not self.grid.is_ready

    def tick(self) -> None:
        """Go on building the grid, and follow the view."""
        if self.grid is None:
            return
        building = self.is_building
        points = self._ground_truth.layer
        if points is not self.grid.points:
            self.grid.mirror_points(points)
        if self.grid.tick() and building:
            self.grid_ready.emit()

    def close(self) -> None:
        """Follow the layer list no more; the layers stay."""
        self._viewer.layers.events.removed.disconnect(self._on_removed)
        self.grid = self.difference = None

    def _on_grid(self) -> None:
        runs, image_layer = self._service.grid, layer_of(self._state.image)
        if self.grid is not None:
            grid, self.grid = self.grid, None
            grid.close()
        if runs is not None and image_layer is not None:
            self._hide_results()
            self.grid = ComparisonGrid(self._viewer, image_layer, runs, self._service.map_name)
        else:
            self._hide_results()

    def _on_map(self) -> None:
        if self.grid is not None:
            self.grid.set_map(self._service.map_name)

    def _on_difference(self) -> None:
        shown, image_layer = self._service.difference, layer_of(self._state.image)
        layer, self.difference = self.difference, None
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)
        self._hide_results()
        if shown is not None and image_layer is not None:
            self.difference = difference_layer(shown.raster, image_layer, shown.title)
            self._viewer.add_layer(self.difference)
            self._viewer.layers.selection.active = image_layer

    def _hide_results(self) -> None:
        service = self._service
        self._results.set_hidden(service.grid is not None or service.difference is not None)

    def _on_removed(self, event: Any) -> None:
        if self.difference is not None and event.value == self.difference:
            self.difference = None
            self._service.clear_difference()
