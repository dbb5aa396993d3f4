"""Sampling grids that magnify salient places, and the mapping through them and back.

A grid has ``g × g`` nodes, evenly spaced over the canvas with the corner nodes on its corners; its
values are sampling positions in the rectangle, ``(y, x)`` in 0..1. Between nodes it is bilinear.

The sampler follows Recasens et al., *Learning to Zoom* (ECCV 2018): each node is attracted by the
saliency around it with a Gaussian kernel,

    u(x) = Σ S(x') k(x − x') x' / Σ S(x') k(x − x').

The map is the gradient of a convex function (the logarithm of the denominator, up to scale), so it
is monotone and cannot fold. Saliency is continued beyond the border by reflection, as in FOVEA
(Thavamani et al., ICCV 2021): the border stays on the border. Continued by replication, as in the
first release, the image loses its rim.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "FWHM",
    "NODES",
    "forward",
    "forward_boxes",
    "grid_from_saliency",
    "inverse",
    "limit_magnification",
    "max_magnification",
]

NODES = 31
"""Nodes per side, as in *Learning to Zoom*."""

FWHM = 13.0
"""The kernel's full width at half maximum for 31 nodes, in nodes; it grows with their number."""

Floats = NDArray[np.float64]


def grid_from_saliency(
    saliency: NDArray[Any],
    fwhm: float = FWHM,
    *,
    separable: bool = False,
    padding: Literal["reflect", "edge"] = "reflect",
) -> Floats:
    """Return the sampling grid of a saliency map.

    Parameters
    ----------
    saliency : ndarray, shape (g, g)
        Saliency at the nodes; positive. Only ratios matter.
    fwhm : float
        Full width at half maximum of the kernel, in nodes.
    separable : bool
        Use only the sums over rows and columns, as FOVEA does: boxes stay upright.
    padding : {"reflect", "edge"}
        Continuation beyond the border; ``"edge"`` crops the image (for comparison only).

    Returns
    -------
    ndarray of float, shape (g, g, 2)
    """
    s = np.asarray(saliency, np.float64)
    g = s.shape[0]
    if s.shape != (g, g) or g < 2:
        raise ValueError(f"a saliency has as many rows as columns, at least 2, not {s.shape}")
    if not np.isfinite(s).all() or s.min() <= 0:
        raise ValueError("a saliency must be positive everywhere")
    s = s / s.max()
    p = g - 1
    offset = np.arange(g)[:, None] + p - np.arange(g + 2 * p)
    kernel = np.where(np.abs(offset) <= p, np.exp(-4 * math.log(2) * (offset / fwhm) ** 2), 0.0)
    # Relative to the node itself: otherwise narrow kernels suffer from rounding.
    at = np.arange(g)
    offsets = kernel * -offset
    if separable:
        rows, columns = (np.pad(s.sum(axis), p, mode=padding) for axis in (1, 0))
        y = (at + offsets @ rows / (kernel @ rows)) / p
        x = (at + offsets @ columns / (kernel @ columns)) / p
        return np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1)
    padded = np.pad(s, p, mode=padding)
    weight = kernel @ padded @ kernel.T
    y = (at[:, None] + offsets @ padded @ kernel.T / weight) / p
    x = (at[None, :] + kernel @ padded @ offsets.T / weight) / p
    result: Floats = np.clip(np.stack([y, x], axis=-1), 0.0, 1.0)
    return result


def max_magnification(grid: Floats) -> float:
    """Return the largest magnification of a grid along a side; 1 for none."""
    steps = min(
        float(np.diff(grid[..., 0], axis=0).min()), float(np.diff(grid[..., 1], axis=1).min())
    )
    return 1 / max(steps * (len(grid) - 1), 1e-9)


def limit_magnification(grid: Floats, limit: float) -> Floats:
    """Return the mean of `grid` and the uniform grid that magnifies `limit` times at most.

    Every step is a weighted mean of the two, so the weight has a closed form.
    """
    current = 1 / max_magnification(grid)
    allowed = min(1.0, 1 / limit)
    if current >= allowed:
        return grid
    t = (1 - allowed) / (1 - current)
    nodes = np.linspace(0, 1, len(grid))
    even = np.stack(np.meshgrid(nodes, nodes, indexing="ij"), axis=-1)
    mixed: Floats = t * grid + (1 - t) * even
    return mixed


def forward(grid: Floats, points: NDArray[Any]) -> Floats:
    """Map points on the canvas to their sampling positions.

    Parameters
    ----------
    grid : ndarray, shape (g, g, 2)
        The warp.
    points : ndarray, shape (..., 2)
        ``(y, x)`` on the canvas, in 0..1.

    Returns
    -------
    ndarray of float, shape (..., 2)
        ``(y, x)`` in the rectangle, in 0..1.
    """
    g = len(grid) - 1
    at = np.clip(np.asarray(points, np.float64), 0, 1) * g
    i = np.minimum(at.astype(np.intp), g - 1)
    s, t = ((at - i)[..., axis, None] for axis in (0, 1))
    y, x = i[..., 0], i[..., 1]
    upper = (1 - t) * grid[y, x] + t * grid[y, x + 1]
    lower = (1 - t) * grid[y + 1, x] + t * grid[y + 1, x + 1]
    positions: Floats = (1 - s) * upper + s * lower
    return positions


