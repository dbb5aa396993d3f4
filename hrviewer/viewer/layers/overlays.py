"""The maps of a run as layers on top of the image.

Invariants: every layer has the base layer's units, scale and place, whatever its own resolution;
limits of the colours are always explicit; one run after another is shown in the same layers;
`refresh` and `follow` are called on the window's thread, cost no more than a few milliseconds and
wait for nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.layers import Image, Layer
from psygnal import Signal

from hrviewer.app.maps.result_maps import MAPS, Course, Map, MapName, Picture
from hrviewer.geometry import Rect
from hrviewer.viewer.image.image_layer import KEY, lies_on, placement
from hrviewer.viewer.layers.attention_layers import Attending
from hrviewer.viewer.layers.embedding_layers import Coded
from hrviewer.viewer.layers.layer_list import keep_selection, take_away
from hrviewer.viewer.layers.patch_outlines import Outlines
from hrviewer.viewer.layers.styles import STYLES
from hrviewer.viewer.layers.warp_grid import Grids

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from napari.components import ViewerModel

__all__ = ["Overlays", "overlay_tuples"]

WIDEST = 1024
"""Cells along the longer side of a map that does not follow the view."""

FINEST = 3.0
"""Screen pixels per side of a drawn cell, at least: finer ones would flicker as the view moves."""


class Overlays:
    """Four overlays over one image.

    Parameters
    ----------
    viewer : ViewerModel
        Where they are shown.
    base : Image
        What they lie on.
    picture : Picture
        What they show.
    like : Overlays, optional
        Those before them, whose settings are kept, and whose layers are where they lie on the same
        image: napari takes seconds to let layers go and to make others.
    """

    limits_changed = Signal(str)
    """An overlay's colours mean something else now; its name."""

    def __init__(
        self,
        viewer: ViewerModel,
        base: Image,
        picture: Picture,
        *,
        like: Overlays | None = None,
    ) -> None:
        self.viewer, self.base, self.picture = viewer, base, picture
        self._shown: dict[MapName, bool] = {name: style.shown for name, style in STYLES.items()}
        self._crowded = self._hidden = False
        self._levels: dict[MapName, int] = dict.fromkeys(MAPS, 0)
        self.layers: dict[MapName, Image]
        self.outlines: Outlines
        self.grids: Grids | None = None
        self.coded: Coded | None = None
        self.attending: Attending | None = None
        if like is not None and like.base is base and like.in_place:
            self._take_over(like)
        else:
            self._add(like)
        if like is not None:
            self._shown = like._shown
        self._apply()

    def _add(self, like: Overlays | None) -> None:
        """Make layers, in place of those before them."""
        self.layers = {
            name: Image(
                drawn.values,
                **settings(name, drawn, self.picture.course),
                **placement(self.base, drawn.cell),
            )
            for name, drawn in self.picture.maps.items()
        }
        self.outlines = Outlines(self.base)
        if like is not None:
            like.remove()
            for name in MAPS:
                self.set_opacity(name, like.layers[name].opacity)
        # Below the outlines the maps, the most detailed last.
        with keep_selection(self.viewer):
            for name in ("cost", "saliency", "patches", "output"):
                self.viewer.add_layer(self.layers[name])
            self.viewer.add_layer(self.outlines.layer)

    def _take_over(self, like: Overlays) -> None:
        """Show another picture in the layers that are there."""
        self.layers, self.outlines = like.layers, like.outlines
        self.coded, self.attending = like.coded, like.attending
        if like.grids is not None:
            take_away(self.viewer, [like.grids.layer])
        for name, layer in self.layers.items():
            drawn = self.picture.maps[name]
            layer.metadata = settings(name, drawn, self.picture.course)["metadata"]
            layer.contrast_limits_range = layer.contrast_limits = drawn.limits
            self._swap(name)

    @property
    def in_place(self) -> bool:
        """Whether all layers are there, and where the image is."""
        return all(layer in self.viewer.layers for layer in self) and lies_on(
            self.outlines.layer, self.base
        )

    def __iter__(self) -> Iterator[Layer]:
        """All layers."""
        yield from self.layers.values()
        yield self.outlines.layer
        if self.grids is not None:
            yield self.grids.layer
        for companion in self._companions():
            yield from companion

    def _companions(self) -> list[Coded | Attending]:
        return [shown for shown in (self.coded, self.attending) if shown is not None]

    def refresh(self, *, hidden: bool = True) -> None:
        """Bring onto the screen what was drawn since the last time.

        Parameters
        ----------
        hidden : bool
            Whether the colours of what is not visible are kept up to date, too.
        """
        for name, layer in self.layers.items():
            drawn = self.picture.maps[name]
            if not drawn.changed or not (layer.visible or hidden):
                continue
            drawn.changed = False
            self._stretch(name)
            if layer.visible:
                layer.set_view_slice()
                layer.events.set_data()
        self._refresh_companions()

    def follow(self, view: Rect, pixel: float) -> None:
        """Outline what is visible, and draw maps as coarse as the screen is.

        Parameters
        ----------
        view : Rect
            What is visible, level-0 pixels.
        pixel : float
            A screen pixel's side, level-0 pixels.
        """
        for name, drawn in self.picture.maps.items():
            level = drawn.level_for(FINEST * pixel)
            if level != self._levels[name]:
                self._levels[name] = level
                self._swap(name)
        if not self._shown["patches"]:
            return
        self._draw_grids(view, pixel)
        few = self.outlines.draw(self.picture.record.patches, view, pixel)
        if few == self._crowded:
            self._crowded = not few
            self._apply()

    def _refresh_companions(self) -> None:
        """Bring codes and attention onto the screen; their layers come with the first of them."""
        codes, attention = self.picture.codes, self.picture.attention
        if codes is not (self.coded and self.coded.codes):
            new = None if codes is None else Coded(self.base, codes, self.coded)
            self._replace(self.coded, new)
            self.coded = new
        if attention is not (self.attending and self.attending.attention):
            fresh = None if attention is None else Attending(self.base, attention, self.attending)
            self._replace(self.attending, fresh)
            self.attending = fresh
        for companion in self._companions():
            companion.refresh()

    def _replace(self, shown: Iterable[Layer] | None, new: Iterable[Layer] | None) -> None:
        """Put layers in the place of others, below the maps."""
        with keep_selection(self.viewer):
            take_away(self.viewer, shown or ())
            for layer in new or ():
                self.viewer.layers.insert(self.viewer.layers.index(self.layers["cost"]), layer)

    def _draw_grids(self, view: Rect, pixel: float) -> None:
        """Draw the grids of warps; the layer comes with the first of them."""
        warps = self.picture.warps
        if self.grids is None and warps:
            self.grids = Grids(self.base)
            with keep_selection(self.viewer):
                self.viewer.add_layer(self.grids.layer)
        if self.grids is not None:
            self.grids.draw(warps, view, pixel)

    def show(self, name: MapName, shown: bool) -> None:
        """Show or hide an overlay."""
        self._shown[name] = shown
        self._apply()

    def hide(self, hidden: bool) -> None:
        """Take all of them out of sight for a while, or bring them back."""
        self._hidden = hidden
        self._apply()
        for companion in self._companions():
            companion.hide(hidden)

    def shown(self, name: MapName) -> bool:
        """Tell whether an overlay is shown."""
        return self._shown[name]

    def set_opacity(self, name: MapName, opacity: float) -> None:
        """Make an overlay more or less see-through."""
        self.layers[name].opacity = opacity
        if name == "patches":
            self.outlines.layer.opacity = opacity

    def remove(self) -> None:
        """Take the layers away."""
        take_away(self.viewer, self)

    def _swap(self, name: MapName) -> None:
        """Show another level of a map."""
        layer, drawn, level = self.layers[name], self.picture.maps[name], self._levels[name]
        place = placement(self.base, drawn.cell * 2**level)
        layer.data = drawn.levels[level]
        layer.scale, layer.translate = place["scale"], place["translate"]
        self._stretch(name)

    def _stretch(self, name: MapName) -> None:
        drawn, layer = self.picture.maps[name], self.layers[name]
        if drawn.stretch(self._levels[name]):
            layer.contrast_limits_range = layer.contrast_limits = drawn.limits
            self.limits_changed.emit(name)

    def _apply(self) -> None:
        for name, layer in self.layers.items():
            visible = self._seen(name) and (name != "patches" or self._crowded)
            if visible and not layer.visible:
                layer.set_view_slice()
            layer.visible = visible
        self.outlines.layer.visible = self._seen("patches") and not self._crowded
        if self.grids is not None:
            self.grids.layer.visible = self._seen("patches")

    def _seen(self, name: MapName) -> bool:
        return self._shown[name] and not self._hidden


