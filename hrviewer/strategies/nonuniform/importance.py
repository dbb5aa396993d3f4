"""Importance maps, from which pixels are allocated and warps are made."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hrviewer.geometry import Grid, Rect
from hrviewer.strategies.protocol import ModelInfo, PatchResult

__all__ = ["ImportanceMap", "kernel_density", "prior_importance", "scout_importance"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ImportanceMap:
    """A map of importance over a region.

    Parameters
    ----------
    region : Rect
        Extent of the map, level-0 pixels.
    cell : int
        Side of its cells, level-0 pixels; the last ones may extend beyond the region.
    values : ndarray of float, shape (rows, columns)
        Not less than 0; as the allocation takes them, 1 is the maximum of the whole region.
    """

    region: Rect
    cell: int
    values: Floats

    @property
    def areas(self) -> Floats:
        """Level-0 pixels of the region in each cell."""
        sides = (
            np.diff(np.minimum(np.arange(n + 1) * self.cell, length))
            for n, length in zip(self.values.shape, (self.region.h, self.region.w), strict=True)
        )
        return np.asarray(np.outer(*sides), float)

    def scaled(self, top: float, contrast: float) -> ImportanceMap:
        """Return the map relative to `top`, to the power of a contrast.

        The same everywhere if nothing is important.
        """
        if not math.isfinite(top) or top <= 0:
            return replace(self, values=np.ones_like(self.values))
        return replace(self, values=(self.values / top) ** contrast)

    @property
    def rect(self) -> Rect:
        """Extent of the cells, including those beyond the region."""
        rows, columns = self.values.shape
        return Rect(self.region.y, self.region.x, rows * self.cell, columns * self.cell)


def scout_importance(
    model: ModelInfo, results: Sequence[PatchResult], region: Rect, cell: int
) -> ImportanceMap:
    """Return the importance that follows from a scout's predictions, not normalized.

    The importance of a density is the standard deviation of its count: the allocation that
    minimizes the error of the total is proportional to it (Neyman 1934). Without predicted
    variances, errors are assumed to be Poisson, with the variance equal to the mean. Any other map
    is used as it is.

    Parameters
    ----------
    model : ModelInfo
        The scout.
    results : sequence of PatchResult
        Its results; failed ones leave a gap.
    region : Rect
        Extent of the map.
    cell : int
        Side of its cells, level-0 pixels.
    """
    shape = Grid(region, cell).shape
    total, weight = np.zeros(shape), np.zeros(shape)
    additive = model.card.counts
    for result in results:
        if not np.isfinite(result.value).all():
            continue
        values = np.nan_to_num(result.map.astype(np.float64), nan=0.0)  # where there are no data
        classes = max(1, len(model.card.classes))
        if model.card.output.variance:
            values = values[classes : 2 * classes]
        elif model.card.task in ("segmentation", "classification") and len(values) > 1:
            values = values[1:]  # a background comes first
        y, x, h, w = result.box
        rows, columns = values.shape[1:]
        i = (y + (np.arange(rows) + 0.5) * h / rows - region.y) // cell
        j = (x + (np.arange(columns) + 0.5) * w / columns - region.x) // cell
        cells = np.ix_(
            np.clip(i, 0, shape[0] - 1).astype(int), np.clip(j, 0, shape[1] - 1).astype(int)
        )
        np.add.at(total, cells, np.maximum(values.sum(axis=0), 0))
        np.add.at(weight, cells, h * w / (rows * columns) if additive else 1.0)
    mean = total / np.maximum(weight, 1e-12)
    return ImportanceMap(region, cell, np.sqrt(mean) if additive else mean)


def prior_importance(
    prior: NDArray[np.floating], image: Rect, region: Rect, cell: int
) -> ImportanceMap:
    """Return the importance given by a prior map of the whole image, ``(rows, columns)``."""
    from scipy.ndimage import map_coordinates  # slow to import, and every command loads this

    values = np.maximum(np.nan_to_num(np.asarray(prior, np.float64)), 0)
    rows, columns = Grid(region, cell).shape
    y = (region.y + (np.arange(rows) + 0.5) * cell) / image.h * values.shape[0] - 0.5
    x = (region.x + (np.arange(columns) + 0.5) * cell) / image.w * values.shape[1] - 0.5
    cells = np.meshgrid(y, x, indexing="ij")
    return ImportanceMap(
        region, cell, normalize(map_coordinates(values, cells, order=1, mode="nearest"))
    )


def kernel_density(importance: ImportanceMap, bandwidth: float) -> ImportanceMap:
    """Return a kernel density estimate of earlier predictions, as in FOVEA.

    Parameters
    ----------
    importance : ImportanceMap
        Map of earlier predictions.
    bandwidth : float
        Standard deviation of the Gaussian, level-0 pixels.
    """
    from scipy.ndimage import gaussian_filter  # slow to import, and every command loads this

    values = gaussian_filter(importance.values, bandwidth / importance.cell, mode="nearest")
    return ImportanceMap(importance.region, importance.cell, normalize(values))


def normalize(values: Floats) -> Floats:
    """Scale the maximum to 1; a map of zeros becomes a map of ones."""
    top = float(values.max(initial=0.0))
    if not math.isfinite(top) or top <= 0:
        return np.ones_like(values)
    return np.clip(values / top, 0, 1)