def forward_boxes(grid: Floats, boxes: NDArray[Any]) -> Floats:
    """Map boxes on the canvas to the upright boxes around their corners' sampling positions.

    Parameters
    ----------
    grid : ndarray, shape (g, g, 2)
        The warp.
    boxes : ndarray, shape (n, 4)
        ``(y, x, h, w)`` on the canvas, in 0..1.

    Returns
    -------
    ndarray of float, shape (n, 4)
        ``(y, x, h, w)`` in the rectangle, in 0..1; exact for separable grids.
    """
    y, x, h, w = np.asarray(boxes, np.float64).reshape(-1, 4).T
    corners = [np.stack([y + i * h, x + j * w], axis=-1) for i in (0, 1) for j in (0, 1)]
    result = forward(grid, np.stack(corners))
    low, high = result.min(axis=0), result.max(axis=0)
    return np.concatenate([low, high - low], axis=-1)


def inverse(grid: Floats, ys: Floats, xs: Floats) -> tuple[Floats, Floats]:
    """Return the exact canvas position of each point of a raster.

    In each of the grid's cells the map is bilinear, and its inverse the root of a quadratic, as in
    Thavamani et al., *Learning to Zoom and Unzoom* (CVPR 2023).

    Parameters
    ----------
    grid : ndarray, shape (g, g, 2)
        The warp.
    ys, xs : ndarray, shape (m,) and (n,)
        Rows and columns of the raster in the rectangle, in 0..1, ascending.

    Returns
    -------
    places : ndarray of float, shape (m, n, 2)
        ``(y, x)`` on the canvas, in 0..1; NaN outside the grid.
    areas : ndarray of float, shape (m, n)
        Jacobian of the inverse: canvas area per area of the rectangle; 0 outside the grid.
    """
    g = len(grid) - 1
    here, right = grid[:-1, :-1].reshape(-1, 2), grid[:-1, 1:].reshape(-1, 2)
    below, across = grid[1:, :-1].reshape(-1, 2), grid[1:, 1:].reshape(-1, 2)
    corners = np.stack([here, right, below, across])
    low, high = corners.min(axis=0) - 1e-12, corners.max(axis=0) + 1e-12
    first = np.searchsorted(ys, low[:, 0]), np.searchsorted(xs, low[:, 1])
    last = np.searchsorted(ys, high[:, 0], "right"), np.searchsorted(xs, high[:, 1], "right")
    h, w = last[0] - first[0], last[1] - first[1]
    # Every pair of a cell and a raster point within the cell's bounds.
    count = h * w
    cell = np.repeat(np.arange(g * g, dtype=np.int32), count)
    k = np.arange(len(cell), dtype=np.int32)
    k -= np.repeat((np.cumsum(count) - count).astype(np.int32), count)
    row, column = np.divmod(k, w.astype(np.int32)[cell])
    row += first[0].astype(np.int32)[cell]
    column += first[1].astype(np.int32)[cell]
    # here + s·a + t·b + s·t·c = the point: without s, a quadratic in t.
    a, b, c = below - here, right - here, across - right - below + here
    of_cell = np.stack([*a.T, *b.T, *c.T, *here.T, cross(b, c), cross(b, a)])
    ay, ax, by, bx, cy, cx, hy, hx, qa, ba = of_cell.take(cell, axis=1)
    dy, dx = ys[row] - hy, xs[column] - hx
    qb, qc = dy * cx - dx * cy - ba, dy * ax - dx * ay
    with np.errstate(invalid="ignore", divide="ignore"):
        root = np.sqrt(np.maximum(qb * qb + 4 * qa * qc, 0))
        t = -2 * qc / (qb + root)
        along = ay + t * cy, ax + t * cx
        s = ((dy - t * by) * along[0] + (dx - t * bx) * along[1]) / (along[0] ** 2 + along[1] ** 2)
    inside = np.flatnonzero((np.abs(s - 0.5) <= 0.5 + 1e-9) & (np.abs(t - 0.5) <= 0.5 + 1e-9))
    row, column, cell, s, t = (part[inside] for part in (row, column, cell, s, t))
    places = np.full((len(ys), len(xs), 2), np.nan)
    places[row, column, 0] = np.clip((cell // g + s) / g, 0.0, 1.0)
    places[row, column, 1] = np.clip((cell % g + t) / g, 0.0, 1.0)
    # The area that the cell's two edges span here, bilinear in s and t.
    ba, bc, ca = (cross(*two)[cell] for two in ((b, a), (b, c), (c, a)))
    areas = np.zeros((len(ys), len(xs)))
    areas[row, column] = 1 / np.maximum(np.abs(ba + t * bc + s * ca) * g * g, 1e-12)
    return places, areas


def cross(a: Floats, b: Floats) -> Floats:
    """Return the cross product in the plane."""
    result: Floats = a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
    return result