def settings(name: MapName, drawn: Map, course: Course) -> dict[str, Any]:
    """Return how a map's layer looks."""
    style = STYLES[name]
    return {
        "name": "patches from afar" if name == "patches" else name,
        "rgb": False,
        "multiscale": False,
        "colormap": style.colormap,
        "contrast_limits": drawn.limits,
        "opacity": style.opacity,
        "visible": style.shown,
        "interpolation2d": "nearest",
        "blending": "translucent_no_depth",
        "metadata": {KEY: {"overlay": name, "unit": drawn.unit, "course": course}},
    }


def overlay_tuples(picture: Picture, base: Image) -> list[tuple[Any, dict[str, Any], str]]:
    """Return a picture as napari's layer tuples, for a reader.

    Nothing follows the view then: maps are drawn at a size that suits a whole image on a screen,
    and the raster of patches stands for their outlines.
    """
    tuples: list[tuple[Any, dict[str, Any], str]] = []
    for name in ("cost", "saliency", "patches", "output"):
        drawn = picture.maps[name]
        level = drawn.level_for(max(picture.image.h, picture.image.w) / WIDEST)
        drawn.stretch(level)
        place = placement(base, drawn.cell * 2**level)
        look = settings(name, drawn, picture.course) | {"visible": name == "output"}
        tuples.append((drawn.levels[level], look | place, "image"))
    return tuples
