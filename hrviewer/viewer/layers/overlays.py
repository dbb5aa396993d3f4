"""Layers of result maps on top of an image.

Invariants: every layer has the image layer's units, scale and place, at any resolution of its own;
contrast limits are always explicit; one run after another is shown in the same layers; `refresh`
and `follow_view` take no more than a few milliseconds and wait for nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Layer
from psygnal import Signal

from hrviewer.app.image_session import Viewport
from hrviewer.app.maps.heat_map import HeatMap, smooth_raster
from hrviewer.app.maps.raster import MAPS, MapName, PyramidRaster
from hrviewer.app.maps.result_maps import Completion, ResultMaps
from hrviewer.io.figures.view_figure import ScaleLegend
from hrviewer.io.geojson import class_colors
from hrviewer.units import format_amount
from hrviewer.viewer.image.geometry import METADATA_KEY, is_aligned, placement
from hrviewer.viewer.layers.attention_layers import AttentionLayers
from hrviewer.viewer.layers.class_legend import ClassLegend
from hrviewer.viewer.layers.embedding_layers import EmbeddingLayers
from hrviewer.viewer.layers.layer_list import keep_selection, remove_layers, set_layer_visible
from hrviewer.viewer.layers.object_layers import ObjectLayers
from hrviewer.viewer.layers.patch_outlines import PatchOutlines
from hrviewer.viewer.layers.styles import OVERLAY_STYLES, fit_colour_bars, map_colormap
from hrviewer.viewer.layers.warp_grid import WarpGrid

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from napari.components import ViewerModel

__all__ = ["Overlays", "as_limits"]

DIMMED = 0.35
"""Opacity of an image that is dimmed, over its own."""

MIN_CELL_PX = 3.0
"""Screen pixels per side of a drawn cell, at least: finer ones would flicker as the view moves."""


class Overlays:
    """Four overlays over one image.

    Parameters
    ----------
    viewer : ViewerModel
        The viewer.
    image_layer : Image
        The image below them.
    maps : ResultMaps
        The displayed maps.
    previous : Overlays, optional
        Earlier overlays, whose settings are kept, and whose layers are reused on the same image:
        napari takes seconds to remove layers and to make others.
    """

    limits_changed = Signal(str)
    """Emitted with an overlay's name when its limits, or whether values exceed them, change."""

    visibility_changed = Signal()
    """Emitted when the user hid, showed or removed a layer with napari's controls."""

    def __init__(
        self,
        viewer: ViewerModel,
        image_layer: Image,
        maps: ResultMaps,
        *,
        previous: Overlays | None = None,
    ) -> None:
        self.viewer, self.image_layer, self.maps = viewer, image_layer, maps
        self._visibility: dict[MapName, bool] = {
            name: style.visible for name, style in OVERLAY_STYLES.items()
        }
        self._colour_bars: set[MapName] = {"output"}
        self.heat: HeatMap = HeatMap() if previous is None else previous.heat
        self._hidden = False
        self._class_legend = ClassLegend(viewer, "output")
        self._levels: dict[MapName, int] = dict.fromkeys(MAPS, 0)
        self.layers: dict[MapName, Image]
        self.outlines: PatchOutlines
        self.warp_grid: WarpGrid | None = None
        self.embedding_layers: EmbeddingLayers | None = None
        self.attention_layers: AttentionLayers | None = None
        self.object_layers: ObjectLayers | None = None
        self._full_opacity: float | None = None
        if previous is not None and previous.is_dimmed:
            previous.set_dimmed(False)
            self.set_dimmed(True)
        if previous is not None and previous.image_layer is image_layer and previous.is_intact:
            self._reuse_layers(previous)
        else:
            self._add_layers(previous)
        if previous is not None:
            self._visibility, self._colour_bars = previous._visibility, previous._colour_bars
        self._apply_visibility()

    def _add_layers(self, previous: Overlays | None) -> None:
        """Make layers, in place of earlier ones."""
        self.layers = {
            name: Image(
                drawn.values,
                **layer_settings(name, drawn, self.maps.completion, self.image_layer),
                **placement(self.image_layer, drawn.cell),
            )
            for name, drawn in self.maps.rasters.items()
        }
        self._shown_limits = limits_of(self.layers)
        self.outlines = PatchOutlines(self.image_layer)
        if previous is not None:
            previous.remove()
            for name in MAPS:
                self.set_opacity(name, previous.layers[name].opacity)
        # Below the outlines the maps, the most detailed last.
        with keep_selection(self.viewer):
            for name in ("cost", "saliency", "patches", "output"):
                self.viewer.add_layer(self.layers[name])
            self.viewer.add_layer(self.outlines.layer)

    def _reuse_layers(self, previous: Overlays) -> None:
        """Show other maps in the layers that exist."""
        self.layers, self.outlines = previous.layers, previous.outlines
        self._shown_limits = limits_of(self.layers)
        self.embedding_layers, self.attention_layers = (
            previous.embedding_layers,
            previous.attention_layers,
        )
        self.object_layers = previous.object_layers
        if previous.warp_grid is not None:
            remove_layers(self.viewer, [previous.warp_grid.layer])
        for name, layer in self.layers.items():
            drawn = self.maps.rasters[name]
            settings = layer_settings(name, drawn, self.maps.completion, self.image_layer)
            layer.metadata, layer.name = settings["metadata"], settings["name"]
            self._apply_style(name)
            self._set_level(name)

    def _apply_style(self, name: MapName) -> None:
        """Apply a map's colours and limits, which depend on the displayed class."""
        layer, drawn = self.layers[name], self.maps.rasters[name]
        colormap = map_colormap(name, drawn, self.heat)
        if layer.colormap.name != colormap.name:
            layer.colormap = colormap
        layer.contrast_limits_range = layer.contrast_limits = drawn.limits
        self._shown_limits[name] = as_limits(layer.contrast_limits)

    def show_class(self, class_index: int | None) -> None:
        """Show another class, all together, or the most likely one."""
        self.maps.set_class(class_index)
        self._apply_style("output")
        self._show_legend("output")
        self.limits_changed.emit("output")

    def hide_classes(self, hidden: Collection[int]) -> None:
        """Leave classes out of the map of the most likely ones, and of its legend."""
        self.maps.hide_classes(hidden)
        self._show_legend("output")

    @property
    def is_intact(self) -> bool:
        """Whether all layers exist, and are placed on the image."""
        return all(layer in self.viewer.layers for layer in self) and is_aligned(
            self.outlines.layer, self.image_layer
        )

    def __iter__(self) -> Iterator[Layer]:
        """All layers."""
        yield from self.layers.values()
        yield self.outlines.layer
        if self.warp_grid is not None:
            yield self.warp_grid.layer
        for group in self._layer_groups():
            yield from group

    def _layer_groups(self) -> list[EmbeddingLayers | AttentionLayers | ObjectLayers]:
        groups = self.embedding_layers, self.attention_layers, self.object_layers
        return [group for group in groups if group is not None]

    def refresh(self, *, hidden: bool = True) -> None:
        """Display what was drawn since the last time.

        Parameters
        ----------
        hidden : bool
            Whether contrast limits of invisible layers are updated, too.
        """
        self._follow_visibility()
        for name, layer in self.layers.items():
            drawn = self.maps.rasters[name]
            self._follow_scale(name)
            if not drawn.changed or not (layer.visible or hidden):
                continue
            drawn.changed = False
            if layer.name != layer_title(name, drawn):  # another cost is displayed
                layer.name = layer_title(name, drawn)
            self._autoscale(name)
            if name == "output" and self.heat.sigma > 0:
                self._set_level(name)
            elif layer.visible:
                layer.set_view_slice()
                layer.events.set_data()
        self._refresh_layer_groups()

    def follow_view(self, viewport: Viewport) -> None:
        """Outline the visible patches, and draw maps as coarse as the screen is.

        Parameters
        ----------
        viewport : Viewport
            Visible part of the image.
        """
        fit_colour_bars(self.viewer, self.layers.values())
        for name, drawn in self.maps.rasters.items():
            level = drawn.level_for(MIN_CELL_PX * viewport.coarsest)
            if level != self._levels[name]:
                self._levels[name] = level
                self._set_level(name)
        if self.object_layers is not None:
            self.object_layers.follow_view(viewport)
        if not self._visibility["patches"]:
            return
        self._draw_warp_grid(viewport)
        self.outlines.draw(self.maps.record.patches, viewport)

    def _refresh_layer_groups(self) -> None:
        """Display embeddings and attention; their layers are made with the first of them."""
        embeddings, attention = self.maps.embeddings, self.maps.attention
        if embeddings is not (self.embedding_layers and self.embedding_layers.embeddings):
            new = (
                None
                if embeddings is None
                else EmbeddingLayers(self.image_layer, embeddings, self.embedding_layers)
            )
            self._replace(self.embedding_layers, new)
            self.embedding_layers = new
        if attention is not (self.attention_layers and self.attention_layers.attention):
            fresh = (
                None
                if attention is None
                else AttentionLayers(self.image_layer, attention, self.attention_layers)
            )
            self._replace(self.attention_layers, fresh)
            self.attention_layers = fresh
        if self.object_layers is None and self.maps.objects is not None:
            self.object_layers = ObjectLayers(self.image_layer)
            with keep_selection(self.viewer):
                for layer in self.object_layers:
                    self.viewer.add_layer(layer)
        if self.object_layers is not None:
            self.object_layers.objects = self.maps.objects
        for group in self._layer_groups():
            group.refresh()

    def _replace(self, old: Iterable[Layer] | None, new: Iterable[Layer] | None) -> None:
        """Put layers in the place of others, below the maps."""
        with keep_selection(self.viewer):
            remove_layers(self.viewer, old or ())
            for layer in new or ():
                self.viewer.layers.insert(self.viewer.layers.index(self.layers["cost"]), layer)

    def _draw_warp_grid(self, viewport: Viewport) -> None:
        """Draw the grids of warps; the layer is made with the first of them."""
        warps = self.maps.warps
        if self.warp_grid is None and warps:
            self.warp_grid = WarpGrid(self.image_layer)
            with keep_selection(self.viewer):
                self.viewer.add_layer(self.warp_grid.layer)
        if self.warp_grid is not None:
            self.warp_grid.draw(warps, viewport)

    def set_visible(self, name: MapName, visible: bool) -> None:
        """Show or hide an overlay; one that was removed from the layer list comes back."""
        self._visibility[name] = visible
        layers = self.outlines.layer if name == "patches" else self.layers[name], self.layers[name]
        missing = [layer for layer in dict.fromkeys(layers) if layer not in self.viewer.layers]
        if visible and missing:
            with keep_selection(self.viewer):
                for layer in missing:
                    self.viewer.add_layer(layer)
        self._apply_visibility()

    def _follow_visibility(self) -> None:
        """Take over what the user hid, showed or removed with napari's controls."""
        if self._hidden:
            return
        before = dict(self._visibility)
        for name in self.layers:
            layer = self.outlines.layer if name == "patches" else self.layers[name]
            self._visibility[name] = layer.visible and layer in self.viewer.layers
        if self._visibility != before:
            self._apply_visibility()
            self.visibility_changed.emit()

    def set_hidden(self, hidden: bool) -> None:
        """Hide all overlays for a while, or show them again."""
        self._hidden = hidden
        self._apply_visibility()
        for group in self._layer_groups():
            group.set_hidden(hidden)

    @property
    def is_hidden(self) -> bool:
        """Whether all overlays are hidden for a while."""
        return self._hidden

    def is_visible(self, name: MapName) -> bool:
        """Return whether an overlay is shown."""
        return self._visibility[name]

    def set_opacity(self, name: MapName, opacity: float) -> None:
        """Set the opacity of an overlay."""
        self.layers[name].opacity = opacity
        if name == "patches":
            self.outlines.layer.opacity = opacity

    def set_patch_quantity(self, quantity: str) -> None:
        """Colour the patches by another quantity of `PATCH_QUANTITIES`, or outline them only."""
        self.maps.set_patch_quantity(quantity)
        self._apply_visibility()

    def has_colour_bar(self, name: MapName) -> bool:
        """Return whether an overlay's legend is on the image while the overlay is visible."""
        return name in self._colour_bars

    def set_colour_bar(self, name: MapName, shown: bool) -> None:
        """Show or hide an overlay's legend on the image."""
        (self._colour_bars.add if shown else self._colour_bars.discard)(name)
        self._apply_visibility()

    @property
    def is_dimmed(self) -> bool:
        """Whether the image is dimmed, for the overlays to be read."""
        return self._full_opacity is not None

    def set_dimmed(self, dimmed: bool) -> None:
        """Dim the image below the overlays, or give it its own opacity back."""
        if dimmed == self.is_dimmed:
            return
        if self._full_opacity is None:
            self._full_opacity = self.image_layer.opacity
            self.image_layer.opacity = DIMMED * self._full_opacity
        else:
            self.image_layer.opacity, self._full_opacity = self._full_opacity, None

    def set_heat_map(self, heat: HeatMap) -> None:
        """Smooth the output, hide its low values, or show its cells."""
        self.heat = heat
        self._apply_style("output")
        self._set_level("output")

    def legends(self) -> list[ScaleLegend]:
        """Return the colour scales of the visible maps, without those of classes."""
        found = []
        for name, layer in self.layers.items():
            drawn = self.maps.rasters[name]
            if layer.visible and not drawn.categories:
                low, high = map(format_amount, drawn.limits)
                high = "≥ " * drawn.is_clipped + high
                colours = np.asarray(layer.colormap.map(np.linspace(0, 1, 128)))
                found.append(ScaleLegend(layer.name, low, high, colours))
        return found

    def visible_classes(self) -> list[tuple[str, tuple[float, float, float]]]:
        """Return the classes that are displayed, each with its colour, RGB of 0 to 1."""
        maps, hidden = self.maps, self.maps.hidden_classes
        shown = self.layers["output"].visible and bool(maps.rasters["output"].categories)
        group = self.object_layers
        if maps.objects is not None and group is not None and group.is_visible:
            shown, hidden = not self._hidden, frozenset(maps.objects.hidden_classes)
        colours = class_colors(maps.classes) if shown else []
        return [
            (name, (r / 255, g / 255, b / 255))
            for i, (name, (r, g, b)) in enumerate(zip(maps.classes, colours, strict=False))
            if i not in hidden
        ]

    def fit_scale(self, name: MapName) -> None:
        """Fit a map's colour scale to what is displayed, and hold it."""
        scale = self.maps.rasters[name].scale
        scale.release()
        self._autoscale(name)
        scale.hold()

    def remove(self) -> None:
        """Remove the layers."""
        self.set_dimmed(False)
        self._class_legend.show(())
        remove_layers(self.viewer, self)

    def _set_level(self, name: MapName) -> None:
        """Show another level of a map."""
        layer, drawn, level = self.layers[name], self.maps.rasters[name], self._levels[name]
        values, cell = drawn.levels[level], drawn.cell * 2**level
        smooth = name == "output" and self.heat.sigma > 0 and not drawn.categories
        if smooth:
            values, cell = smooth_raster(drawn, self.heat.sigma)
        place = placement(self.image_layer, cell)
        layer.data = values
        layer.interpolation2d = "linear" if smooth else "nearest"
        layer.scale, layer.translate = place["scale"], place["translate"]
        self._autoscale(name)

    def _autoscale(self, name: MapName) -> None:
        drawn = self.maps.rasters[name]
        was_clipped = drawn.is_clipped
        drawn.autoscale(self._levels[name])
        self._follow_scale(name)
        if drawn.is_clipped != was_clipped:
            self.limits_changed.emit(name)

    def _follow_scale(self, name: MapName) -> None:
        """Bring contrast limits and colour scale together, whichever was moved."""
        layer, scale = self.layers[name], self.maps.rasters[name].scale
        limits = as_limits(layer.contrast_limits)
        if limits != self._shown_limits[name]:  # by the user, with napari's controls
            scale.hold(limits)
        elif limits != scale.limits:
            layer.contrast_limits_range = layer.contrast_limits = scale.limits
            limits = as_limits(layer.contrast_limits)
        else:
            return
        self._shown_limits[name] = limits
        if name == "output" and self.heat.threshold is not None:
            self._apply_style(name)  # its place on the scale has moved
        self.limits_changed.emit(name)

    def _apply_visibility(self) -> None:
        for name, layer in self.layers.items():
            visible = self._should_show(name) and (name != "patches" or self.maps.colours_patches)
            if visible and not layer.visible:
                layer.set_view_slice()
            set_layer_visible(layer, visible)
            self._show_legend(name)
        set_layer_visible(self.outlines.layer, self._should_show("patches"))
        if self.warp_grid is not None:
            set_layer_visible(self.warp_grid.layer, self._should_show("patches"))

    def _show_legend(self, name: MapName) -> None:
        """Show a map's legend on the image: a colour bar, or the names of classes."""
        layer, categories = self.layers[name], self.maps.rasters[name].categories
        shown = layer.visible and name in self._colour_bars
        layer.name_overlay.position = "bottom_right" if categories else layer.colorbar.position
        for overlay, visible in (
            (layer.colorbar, shown and not categories),
            (layer.name_overlay, shown),
        ):
            if overlay.visible != visible:
                overlay.visible = visible
        if name == "output":
            self._class_legend.show(categories if shown else (), self.maps.hidden_classes)

    def _should_show(self, name: MapName) -> bool:
        return self._visibility[name] and not self._hidden


