"""Difference of two runs' output maps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hrviewer.app.maps.colour_scale import ColourScale
from hrviewer.app.maps.raster import PyramidRaster
from hrviewer.app.maps.result_maps import ResultMaps
from hrviewer.errors import RunError
from hrviewer.units import nice_ceiling

__all__ = ["subtract_maps"]

MAX_CELLS = 128
"""Cells along the longer side: finer ones would differ wherever objects are a pixel apart."""


def subtract_maps(a: ResultMaps, b: ResultMaps) -> PyramidRaster:
    """Return the output of `a` minus that of `b`, where both have predictions.

    Parameters
    ----------
    a, b : ResultMaps
        Maps of the same image.

    Returns
    -------
    PyramidRaster
        One level; its limits are symmetric. Of most likely classes 1 where they differ, else 0.

    Raises
    ------
    RunError
        If only one of them shows most likely classes, or they have others.
    """
    side = max(a.image.h, a.image.w) / MAX_CELLS
    one, two = a.rasters["output"], b.rasters["output"]
    if one.categories != two.categories:
        raise RunError("these runs have different classes: choose two of the same classes")
    levels = one.level_for(side), two.level_for(side)
    cells = one.cell * 2 ** levels[0], two.cell * 2 ** levels[1]
    parts = one.levels[levels[0]], two.levels[levels[1]]
    cell = max(cells)
    coarser = parts[cells.index(cell)]
    minuend, subtrahend = (
        resample(values, own, coarser.shape, cell) for values, own in zip(parts, cells, strict=True)
    )
    difference = np.asarray(minuend - subtrahend, np.float32)
    if one.categories:  # numbers of classes
        difference = np.where(np.isnan(difference), np.nan, difference != 0).astype(np.float32)
        return PyramidRaster(
            [difference], cell, "another class", ColourScale((-1.0, 1.0), held=True, fitted=True)
        )
    sizes = np.abs(difference[np.isfinite(difference)])
    top = nice_ceiling(float(np.percentile(sizes, 99.5))) if sizes.any() else 1.0
    scale = ColourScale((-top, top), held=True, fitted=True)
    return PyramidRaster([difference], cell, one.unit, scale)


def resample(
    values: NDArray[np.float32], source_cell: float, shape: tuple[int, ...], cell: float
) -> NDArray[np.float32]:
    """Return a map at the centres of the cells of another one."""
    where = [
        np.minimum(((np.arange(n) + 0.5) * cell / source_cell).astype(np.intp), m - 1)
        for n, m in zip(shape, values.shape, strict=True)
    ]
    return values[np.ix_(*where)]
