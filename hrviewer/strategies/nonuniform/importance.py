"""How much each place deserves a close look: what the sampler and the shares are made from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hrviewer.geometry import Grid, Rect
from hrviewer.strategies.protocol import ModelInfo, PatchResult

__all__ = ["ImportanceMap", "kernel_density", "prior_importance", "scout_importance"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ImportanceMap:
    """A map of interest over a region.

    Parameters
    ----------
    region : Rect
        What it covers, level-0 pixels.
    cell : int
        Side of its cells; those at the far edges may hang over.
    values : ndarray of float, shape (rows, columns)
        At least 0, 1 at most.
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

    @property
    def rect(self) -> Rect:
        """What the cells cover, overhang and all."""
        rows, columns = self.values.shape
        return Rect(self.region.y, self.region.x, rows * self.cell, columns * self.cell)


def scout_importance(
    model: ModelInfo, results: Sequence[PatchResult], region: Rect, cell: int
) -> ImportanceMap:
    """Return the interest in what a scout saw.

    A density's interest is the spread of its count, the root of its variance: where pixels are
    shared so that the whole count's error is least, each place has its share in proportion to that
    (Neyman 1934). A scout that does not say how sure it is, is taken to err as a Poisson
    variable does, whose variance is its mean. Any other map is its own interest.

    Parameters
    ----------
    model : Role
        Who looked.
    results : sequence of Handle
        What it gave; failed looks leave a blank.
    region : Rect
        What the map is to cover.
    cell : int
        Side of its cells, level-0 pixels.
    """
    shape = Grid(region, cell).shape
    total, weight = np.zeros(shape), np.zeros(shape)
    additive = model.card.task in ("density", "detection")
    for handle in results:
        values = handle.map.astype(np.float64)
        if not np.isfinite(values).all():
            continue
        classes = max(1, len(model.card.classes))
        if model.card.output.variance:
            values = values[classes : 2 * classes]
        elif model.card.task in ("segmentation", "classification") and len(values) > 1:
            values = values[1:]  # a background comes first
        y, x, h, w = handle.box
        rows, columns = values.shape[1:]
        i = (y + (np.arange(rows) + 0.5) * h / rows - region.y) // cell
        j = (x + (np.arange(columns) + 0.5) * w / columns - region.x) // cell
        where = np.ix_(
            np.clip(i, 0, shape[0] - 1).astype(int), np.clip(j, 0, shape[1] - 1).astype(int)
        )
        np.add.at(total, where, np.maximum(values.sum(axis=0), 0))
        np.add.at(weight, where, h * w / (rows * columns) if additive else 1.0)
    mean = total / np.maximum(weight, 1e-12)
    return ImportanceMap(region, cell, normalize(np.sqrt(mean) if additive else mean))


def prior_importance(
    prior: NDArray[np.floating], image: Rect, region: Rect, cell: int
) -> ImportanceMap:
    """Return the interest that a person drew over the whole image, ``(rows, columns)``."""
    from scipy.ndimage import map_coordinates  # slow to import, and every command loads this

    values = np.maximum(np.nan_to_num(np.asarray(prior, np.float64)), 0)
    rows, columns = Grid(region, cell).shape
    y = (region.y + (np.arange(rows) + 0.5) * cell) / image.h * values.shape[0] - 0.5
    x = (region.x + (np.arange(columns) + 0.5) * cell) / image.w * values.shape[1] - 0.5
    where = np.meshgrid(y, x, indexing="ij")
    return ImportanceMap(
        region, cell, normalize(map_coordinates(values, where, order=1, mode="nearest"))
    )


def kernel_density(importance: ImportanceMap, bandwidth: float) -> ImportanceMap:
    """Return a kernel density estimate of what was seen before, as FOVEA's saliency is.

    Parameters
    ----------
    importance : Interest
        Where something was seen.
    bandwidth : float
        The Gaussian's standard deviation, level-0 pixels.
    """
    from scipy.ndimage import gaussian_filter  # slow to import, and every command loads this

    values = gaussian_filter(importance.values, bandwidth / importance.cell, mode="nearest")
    return ImportanceMap(importance.region, importance.cell, normalize(values))


def normalize(values: Floats) -> Floats:
    """Bring the greatest to 1; where nothing is of interest, everything is alike."""
    top = float(values.max(initial=0.0))
    if not math.isfinite(top) or top <= 0:
        return np.ones_like(values)
    return np.clip(values / top, 0, 1)
