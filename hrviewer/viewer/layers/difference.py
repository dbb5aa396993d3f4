"""What one run said more than another, as a layer."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Image
from numpy.typing import NDArray

from hrviewer.app.maps.result_maps import PyramidRaster, ResultMaps
from hrviewer.units import nice_ceiling
from hrviewer.viewer.image.image_layer import METADATA_KEY, placement

if TYPE_CHECKING:
    from napari.utils import Colormap

__all__ = ["NEGATIVE_COLOUR", "POSITIVE_COLOUR", "difference_layer", "subtract_maps"]

MAX_CELLS = 128
"""Along the image's longer side: finer ones would show where, to the pixel, both put the same."""
NEGATIVE_COLOUR, POSITIVE_COLOUR = "#0072B2", "#D55E00"
"""Okabe's and Ito's blue and vermilion."""


def subtract_maps(a: ResultMaps, b: ResultMaps) -> PyramidRaster:
    """Return what `a` said more than `b`, where both looked.

    Parameters
    ----------
    a, b : Picture
        Of the same image.

    Returns
    -------
    Map
        One level; its limits are symmetric.
    """
    side = max(a.image.h, a.image.w) / MAX_CELLS
    one, two = a.rasters["output"], b.rasters["output"]
    levels = one.level_for(side), two.level_for(side)
    cells = one.cell * 2 ** levels[0], two.cell * 2 ** levels[1]
    parts = one.levels[levels[0]], two.levels[levels[1]]
    cell = max(cells)
    coarser = parts[cells.index(cell)]
    said, told = (
        resample(values, own, coarser.shape, cell) for values, own in zip(parts, cells, strict=True)
    )
    off = np.asarray(said - told, np.float32)
    seen = np.abs(off[np.isfinite(off)])
    top = nice_ceiling(float(np.percentile(seen, 99.5))) if seen.any() else 1.0
    return PyramidRaster([off], cell, one.unit, (-top, top), fixed_limits=True)


def resample(
    values: NDArray[np.float32], source_cell: float, shape: tuple[int, ...], cell: float
) -> NDArray[np.float32]:
    """Return a map at the centres of the cells of another one."""
    where = [
        np.minimum(((np.arange(n) + 0.5) * cell / source_cell).astype(np.intp), m - 1)
        for n, m in zip(shape, values.shape, strict=True)
    ]
    return values[np.ix_(*where)]


def difference_layer(raster: PyramidRaster, image_layer: Image, name: str) -> Image:
    """Return a layer of a difference: clear where there is none."""
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
    """Return the scale from `LESS` over nothing to `MORE`."""
    from napari.utils import Colormap

    steps = np.linspace(-1, 1, 257)
    ends = [
        [int(end[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        for end in (NEGATIVE_COLOUR, POSITIVE_COLOUR)
    ]
    colours = np.where(steps[:, None] < 0, ends[0], ends[1])
    alpha = np.minimum(1, 1.6 * np.abs(steps))[:, None]
    return Colormap(np.hstack([colours, alpha]), name="hrviewer-difference")
