"""Colours of the maps, the same in the window and in figures.

Invariant: low values are transparent, and lightness rises with the value in every scale, so that it
also reads in grey; all are safe for colour-blind users.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["MAP_STYLES", "MapStyle"]


@dataclass(frozen=True)
class MapStyle:
    """Colours of one map.

    Parameters
    ----------
    colormap_name : str
        A uniform colour scale, by matplotlib's and napari's name.
    colormap_start : float
        Beginning on that scale: its darkest part would resemble a shadow on the image.
    low_alpha, high_alpha : float
        Opacity at both ends: a prediction of nothing is nearly transparent.
    opacity : float
        Of the whole map over an image.
    """

    colormap_name: str
    colormap_start: float
    low_alpha: float
    high_alpha: float
    opacity: float

    def colors(
        self, colormap: Callable[[NDArray[np.float64]], Any], n: int = 256
    ) -> NDArray[np.float64]:
        """Return RGBA of 0 to 1, ``(n, 4)``, from the low to the high end.

        Parameters
        ----------
        colormap : callable
            Returns the colours at places of 0 to 1 on the scale that the style names.
        n : int
            Number of colours.
        """
        steps = np.linspace(0, 1, n)
        start = self.colormap_start
        colors = np.array(colormap(start + (1 - start) * steps), np.float64)
        # Half of the way up, a value is as good as opaque.
        span = self.high_alpha - self.low_alpha
        colors[:, 3] = self.low_alpha + span * np.minimum(1, 2 * steps)
        return colors


MAP_STYLES = {
    # Processed and nothing found is not the same as not processed.
    "output": MapStyle("viridis", 0.3, 0.15, 1.0, 0.85),
    "saliency": MapStyle("inferno", 0.1, 0.2, 1.0, 0.6),
    "patches": MapStyle("magma", 0.1, 0.35, 0.5, 0.8),
    "cost": MapStyle("cividis", 0.0, 0.3, 1.0, 0.6),
}
