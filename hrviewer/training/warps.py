"""Random scales and warps of training crops, as `uniform` and `nonuniform` make them.

A warp gives each row and each column of a crop its own width in the source, so that it is
separable, as FOVEA's is (Thavamani et al., ICCV 2021): pixels are area means, as the pyramid's,
and every object keeps its mass exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtr
from torch import Tensor

from hrviewer.ground_truth import GroundTruth
from hrviewer.pyramid.resample import area_weights

__all__ = ["SCALES", "Warp", "mass_between", "random_warp", "warp_pixels"]

SCALES = (1.0, 8.0)
"""Range of the reductions, per side; their logarithms are uniform."""
STRETCH = 0.12
"""Standard deviation of the logarithm of the ratio between the scales of the two axes."""
BEND = 0.7
"""Largest logarithm of the local scale over the crop's, along an axis, of a warp that bends."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Warp:
    """Bounds of a crop's rows and columns in the source, ascending from 0.

    Attributes
    ----------
    rows, columns
        ``(h + 1,)`` and ``(w + 1,)`` bounds, in source pixels.
    """

    rows: Floats
    columns: Floats

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of the source, in whole pixels."""
        return int(np.ceil(self.rows[-1])), int(np.ceil(self.columns[-1]))

    @property
    def finest(self) -> float:
        """Source pixels per pixel where the warp is finest."""
        return float(min(np.diff(self.rows).min(), np.diff(self.columns).min()))

    def limited(self, height: float, width: float) -> Warp:
        """Return the warp, shrunk as far as the source is smaller than it."""
        rows, columns = (
            # At most the length: the product may round above it.
            np.minimum(bounds * min(1.0, length / bounds[-1]), length)
            for bounds, length in ((self.rows, height), (self.columns, width))
        )
        return Warp(rows, columns)


def random_warp(
    rng: np.random.Generator,
    side: int,
    scales: tuple[float, float] = SCALES,
    bent: float = 0.3,
) -> Warp:
    """Return a random warp of a square crop.

    Parameters
    ----------
    rng
        Random generator.
    side
        Side of the crop, in pixels.
    scales
        Range of the mean reduction per side, drawn uniformly in its logarithm.
    bent
        Fraction of the warps whose scale varies along the axes, as a saliency warp's does.
    """
    scale = np.exp(rng.uniform(*np.log(scales)))
    stretch = np.exp(rng.normal(0, STRETCH) / 2)
    bends = rng.random() < bent
    at = np.linspace(-1, 1, side)
    bounds = []
    for axis_scale in (scale * stretch, scale / stretch):
        width = np.full(side, max(axis_scale, scales[0]))
        if bends:
            # Finest around a random centre: exp of a bump, with the mean scale kept.
            centre, spread = rng.uniform(-1, 1), rng.uniform(0.25, 0.8)
            bump = np.exp(-(((at - centre) / spread) ** 2))
            width = width * np.exp(-rng.uniform(0, BEND) * (bump - bump.mean()))
        bounds.append(np.concatenate([[0.0], np.cumsum(width)]))
    return Warp(*bounds)


def warp_pixels(pixels: NDArray[Any], warp: Warp, scale: float = 1.0) -> Tensor:
    """Return the area means of pixels ``(h, w, c)`` under a warp, ``(c, rows, columns)``.

    Parameters
    ----------
    pixels
        The source at `scale` source pixels per pixel.
    warp
        Its bounds lie within the source.
    scale
        Reduction of `pixels`.

    Returns
    -------
    Tensor
        float32, in the range of the pixels.
    """
    h, w, channels = pixels.shape
    rows, columns = (
        area_weights(np.minimum(bounds / scale, length), 0, length)
        for bounds, length in ((warp.rows, h), (warp.columns, w))
    )
    flat = rows @ pixels.reshape(h, w * channels).astype(np.float64)
    turned = flat.reshape(-1, w, channels).transpose(1, 0, 2).reshape(w, -1)
    means = (columns @ turned).reshape(columns.shape[0], -1, channels)
    area = np.asarray(columns.sum(axis=1))[:, None] * np.asarray(rows.sum(axis=1))[None]
    return torch.from_numpy((means / area[..., None]).transpose(2, 1, 0)).float().contiguous()


def mass_between(
    truth: GroundTruth, rows: Floats, columns: Floats, relative_spread: float = 0.15
) -> Tensor:
    """Return each cell's share of the objects, Gaussians of mass 1 around their points.

    Parameters
    ----------
    truth
        Objects in the cells and around them.
    rows, columns
        Bounds of the cells, ascending, in the pixels of the points.
    relative_spread
        Standard deviation over the shorter side of an object's box; at least half a mean cell.

    Returns
    -------
    Tensor
        ``(k, rows, columns)``, float32.
    """
    finite = [bounds[np.isfinite(bounds)] for bounds in (rows, columns)]
    cell = max(float(np.diff(bounds).mean()) for bounds in finite)
    spread = np.full(len(truth), cell / 2)
    if truth.boxes is not None:
        spread = np.maximum(spread, relative_spread * truth.boxes[:, 2:].min(axis=1))

    def along(centers: Floats, bounds: Floats) -> Floats:
        return np.diff(ndtr((bounds - centers[:, None]) / spread[:, None]), axis=1)

    y, x = along(truth.points[:, 0], rows), along(truth.points[:, 1], columns)
    maps = [
        y[truth.class_ids == class_id].T @ x[truth.class_ids == class_id]
        for class_id in range(len(truth.classes))
    ]
    return torch.from_numpy(np.stack(maps)).float()
