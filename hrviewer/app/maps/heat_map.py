"""Heat map: the output smoothed over a distance, low values hidden."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hrviewer.app.maps.raster import PyramidRaster

__all__ = ["HeatMap", "smooth_raster"]

MAX_SIDE = 512
"""Cells of a smoothed map along its longer side, at most: it is drawn again as results arrive."""

CELLS_PER_SIGMA = 2.0
"""Cells per standard deviation from which a coarser level shows the same."""


@dataclass(frozen=True)
class HeatMap:
    """How the output is displayed.

    Parameters
    ----------
    sigma : float
        Standard deviation of the Gaussian that smooths it, level-0 pixels; 0 shows its cells.
    threshold : float, optional
        Values below are not displayed.
    by_value : bool
        Whether low values are more transparent than high ones.
    """

    sigma: float = 0.0
    threshold: float | None = None
    by_value: bool = True


def smooth_raster(raster: PyramidRaster, sigma: float) -> tuple[NDArray[np.float32], float]:
    """Return a raster smoothed by a Gaussian, and the side of its cells in level-0 pixels.

    Places without a prediction count for nothing, so that a constant stays constant beside them,
    and stay unknown: what was not processed is not filled in.

    Parameters
    ----------
    raster : PyramidRaster
        The map; the level that shows `sigma` with few cells is smoothed.
    sigma : float
        Standard deviation, level-0 pixels.
    """
    from scipy.ndimage import gaussian_filter

    level, last = 0, len(raster.levels) - 1
    while level < last and (
        max(raster.levels[level].shape) > MAX_SIDE
        or sigma >= CELLS_PER_SIGMA * raster.cell * 2 ** (level + 1)
    ):
        level += 1
    values, cell = raster.levels[level], raster.cell * 2**level
    known = np.isfinite(values)
    spread = sigma / cell
    weight = gaussian_filter(known.astype(np.float32), spread, mode="constant")
    total = gaussian_filter(np.where(known, values, np.float32(0)), spread, mode="constant")
    smooth = np.where(known, total / np.maximum(weight, np.finfo(np.float32).tiny), np.nan)
    return smooth.astype(np.float32), cell
