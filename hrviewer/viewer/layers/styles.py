"""The overlays' colours: perceptually uniform, and safe for colour-blind people.

Invariant: where there is little to see an overlay is see-through, and lightness rises with the
value in every scale, so that it also reads in grey.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hrviewer.app.maps.raster import MapName

if TYPE_CHECKING:
    from napari.utils import Colormap

__all__ = ["OUTLINE_COLOUR", "OVERLAY_STYLES", "OverlayStyle"]

OUTLINE_COLOUR = (0.0, 0.7, 1.0, 0.8)
"""Of a looked-at patch: a blue that stands out from stained tissue."""


@dataclass(frozen=True)
class OverlayStyle:
    """How one overlay looks.

    Parameters
    ----------
    title, tooltip : str
        The legend's words, and the tooltip's.
    colormap_name : str
        A uniform colour scale, by napari's name.
    colormap_start : float
        Where on that scale to begin: its darkest part would look like a shadow on the image.
    low_alpha, high_alpha : float
        Opacity at both ends: what was seen to be empty stays nearly clear.
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
def _colormap(colormap_name: str, start: float, low: float, high: float) -> Colormap:
    from napari.utils import Colormap
    from napari.utils.colormaps import ensure_colormap

    steps = np.linspace(0, 1, 256)
    colours = np.array(ensure_colormap(colormap_name).map(start + (1 - start) * steps))
    # Half of the way up, a value is as good as opaque.
    colours[:, 3] = low + (high - low) * np.minimum(1, 2 * steps)
    return Colormap(
        colours, name=f"hrviewer-{colormap_name}", display_name=f"hrviewer {colormap_name}"
    )


OVERLAY_STYLES: dict[MapName, OverlayStyle] = {
    "output": OverlayStyle(
        "Output",
        "What the network found, where it was looked at",
        "viridis",
        0.3,
        0.0,
        1.0,
        0.85,
        True,
    ),
    "saliency": OverlayStyle(
        "Saliency", "What the strategy found worth a look", "inferno", 0.1, 0.2, 1.0, 0.6, False
    ),
    "patches": OverlayStyle(
        "Patches", "Where was looked; the shade is the order", "magma", 0.1, 0.5, 0.9, 0.8, True
    ),
    "cost": OverlayStyle(
        "Cost", "What each pixel cost to look at", "cividis", 0.0, 0.3, 1.0, 0.6, False
    ),
}
