"""Two to four runs side by side, in napari's grid: one camera, so what moves moves everywhere.

napari's grid takes layers by groups of equal size, counted from the top of the list where its
stride is negative, and leaves out groups that are hidden. So each run has a group of its own
(the image once more, one of its maps, the truth) above all other layers, which are hidden and
come back in the end; the groups' order is reversed, for the topmost is drawn first.

Invariants: adding a layer takes a while, so one is added with each `tick`; a layer that somebody
adds meanwhile is put below, out of sight, and is shown when the grid ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Layer, Points

from hrviewer.app.maps.result_maps import Map, MapName, Picture
from hrviewer.viewer.image.geometry import screen_pixel
from hrviewer.viewer.image.image_layer import KEY, image_layer, placement, pyramid_of
from hrviewer.viewer.layers.layer_list import keep_selection, take_away
from hrviewer.viewer.layers.overlays import FINEST, settings
from hrviewer.viewer.layers.styles import STYLES

if TYPE_CHECKING:
    from napari.components import ViewerModel

__all__ = ["MOST", "Side"]

MOST = 4
GAP = 3
"""Between the pictures, in screen pixels."""


@dataclass(eq=False)
class Group:
    """One run's layers, from the lowest."""

    picture: Picture
    image: Image
    drawn: Image
    truth: Points
    level: int = 0

    def __iter__(self) -> Iterator[Layer]:
        return iter((self.image, self.drawn, self.truth))


