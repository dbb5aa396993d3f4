"""Sampling a rectangle through a non-uniform grid, and un-warping the prediction.

The grid's nodes are positions in the rectangle (see `strategies.WarpRequest`). Every canvas pixel
interpolates between the two octaves of the pyramid around its local reduction, so nothing aliases
at any reduction. Un-warping uses the grid's exact inverse: maps of mass keep their mass through the
Jacobian, everything else is interpolated.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from hrviewer.engine.canvas import MapKind
from hrviewer.geometry import Rect
from hrviewer.pyramid import Pyramid, ReadMeter
from hrviewer.pyramid.area_read import Coverage
from hrviewer.strategies.nonuniform.grid_sampler import forward, inverse

__all__ = ["finest_scale", "sample", "sample_density", "unwarp"]

BLOCK_SIDE = 256
"""Side of the part of the canvas that is sampled at once, which bounds the memory."""

Floats = NDArray[np.float64]


def grid_positions(grid: Floats, at: Floats, bt: Floats) -> Floats:
    """Return the positions in 0..1 of canvas rows `at` and columns `bt`, ``(2, m, n)``."""
    # As in `forward`, first along one axis, then along the other.
    g = len(grid) - 1
    y, x = (np.clip(axis, 0, 1) * g for axis in (at, bt))
    i, j = (np.minimum(axis.astype(np.intp), g - 1) for axis in (y, x))
    s, t = (y - i)[:, None], x - j
    planes = np.moveaxis(grid, -1, 0)
    rows = (1 - s) * planes[:, i] + s * planes[:, i + 1]
    found: Floats = (1 - t) * rows[..., j] + t * rows[..., j + 1]
    return found


def finest_scale(rect: Rect, grid: Floats, shape: tuple[int, int]) -> float:
    """Return the level-0 pixels per canvas pixel where the warp is finest."""
    g = len(grid) - 1
    dy = float(np.diff(grid[..., 0], axis=0).min()) * g * rect.h / shape[0]
    dx = float(np.diff(grid[..., 1], axis=1).min()) * g * rect.w / shape[1]
    return min(dy, dx)


def sample(
    pyramid: Pyramid,
    rect: Rect,
    grid: Floats,
    shape: tuple[int, int],
    meter: ReadMeter | None = None,
) -> tuple[NDArray[np.float32], Coverage | None]:
    """Return the warped pixels, ``shape + (c,)``, in the image's range, and where they have data.

    Parameters
    ----------
    pyramid : Pyramid
        The image.
    rect : Rect
        The rectangle to sample, within the image.
    grid : ndarray, shape (g, g, 2)
        The warp.
    shape : tuple of int
        The canvas.
    meter : Meter, optional
        Counts the cost of reading.

    Returns
    -------
    pixels : ndarray of float32
        0 where there are no data.
    coverage : ndarray of float32, shape `shape`, or None
        Part of each sample's weight that has data; None for all of all.
    """
    out: NDArray[np.float32] | None = None
    coverage: Coverage | None = None
    for top in range(0, shape[0], BLOCK_SIDE):
        for left in range(0, shape[1], BLOCK_SIDE):
            rows = np.arange(top, min(top + BLOCK_SIDE, shape[0]))
            columns = np.arange(left, min(left + BLOCK_SIDE, shape[1]))
            part, known = _sample_block(pyramid, rect, grid, shape, rows, columns, meter)
            if out is None:
                out = np.empty((*shape, part.shape[2]), np.float32)
            at = np.s_[top : top + len(rows), left : left + len(columns)]
            out[at] = part
            if known is not None:
                coverage = np.ones(shape, np.float32) if coverage is None else coverage
                coverage[at] = known
    assert out is not None
    return out, coverage


def _sample_block(
    pyramid: Pyramid,
    rect: Rect,
    grid: Floats,
    shape: tuple[int, int],
    rows: NDArray[np.intp],
    columns: NDArray[np.intp],
    meter: ReadMeter | None,
) -> tuple[NDArray[np.float32], Coverage | None]:
    h, w = shape
    at, bt = (rows + 0.5) / h, (columns + 0.5) / w
    y, x = grid_positions(grid, at, bt)
    y, x = rect.y + y * rect.h, rect.x + x * rect.w
    edges_y = grid_positions(grid, np.append(rows, rows[-1] + 1) / h, bt)[0]
    edges_x = grid_positions(grid, at, np.append(columns, columns[-1] + 1) / w)[1]
    local = np.maximum(np.diff(edges_y, axis=0) * rect.h, np.diff(edges_x, axis=1) * rect.w)
    octave = np.log2(np.maximum(local, 1.0))
    out: NDArray[np.float32] | None = None
    known = np.zeros((len(rows), len(columns)), np.float32)
    complete = True
    for level in range(math.floor(octave.min()), math.ceil(octave.max()) + 1):
        share = np.maximum(1 - np.abs(octave - level), 0)
        here = share > 0
        if not here.any():
            continue
        scale = 2.0**level
        ys, xs = y[here], x[here]
        # Only what this octave needs, on its own lattice of pixels.
        step = int(scale)
        low_y, low_x = (math.floor(v.min() / step - 1) * step for v in (ys, xs))
        high_y, high_x = (math.ceil(v.max() / step + 1) * step for v in (ys, xs))
        wanted = Rect(low_y, low_x, high_y - low_y, high_x - low_x) & pyramid.rect
        read, coverage = pyramid.read_with_coverage(wanted, scale, meter=meter)
        pixels = read.astype(np.float32)
        if out is None:
            out = np.zeros((len(rows), len(columns), pixels.shape[2]), np.float32)
        where = [(ys - wanted.y) / scale - 0.5, (xs - wanted.x) / scale - 0.5]
        if coverage is None:
            known[here] += share[here]
        else:
            complete = False
            has_data = (coverage > 0).astype(np.float32)
            pixels[coverage <= 0] = 0
            known[here] += share[here] * map_coordinates(has_data, where, order=1, mode="nearest")
        for c in range(pixels.shape[2]):
            sampled = map_coordinates(pixels[..., c], where, order=1, mode="nearest")
            out[here, c] += share[here] * sampled
    assert out is not None
    if complete:
        return out, None
    # Only samples with data count: their weights add up to less than one.
    with np.errstate(invalid="ignore", divide="ignore"):
        out = np.where(known[..., None] > 0, out / known[..., None], 0)
    return out.astype(np.float32), known


def unwarp(
    values: NDArray[np.floating[Any]], grid: Floats, shape: tuple[int, int], kind: MapKind
) -> NDArray[np.float32]:
    """Resample a map on the canvas onto the rectangle.

    Parameters
    ----------
    values : ndarray, shape (k, rows, columns)
        The network's output on the canvas.
    grid : ndarray, shape (g, g, 2)
        The warp.
    shape : tuple of int
        Rows and columns to cut the rectangle into.
    kind : {"mass", "intensity"}
        Whether each cell's sum is preserved, distributed over where it was sampled, or its value.

    Returns
    -------
    ndarray of float32, shape (k,) + shape
        For intensities NaN outside the grid.
    """
    _, rows, columns = values.shape
    places, areas = _invert_grid(grid, shape)
    reached = areas > 0
    if kind == "intensity":
        where = [places[..., 0] * rows - 0.5, places[..., 1] * columns - 0.5]
        where = [np.where(reached, axis, 0.0) for axis in where]
        planes = [
            map_coordinates(plane, where, order=1, mode="nearest")
            for plane in values.astype(np.float64)
        ]
        return np.where(reached, np.stack(planes), np.nan).astype(np.float32)
    i = np.minimum(places[reached][:, 0] * rows, rows - 1).astype(np.intp)
    j = np.minimum(places[reached][:, 1] * columns, columns - 1).astype(np.intp)
    source = i * columns + j
    weights = areas[reached]
    covered = np.bincount(source, weights, rows * columns)
    flat = values.reshape(len(values), -1).astype(np.float64)
    out = np.zeros((len(values), *shape))
    out[:, reached] = flat[:, source] * (weights / covered[source])
    # A cell that is magnified so much that no target's centre lies in it goes to the nearest.
    missed = np.flatnonzero(covered == 0)
    if len(missed):
        centres = np.stack([missed // columns + 0.5, missed % columns + 0.5], axis=-1)
        at = forward(grid, centres / (rows, columns)) * shape
        y, x = np.minimum(at, np.array(shape) - 1).astype(np.intp).T
        for plane, mass in zip(out, flat[:, missed], strict=True):
            np.add.at(plane, (y, x), mass)
    return out.astype(np.float32)


def sample_density(grid: Floats, rect: Rect, core: Rect, side: int = 64) -> Floats:
    """Return the distribution of a core's samples, ``(side, side)``, summing to 1."""
    ys = (core.y + (np.arange(side) + 0.5) / side * core.h - rect.y) / rect.h
    xs = (core.x + (np.arange(side) + 0.5) / side * core.w - rect.x) / rect.w
    _, areas = inverse(grid, ys, xs)
    shares: Floats = areas / areas.sum()
    return shares


def _invert_grid(grid: Floats, shape: tuple[int, int]) -> tuple[Floats, Floats]:
    return inverse(grid, *((np.arange(n) + 0.5) / n for n in shape))
