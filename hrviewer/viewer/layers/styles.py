"""Styles of the overlays: titles, and the colours of the maps as colormaps of napari."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hrviewer.app.maps.heat_map import HeatMap
from hrviewer.app.maps.raster import MapName, PyramidRaster
from hrviewer.io.figures.map_styles import MAP_STYLES, MapStyle
from hrviewer.io.geojson import class_colors

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari.components import ViewerModel
    from napari.layers import Image
    from napari.utils import Colormap

__all__ = [
    "OUTLINE_COLOUR",
    "OVERLAY_STYLES",
    "OverlayStyle",
    "fit_colour_bars",
    "map_colormap",
]

OUTLINE_COLOUR = (0.0, 0.7, 1.0, 0.8)
"""Colour of outlines: a blue that stands out from stained tissue."""

BAR_SHARE, BAR_HEIGHTS = 0.11, (60, 150)
"""Height of a colour bar on the canvas as a part of the canvas's, and its range in pixels."""


@dataclass(frozen=True)
class OverlayStyle:
    """Style of one overlay.

    Parameters
    ----------
    title, tooltip : str
        Texts of the legend and its tooltip.
    style : MapStyle
        Its colours.
    visible : bool
        Whether it is visible at first.
    """

    title: str
    tooltip: str
    style: MapStyle
    visible: bool

    @property
    def opacity(self) -> float:
        """Opacity of the layer, at first."""
        return self.style.opacity

    @property
    def colormap(self) -> Colormap:
        """The scale as napari's colormap."""
        return _colormap(self.style)

    def gradient(self, n: int = 64) -> NDArray[np.float32]:
        """Return `n` RGBA colours from the scale's low to its high end."""
        return np.asarray(self.colormap.map(np.linspace(0, 1, n)), np.float32)


@cache
def _colormap(style: MapStyle, hidden: float = 0.0, by_value: bool = True) -> Colormap:
    """Return a scale whose part `hidden` from its low end is transparent."""
    from napari.utils import Colormap
    from napari.utils.colormaps import ensure_colormap

    name = style.colormap_name
    colours = style.colors(ensure_colormap(name).map)
    if not by_value:
        colours[:, 3] = style.high_alpha
    colours[np.linspace(0, 1, len(colours)) < hidden, 3] = 0
    if hidden or not by_value:
        name += f" from {hidden:.3f}" + ("" if by_value else ", opaque")
    return Colormap(colours, name=f"hrviewer-{name}", display_name=f"hrviewer {name}")


def map_colormap(name: MapName, raster: PyramidRaster, heat: HeatMap | None = None) -> Colormap:
    """Return the colormap of a map: that of its style, or one colour for each class.

    `heat` hides the low values of the output.
    """
    if raster.categories:
        return category_colormap(raster.categories)
    style = OVERLAY_STYLES[name]
    if name != "output" or heat is None:
        return style.colormap
    (low, high), threshold = raster.limits, heat.threshold
    hidden = 0.0 if threshold is None else (threshold - low) / ((high - low) or 1.0)
    return _colormap(style.style, round(min(max(hidden, 0.0), 1.0), 3), heat.by_value)


@cache
def category_colormap(classes: tuple[str, ...]) -> Colormap:
    """Return a colormap of classes, whose values are their numbers plus a half."""
    from napari.utils import Colormap

    colours = np.ones((len(classes), 4))
    colours[:, :3] = np.array(class_colors(classes)) / 255
    return Colormap(
        colours,
        interpolation="zero",
        controls=np.linspace(0, 1, len(classes) + 1),
        name=f"hrviewer classes {'/'.join(classes)}",
        display_name="hrviewer classes",
    )


OVERLAY_STYLES: dict[MapName, OverlayStyle] = {
    "output": OverlayStyle(
        "Output", "Predictions of the network, where there are any", MAP_STYLES["output"], True
    ),
    "saliency": OverlayStyle(
        "Saliency", "Saliency used to select patches", MAP_STYLES["saliency"], False
    ),
    "patches": OverlayStyle("Patches", "Processed patches", MAP_STYLES["patches"], True),
    "cost": OverlayStyle("Cost", "Cost of inference per pixel", MAP_STYLES["cost"], False),
}


def fit_colour_bars(viewer: ViewerModel, layers: Iterable[Image]) -> None:
    """Make colour bars as high as there is room for: they hide what is below them."""
    low, high = BAR_HEIGHTS
    height = float(round(min(max(BAR_SHARE * viewer.canvas.size[0], low), high)))
    for layer in layers:
        width = layer.colorbar.size[0]
        if layer.colorbar.size != (width, height):
            layer.colorbar.size = (width, height)