class Side:
    """Runs side by side.

    Parameters
    ----------
    viewer : ViewerModel
        Where.
    base : Image
        The image.
    shown : sequence of (str, Picture)
        Names and maps of two to four runs.
    name : MapName
        Which map is shown.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        base: Image,
        shown: Sequence[tuple[str, Picture]],
        name: MapName = "output",
    ) -> None:
        self.viewer, self.base, self.name = viewer, base, name
        self.groups = [self._group(title, picture) for title, picture in shown]
        self._left = [layer for group in reversed(self.groups) for layer in group]
        self._ours = list(self._left)
        self._hidden = [layer for layer in viewer.layers if layer.visible]
        grid, camera = viewer.canvas.grid, viewer.scene.camera
        self._before = grid.enabled, grid.stride, grid.shape, grid.spacing
        self._view = camera.center, camera.zoom
        self.points: Points | None = None
        self._mirrored: Any = None
        self.ready = False
        viewer.layers.events.inserted.connect(self._on_inserted)

    def tick(self) -> bool:
        """Go on building; return whether all is there."""
        if self._left:
            layer = self._left.pop(0)
            with keep_selection(self.viewer):
                self.viewer.add_layer(layer)
        elif not self.ready:
            self._begin()
        else:
            self._follow()
        return self.ready

    def choose(self, name: MapName) -> None:
        """Show another map of each run."""
        self.name = name
        for group in self.groups:
            drawn = group.picture.maps[name]
            group.drawn.data = drawn.levels[0]
            group.level = -1
            group.drawn.colormap = STYLES[name].colormap
            group.drawn.opacity = STYLES[name].opacity
        if self.ready:
            self._follow()

    def mirror(self, points: Points | None) -> None:
        """Show the truth in every picture as this layer has it, or no more."""
        self.points, self._mirrored = points, None
        for group in self.groups:
            group.truth.visible = self.ready and points is not None

    def end(self) -> None:
        """Bring back what was there before."""
        viewer = self.viewer
        viewer.layers.events.inserted.disconnect(self._on_inserted)
        grid = viewer.canvas.grid
        grid.enabled, grid.stride, grid.shape, grid.spacing = self._before
        self._left.clear()
        take_away(viewer, self._ours)
        for layer in self._hidden:
            if layer in viewer.layers:
                layer.visible = True
        viewer.scene.camera.center, viewer.scene.camera.zoom = self._view

    def _group(self, title: str, picture: Picture) -> Group:
        drawn = picture.maps[self.name]
        style = settings(self.name, drawn, picture.course) | {
            "name": f"{title}: {self.name}",
            "visible": False,
        }
        layer = Image(drawn.values, **style, **placement(self.base, drawn.cell))
        truth = Points(
            np.zeros((0, 2)),
            name=f"{title}: truth",
            visible=False,
            metadata={KEY: {"overlay": "truth"}},
            **placement(self.base, 1.0),
        )
        return Group(picture, again(self.base, title), layer, truth)

    def _limits(self) -> tuple[float, float]:
        """Return what the ends of the colours stand for: the same for all runs.

        The middle one of their own: the largest would leave the others' pictures empty.
        """
        maps: list[Map] = [group.picture.maps[self.name] for group in self.groups]
        ends = sorted(m.limits[1] for m in maps)
        return min(m.limits[0] for m in maps), ends[(len(ends) - 1) // 2]

    def _begin(self) -> None:
        viewer, grid = self.viewer, self.viewer.canvas.grid
        for layer in self._hidden:
            layer.visible = False
        grid.stride, grid.shape, grid.spacing = -len(list(self.groups[0])), (-1, -1), GAP
        for group in self.groups:
            group.image.visible = group.drawn.visible = True
        grid.enabled = True
        self.ready = True
        self.choose(self.name)
        self.mirror(self.points)
        viewer.fit_to_view(layers=[self.groups[0].image])

    def _follow(self) -> None:
        """Draw maps as coarse as the screen is; bring the truth up to date."""
        pixel = screen_pixel(self.viewer, self.base)
        before = [group.level for group in self.groups]
        for group in self.groups:
            drawn = group.picture.maps[self.name]
            level = drawn.level_for(FINEST * pixel)
            if level != group.level:
                group.level = level
                drawn.stretch(level)
                place = placement(self.base, drawn.cell * 2**level)
                group.drawn.data = drawn.levels[level]
                group.drawn.scale, group.drawn.translate = place["scale"], place["translate"]
        if before != [group.level for group in self.groups]:
            limits = self._limits()
            for group in self.groups:
                group.drawn.contrast_limits_range = group.drawn.contrast_limits = limits
        points = self.points
        if points is not None and points.data is not self._mirrored:
            self._mirrored = points.data
            for group in self.groups:
                group.truth.data = points.data
                group.truth.symbol, group.truth.border_width = "ring", 0
                group.truth.face_color = points.current_face_color
                group.truth.selected_data = set()
        if points is not None and len(points.data):
            for group in self.groups:
                if group.truth.current_size != points.current_size:
                    group.truth.current_size = points.current_size
                    group.truth.size = points.current_size

    def _on_inserted(self, event: Any) -> None:
        layer, layers = event.value, self.viewer.layers
        if any(layer == ours for ours in self._ours):
            return
        above = [i for i, other in enumerate(layers) if other in self._ours]
        if above:
            layers.move(layers.index(layer), above[0])
        if layer.visible:
            self._hidden.append(layer)
            layer.visible = not self.ready


def again(base: Image, title: str) -> Image:
    """Return a second layer of the same image; its name stands in its corner."""
    kept = base.metadata.get(KEY, {}).get("pyramid")
    data, kind = base.data, {"multiscale": base.multiscale, "rgb": base.rgb}
    if kept is not None:
        # What is shown of ours belongs to one layer: another one asks for itself.
        data, about, _ = image_layer(pyramid_of(base), read=False)
        kind = {name: about[name] for name in ("multiscale", "rgb")}
    look = {} if base.rgb else {"colormap": base.colormap, "gamma": base.gamma}
    layer = Image(
        data,
        name=title,
        visible=False,
        contrast_limits=base.contrast_limits,
        metadata={KEY: {"overlay": "image"} | ({} if kept is None else {"pyramid": kept})},
        scale=base.scale,
        translate=base.translate,
        units=base.units,
        axis_labels=base.axis_labels,
        **kind,
        **look,
    )
    layer.name_overlay.visible = layer.name_overlay.box = True
    return layer
