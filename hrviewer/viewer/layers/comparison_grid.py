"""Two to four runs side by side, in napari's grid: one camera, so what moves moves everywhere.

napari's grid takes layers by groups of equal size, counted from the top of the list where its
stride is negative, and leaves out hidden groups. So each run has a group (the image once more, one
of its maps, the ground truth) above all other layers, which are hidden and come back in the end;
the groups' order is reversed, for the topmost is drawn first.

Invariants: adding a layer takes a while, so one is added with each `tick`; a layer that is added
meanwhile is put below, hidden, and is shown when the grid ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Layer, Points

from hrviewer.app.maps.raster import MapName, PyramidRaster
from hrviewer.app.maps.result_maps import ResultMaps
from hrviewer.viewer.image.geometry import METADATA_KEY, placement, pyramid_of, screen_pixel
from hrviewer.viewer.image.image_layer import image_layer_data
from hrviewer.viewer.layers.class_legend import ClassLegend
from hrviewer.viewer.layers.layer_list import keep_selection, remove_layers
from hrviewer.viewer.layers.overlays import MIN_CELL_PX, layer_settings, layer_title
from hrviewer.viewer.layers.styles import OVERLAY_STYLES, map_colormap

if TYPE_CHECKING:
    from napari.components import ViewerModel

__all__ = ["ComparisonGrid"]

GRID_SPACING = 3
"""Between the pictures, in screen pixels."""


@dataclass(eq=False)
class RunLayers:
    """One run's layers, from the lowest."""

    title: str
    maps: ResultMaps
    image_layer: Image
    map_layer: Image
    ground_truth: Points
    level: int = 0

    def __iter__(self) -> Iterator[Layer]:
        return iter((self.image_layer, self.map_layer, self.ground_truth))


