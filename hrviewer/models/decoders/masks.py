"""Outlines of masks that are weighted sums of prototypes."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.models.decoders.base import Candidates

__all__ = ["with_masks"]

Floats = NDArray[np.float32]


def with_masks(found: Candidates, weights: Floats, prototypes: Floats, tile: int) -> Candidates:
    """Return candidates with the outlines of their masks; see `mask_outline`."""
    return replace(found, outline=partial(mask_outline, found.boxes, weights, prototypes, tile))


def mask_outline(
    boxes: Floats, weights: Floats, prototypes: Floats, tile: int, index: int
) -> NDArray[np.floating[Any]]:
    """Return the outline of one object's mask, ``(c, 2)``: (y, x) in input pixels.

    Parameters
    ----------
    boxes
        ``(m, 4)``: y0, x0, y1, x1 in input pixels.
    weights
        ``(m, p)``: coefficients of the prototypes.
    prototypes
        ``(p, h, w)``.
    tile
        Side of the input.
    index
        The object.

    Returns
    -------
    ndarray
        The longest contour of the mask at half probability, interpolated between the prototypes'
        cells and cut at the box; the box's corners if the mask is empty.
    """
    from skimage.measure import find_contours

    y0, x0, y1, x1 = (float(v) for v in boxes[index])
    corners = np.array([(y0, x0), (y0, x1), (y1, x1), (y1, x0)])
    rows, columns = prototypes.shape[1:]
    cell = tile / rows, tile / columns
    top, left = (max(0, int(v // c)) for v, c in zip((y0, x0), cell, strict=True))
    bottom = min(rows, int(np.ceil(y1 / cell[0])))
    right = min(columns, int(np.ceil(x1 / cell[1])))
    if bottom <= top or right <= left:
        return corners
    part = prototypes[:, top:bottom, left:right]
    logits = np.tensordot(weights[index], part, axes=1)
    # Beyond the box there is no object, so that contours are closed.
    padded = np.pad(logits, 1, constant_values=-max(1.0, float(np.abs(logits).max())))
    contours = find_contours(padded, 0.0)
    if not contours:
        return corners
    longest = max(contours, key=len)[:-1]
    # Contours pass through cells' centres; the padding moved them by one cell.
    points = (longest - 0.5 + (top, left)) * cell
    return np.asarray(np.clip(points, (y0, x0), (y1, x1)))
