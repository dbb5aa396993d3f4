"""Pixels without data in inference: what a network gets for them, and what its output is there.

A network gets a background in their place; its output has NaN in cells without data, which add
nothing to a count, an area or a mean. An input without any data is not run.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hrviewer.models import ModelCard, Network
from hrviewer.models.detection import Detections
from hrviewer.pyramid.area_read import Coverage

__all__ = ["blank_missing", "fill_missing", "output_without_data", "with_data"]

WHITE = 255.0


def fill_missing(card: ModelCard, array: NDArray[np.float32], coverage: Coverage | None) -> None:
    """Fill a prepared input, ``(C, h, w)``, in place where it has no data.

    A coverage of None stands for data everywhere. Pixels without data get the
    model's letterbox value if its card has one; otherwise white in colours, and in other channels
    the mean of the pixels that have data.
    """
    if coverage is None:
        return
    missing = coverage <= 0
    settings = card.input
    value: NDArray[np.float32]
    if settings.letterbox is None and settings.channels not in ("rgb", "bgr"):
        known = array[:, ~missing]
        value = known.mean(axis=1, keepdims=True) if known.size else np.zeros((1, 1), np.float32)
    else:
        level = WHITE if settings.letterbox is None else settings.letterbox
        scaled = (level * settings.scale - np.asarray(settings.mean)) / np.asarray(settings.std)
        value = scaled.astype(np.float32)[:, None]
    array[:, missing] = value


def blank_missing(
    output: NDArray[np.float32],
    coverage: Coverage,
    cell: int,
    corner: tuple[float, float] = (0, 0),
) -> NDArray[np.float32]:
    """Return an output, ``(k, rows, columns)``, with NaN in the cells that have no data.

    Parameters
    ----------
    output : ndarray
        The output for an input.
    coverage : ndarray, shape (h, w)
        The part of each of the input's pixels that has data.
    cell : int
        Input pixels per cell; an output of one cell is for the whole input.
    corner : tuple of float
        Corner of the output in the input, pixels.
    """
    has_data = coverage > 0
    for axis, count in enumerate(output.shape[1:]):
        first = round(corner[axis])
        has_data = has_data[first:] if axis == 0 else has_data[:, first:]
        starts = np.minimum(np.arange(count) * cell, has_data.shape[axis] - 1)
        has_data = np.logical_or.reduceat(has_data, starts, axis=axis)
    return np.where(has_data, output, np.float32(np.nan))


def with_data(found: Detections, coverage: Coverage) -> Detections:
    """Return the detections in an input whose center has data."""
    y0, x0, y1, x1 = found.boxes.T
    limits = np.array(coverage.shape) - 1
    rows = np.clip((y0 + y1) / 2, 0, limits[0]).astype(np.intp)
    columns = np.clip((x0 + x1) / 2, 0, limits[1]).astype(np.intp)
    kept = np.flatnonzero(coverage[rows, columns] > 0)
    outlines = tuple(found.outlines[i] for i in kept) if found.outlines else ()
    return Detections(found.boxes[kept], found.scores[kept], found.classes[kept], outlines)


def output_without_data(network: Network, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Return an output for an input ``(h, w)`` without any data, which is not run."""
    rows, columns = (max(1, -(-side // network.stride)) for side in shape)
    return np.zeros((network.card.output_channels, rows, columns), np.float32)