class ComparisonGrid:
    """Runs side by side.

    Parameters
    ----------
    viewer : ViewerModel
        Where.
    image_layer : Image
        The image.
    runs : sequence of (str, ResultMaps)
        Names and maps of two to four runs.
    map_name : MapName
        Which map is shown.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        image_layer: Image,
        runs: Sequence[tuple[str, ResultMaps]],
        map_name: MapName = "output",
    ) -> None:
        self.viewer, self.image_layer, self.map_name = viewer, image_layer, map_name
        self.runs = [self._make_layers(title, maps) for title, maps in runs]
        self._pending_layers = [layer for group in reversed(self.runs) for layer in group]
        self._own_layers = list(self._pending_layers)
        self._hidden_layers = [layer for layer in viewer.layers if layer.visible]
        grid, camera = viewer.canvas.grid, viewer.scene.camera
        self._saved_grid = grid.enabled, grid.stride, grid.shape, grid.spacing
        self._saved_camera = camera.center, camera.zoom
        self._saved_scale_bar = viewer.canvas.overlays.scale_bar.position
        self.points: Points | None = None
        self._mirrored_points: Any = None
        self.is_ready = False
        self._class_legend = ClassLegend(viewer, "comparison")
        viewer.layers.events.inserted.connect(self._on_inserted)

    def tick(self) -> bool:
        """Go on building; return whether all is there."""
        if self._pending_layers:
            layer = self._pending_layers.pop(0)
            with keep_selection(self.viewer):
                self.viewer.add_layer(layer)
        elif not self.is_ready:
            self._enable_grid()
        else:
            self._follow_view()
        return self.is_ready

    def set_map(self, name: MapName) -> None:
        """Show another map of each run."""
        self.map_name = name
        for group in self.runs:
            drawn = group.maps.rasters[name]
            group.map_layer.data = drawn.levels[0]
            group.level = -1
            group.map_layer.colormap = map_colormap(name, drawn)
            group.map_layer.opacity = OVERLAY_STYLES[name].opacity
            group.map_layer.name = f"{group.title}: {layer_title(name, drawn)}"
        if self.is_ready:
            self._show_legend()
            self._follow_view()

    def _show_legend(self) -> None:
        """Show one legend for all runs, as they share their colours."""
        layer = self.runs[-1].map_layer
        categories = self.runs[-1].maps.rasters[self.map_name].categories
        # The names of the runs are at the top.
        layer.name_overlay.position = layer.colorbar.position = "bottom_right"
        self.viewer.canvas.overlays.scale_bar.position = "bottom_left"
        layer.colorbar.visible = layer.name_overlay.visible = not categories
        self._class_legend.show(categories)

    def mirror_points(self, points: Points | None) -> None:
        """Mirror a layer of points in every run's group; None for no points."""
        self.points, self._mirrored_points = points, None
        for group in self.runs:
            group.ground_truth.visible = self.is_ready and points is not None

    def close(self) -> None:
        """Bring back what was there before."""
        viewer = self.viewer
        viewer.layers.events.inserted.disconnect(self._on_inserted)
        grid = viewer.canvas.grid
        grid.enabled, grid.stride, grid.shape, grid.spacing = self._saved_grid
        viewer.canvas.overlays.scale_bar.position = self._saved_scale_bar
        self._pending_layers.clear()
        self._class_legend.show(())
        remove_layers(viewer, self._own_layers)
        for layer in self._hidden_layers:
            if layer in viewer.layers:
                layer.visible = True
        viewer.scene.camera.center, viewer.scene.camera.zoom = self._saved_camera

    def _make_layers(self, title: str, maps: ResultMaps) -> RunLayers:
        drawn = maps.rasters[self.map_name]
        style = layer_settings(self.map_name, drawn, maps.completion, self.image_layer) | {
            "name": f"{title}: {self.map_name}",
            "visible": False,
        }
        layer = Image(drawn.values, **style, **placement(self.image_layer, drawn.cell))
        points = Points(
            np.zeros((0, 2)),
            name=f"{title}: ground truth",
            visible=False,
            metadata={METADATA_KEY: {"overlay": "ground_truth"}},
            **placement(self.image_layer, 1.0),
        )
        return RunLayers(title, maps, clone_image_layer(self.image_layer, title), layer, points)

    def _shared_limits(self) -> tuple[float, float]:
        """Return what the ends of the colours stand for: the same for all runs.

        The middle one of their own where runs have no common scale: the largest would leave the
        others' pictures empty.
        """
        maps: list[PyramidRaster] = [group.maps.rasters[self.map_name] for group in self.runs]
        ends = sorted(m.limits[1] for m in maps)
        return min(m.limits[0] for m in maps), ends[(len(ends) - 1) // 2]

    def _enable_grid(self) -> None:
        viewer, grid = self.viewer, self.viewer.canvas.grid
        for layer in self._hidden_layers:
            layer.visible = False
        grid.stride, grid.shape, grid.spacing = -len(list(self.runs[0])), (-1, -1), GRID_SPACING
        for group in self.runs:
            group.image_layer.visible = group.map_layer.visible = True
        grid.enabled = True
        self.is_ready = True
        self.set_map(self.map_name)
        self.mirror_points(self.points)
        viewer.fit_to_view(layers=[self.runs[0].image_layer])

    def _follow_view(self) -> None:
        """Draw maps as coarse as the screen is; update the ground truth."""
        pixel = max(screen_pixel(self.viewer, self.image_layer))
        for group in self.runs:
            drawn = group.maps.rasters[self.map_name]
            level = drawn.level_for(MIN_CELL_PX * pixel)
            if level != group.level:
                group.level = level
                drawn.autoscale(level)
                place = placement(self.image_layer, drawn.cell * 2**level)
                group.map_layer.data = drawn.levels[level]
                group.map_layer.scale, group.map_layer.translate = (
                    place["scale"],
                    place["translate"],
                )
        limits = self._shared_limits()
        for group in self.runs:
            if tuple(group.map_layer.contrast_limits) != limits:
                group.map_layer.contrast_limits_range = group.map_layer.contrast_limits = limits
        points = self.points
        if points is not None and points.data is not self._mirrored_points:
            self._mirrored_points = points.data
            for group in self.runs:
                group.ground_truth.data = points.data
                group.ground_truth.symbol, group.ground_truth.border_width = "ring", 0
                group.ground_truth.face_color = points.current_face_color
                group.ground_truth.selected_data = set()
        if points is not None and len(points.data):
            for group in self.runs:
                if group.ground_truth.current_size != points.current_size:
                    group.ground_truth.current_size = points.current_size
                    group.ground_truth.size = points.current_size

    def _on_inserted(self, event: Any) -> None:
        layer, layers = event.value, self.viewer.layers
        if any(layer == own for own in self._own_layers):
            return
        above = [i for i, other in enumerate(layers) if other in self._own_layers]
        if above:
            layers.move(layers.index(layer), above[0])
        if layer.visible:
            self._hidden_layers.append(layer)
            layer.visible = not self.is_ready


def clone_image_layer(image_layer: Image, title: str) -> Image:
    """Return a second layer of the same image, with its name in a corner."""
    kept = image_layer.metadata.get(METADATA_KEY, {}).get("pyramid")
    data, kind = image_layer.data, {"multiscale": image_layer.multiscale, "rgb": image_layer.rgb}
    if kept is not None:
        # Loaded tiles belong to one layer: another one loads its own.
        data, about, _ = image_layer_data(pyramid_of(image_layer), load_coarsest=False)
        kind = {name: about[name] for name in ("multiscale", "rgb")}
    style = (
        {} if image_layer.rgb else {"colormap": image_layer.colormap, "gamma": image_layer.gamma}
    )
    layer = Image(
        data,
        name=title,
        visible=False,
        contrast_limits=image_layer.contrast_limits,
        metadata={METADATA_KEY: {"overlay": "image"} | ({} if kept is None else {"pyramid": kept})},
        scale=image_layer.scale,
        translate=image_layer.translate,
        units=image_layer.units,
        axis_labels=image_layer.axis_labels,
        **kind,
        **style,
    )
    layer.name_overlay.visible = layer.name_overlay.box = True
    return layer
