"""Sampling a rectangle through a non-uniform grid, and taking the answer back.

The canvas's nodes say where in the rectangle they look (see `strategies.Warp`). Sampling reads,
for every canvas pixel, the pyramid level that fits its local magnification. Un-warping sends each
output cell's mass back to where it was sampled, so sums are kept.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from hrviewer.engine.canvas import Kind
from hrviewer.geometry import Rect, snap_scale
from hrviewer.pyramid import Meter, Pyramid

__all__ = ["sample", "spread", "unwarp"]

SUBSAMPLES = 48


def positions(grid: NDArray[np.float64], at: NDArray[Any], bt: NDArray[Any]) -> NDArray[np.float64]:
    """Return where in 0..1 the canvas looks at rows `at` and columns `bt` (both in 0..1)."""
    g = grid.shape[0] - 1
    where = np.meshgrid(at * g, bt * g, indexing="ij")
    return np.stack([map_coordinates(grid[..., i], where, order=1) for i in range(2)])


def sample(
    pyramid: Pyramid,
    rect: Rect,
    grid: NDArray[np.float64],
    shape: tuple[int, int],
    meter: Meter | None = None,
) -> NDArray[Any]:
    """Return the warped picture, ``shape + (c,)``, in the image's range as float32."""
    h, w = shape
    y, x = positions(grid, (np.arange(h) + 0.5) / h, (np.arange(w) + 0.5) / w)
    edges_y = positions(grid, np.arange(h + 1) / h, (np.arange(w) + 0.5) / w)[0]
    edges_x = positions(grid, (np.arange(h) + 0.5) / h, np.arange(w + 1) / w)[1]
    local = np.maximum(np.diff(edges_y, axis=0) * rect.h, np.diff(edges_x, axis=1) * rect.w)
    finest = snap_scale(max(1.0, float(local.min())))
    octave = np.clip(np.round(np.log2(np.maximum(local, finest) / finest)), 0, None).astype(int)
    out: NDArray[Any] | None = None
    for level in range(int(octave.max()) + 1):
        here = octave == level
        if not here.any():
            continue
        scale = finest * 2**level
        # Only the part of the rectangle that this octave needs.
        ys, xs = y[here] * rect.h, x[here] * rect.w
        margin = math.ceil(2 * scale)
        top, left = int(ys.min()) - margin, int(xs.min()) - margin
        part = Rect(
            rect.y + top,
            rect.x + left,
            int(ys.max()) + margin + 1 - top,
            int(xs.max()) + margin + 1 - left,
        )
        clipped = part & rect & pyramid.rect
        picture = pyramid.read(clipped, scale, meter=meter).astype(np.float32)
        if out is None:
            out = np.zeros((h, w, picture.shape[2]), np.float32)
        at = [
            (rect.y + ys - clipped.y) / scale - 0.5,
            (rect.x + xs - clipped.x) / scale - 0.5,
        ]
        for c in range(picture.shape[2]):
            out[here, c] = map_coordinates(picture[..., c], at, order=1, mode="nearest")
    assert out is not None
    return out


def _splat(
    grid: NDArray[np.float64], cells: tuple[int, int], shape: tuple[int, int]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return, for sub-samples of the canvas's cells, the source cell and the target pixel."""
    rows, columns = cells
    fine_y = min(SUBSAMPLES, 2 + math.ceil(4 * shape[0] / rows))
    fine_x = min(SUBSAMPLES, 2 + math.ceil(4 * shape[1] / columns))
    at = (np.arange(rows * fine_y) + 0.5) / (rows * fine_y)
    bt = (np.arange(columns * fine_x) + 0.5) / (columns * fine_x)
    y, x = positions(grid, at, bt)
    target = np.clip((y * shape[0]).astype(np.intp), 0, shape[0] - 1) * shape[1] + np.clip(
        (x * shape[1]).astype(np.intp), 0, shape[1] - 1
    )
    i, j = np.meshgrid(
        np.arange(rows * fine_y) // fine_y, np.arange(columns * fine_x) // fine_x, indexing="ij"
    )
    return (i * columns + j).ravel(), target.ravel()


def unwarp(
    values: NDArray[np.floating[Any]], grid: NDArray[np.float64], shape: tuple[int, int], kind: Kind
) -> NDArray[np.float32]:
    """Take a map on the canvas back to the rectangle.

    Parameters
    ----------
    values : ndarray, shape (k, rows, columns)
        The network's output on the canvas.
    grid : ndarray, shape (g, g, 2)
        The warp.
    shape : tuple of int
        Rows and columns to cut the rectangle into.
    kind : {"mass", "intensity"}
        What is kept: the sum or the mean.

    Returns
    -------
    ndarray of float32, shape (k,) + shape
        NaN where no sample fell, for intensities.
    """
    cells = values.shape[1:]
    source, target = _splat(grid, (cells[0], cells[1]), shape)
    size = shape[0] * shape[1]
    per_cell = len(source) // (cells[0] * cells[1])
    flat = values.reshape(len(values), -1).astype(np.float64)
    out = np.stack([np.bincount(target, plane[source], size).astype(np.float64) for plane in flat])
    if kind == "mass":
        out /= per_cell
    else:
        with np.errstate(invalid="ignore"):
            out /= np.bincount(target, minlength=size)
    return out.reshape(len(values), *shape).astype(np.float32)


def spread(grid: NDArray[np.float64], side: int = 64) -> NDArray[np.float64]:
    """Return which share of the samples fell where, ``(side, side)``, summing to 1."""
    source, target = _splat(grid, (side, side), (side, side))
    return np.bincount(target, minlength=side * side).reshape(side, side) / len(source)