def limits_of(layers: Mapping[MapName, Image]) -> dict[MapName, tuple[float, float]]:
    """Return the contrast limits of layers."""
    return {name: as_limits(layer.contrast_limits) for name, layer in layers.items()}


def as_limits(limits: Sequence[float]) -> tuple[float, float]:
    """Return contrast limits as a colour scale has them."""
    low, high = limits
    return float(low), float(high)


def layer_title(name: MapName, raster: PyramidRaster) -> str:
    """Return the name of a map's layer, with its unit."""
    if name == "patches":
        return f"patches: {raster.unit}"
    return name if raster.unit == name else f"{name}: {raster.unit}"


def layer_settings(
    name: MapName, raster: PyramidRaster, completion: Completion, over: Image
) -> dict[str, Any]:
    """Return the settings of a map's layer, which lies over an image's."""
    style = OVERLAY_STYLES[name]
    own = {"overlay": name, "over": over.unique_id, "unit": raster.unit}
    return {
        "name": layer_title(name, raster),
        "rgb": False,
        "multiscale": False,
        "colormap": map_colormap(name, raster),
        "contrast_limits": raster.limits,
        "opacity": style.opacity,
        "visible": style.visible,
        "interpolation2d": "nearest",
        "blending": "translucent_no_depth",
        "metadata": {METADATA_KEY: own | {"completion": completion}},
    }
