"""Layer of the difference of two runs."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Image

from hrviewer.app.maps.raster import PyramidRaster
from hrviewer.viewer.image.geometry import METADATA_KEY, placement

if TYPE_CHECKING:
    from napari.utils import Colormap

__all__ = ["NEGATIVE_COLOUR", "POSITIVE_COLOUR", "difference_layer"]

NEGATIVE_COLOUR, POSITIVE_COLOUR = "#0072B2", "#D55E00"
"""Okabe's and Ito's blue and vermilion."""


def difference_layer(raster: PyramidRaster, image_layer: Image, name: str) -> Image:
    """Return a layer of a difference: transparent where there is none."""
    return Image(
        raster.values,
        name=name,
        colormap=diverging_colormap(),
        contrast_limits=raster.limits,
        opacity=0.9,
        interpolation2d="nearest",
        blending="translucent_no_depth",
        metadata={METADATA_KEY: {"overlay": "difference", "unit": raster.unit}},
        **placement(image_layer, raster.cell),
    )


@cache
def diverging_colormap() -> Colormap:
    """Return the scale from `NEGATIVE_COLOUR` over transparent to `POSITIVE_COLOUR`."""
    from napari.utils import Colormap

    steps = np.linspace(-1, 1, 257)
    ends = [
        [int(end[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        for end in (NEGATIVE_COLOUR, POSITIVE_COLOUR)
    ]
    colours = np.where(steps[:, None] < 0, ends[0], ends[1])
    alpha = np.minimum(1, 1.6 * np.abs(steps))[:, None]
    return Colormap(np.hstack([colours, alpha]), name="hrviewer-difference")
