"""Styles of the overlays: perceptually uniform colormaps, safe for colour-blind users.

Invariant: low values are transparent, and lightness rises with the value in every colormap, so that
it also reads in grey.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hrviewer.app.maps.heat_map import HeatMap
from hrviewer.app.maps.raster import MapName, PyramidRaster
from hrviewer.io.geojson import class_colors

if TYPE_CHECKING:
    from napari.utils import Colormap

__all__ = ["OUTLINE_COLOUR", "OVERLAY_STYLES", "OverlayStyle", "map_colormap"]

OUTLINE_COLOUR = (0.0, 0.7, 1.0, 0.8)
"""Colour of outlines: a blue that stands out from stained tissue."""


@dataclass(frozen=True)
class OverlayStyle:
    """Style of one overlay.

    Parameters
    ----------
    title, tooltip : str
        Texts of the legend and its tooltip.
    colormap_name : str
        A uniform colour scale, by napari's name.
    colormap_start : float
        Beginning on that scale: its darkest part would resemble a shadow on the image.
    low_alpha, high_alpha : float
        Opacity at both ends: a prediction of nothing is nearly transparent.
    opacity : float
        Of the layer, at first.
    visible : bool
        Whether it is visible at first.
    """

    title: str
    tooltip: str
    colormap_name: str
    colormap_start: float
    low_alpha: float
    high_alpha: float
    opacity: float
    visible: bool

    @property
    def colormap(self) -> Colormap:
        """The scale as napari's colormap."""
        return _colormap(self.colormap_name, self.colormap_start, self.low_alpha, self.high_alpha)

    def gradient(self, n: int = 64) -> NDArray[np.float32]:
        """Return `n` RGBA colours from the scale's low to its high end."""
        return np.asarray(self.colormap.map(np.linspace(0, 1, n)), np.float32)


@cache
def _colormap(
    colormap_name: str,
    start: float,
    low: float,
    high: float,
    hidden: float = 0.0,
    by_value: bool = True,
) -> Colormap:
    """Return a scale whose part `hidden` from its low end is transparent."""
    from napari.utils import Colormap
    from napari.utils.colormaps import ensure_colormap

    steps = np.linspace(0, 1, 256)
    colours = np.array(ensure_colormap(colormap_name).map(start + (1 - start) * steps))
    # Half of the way up, a value is as good as opaque.
    colours[:, 3] = low + (high - low) * np.minimum(1, 2 * steps) if by_value else high
    colours[steps < hidden, 3] = 0
    name = colormap_name
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
    return _colormap(
        style.colormap_name,
        style.colormap_start,
        style.low_alpha,
        style.high_alpha,
        round(min(max(hidden, 0.0), 1.0), 3),
        heat.by_value,
    )


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
        "Output",
        "Predictions of the network, where there are any",
        "viridis",
        0.3,
        0.15,  # processed and nothing found is not the same as not processed
        1.0,
        0.85,
        True,
    ),
    "saliency": OverlayStyle(
        "Saliency", "Saliency used to select patches", "inferno", 0.1, 0.2, 1.0, 0.6, False
    ),
    "patches": OverlayStyle("Patches", "Processed patches", "magma", 0.1, 0.35, 0.5, 0.8, True),
    "cost": OverlayStyle(
        "Cost", "Cost of inference per pixel", "cividis", 0.0, 0.3, 1.0, 0.6, False
    ),
}
