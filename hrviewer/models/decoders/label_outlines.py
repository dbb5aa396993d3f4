"""From label maps of instances to candidates with outlines."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.models.decoders.base import Candidates
from hrviewer.objects import mask_ring

__all__ = ["candidates_from_labels"]


def candidates_from_labels(
    labels: NDArray[np.int64],
    scores: NDArray[np.floating[Any]],
    classes: NDArray[np.int64],
    stride: float,
    offset: float,
) -> Candidates:
    """Return the instances of a label map.

    Parameters
    ----------
    labels
        ``(rows, columns)``: 1 to m, 0 for none; every number occurs.
    scores, classes
        ``(m,)``, of the labels from 1.
    stride, offset
        Input pixels per cell of the map, and of its first cell's corner.
    """
    from scipy.ndimage import find_objects

    places = find_objects(labels)
    ends = [(ys.start, xs.start, ys.stop, xs.stop) for ys, xs in places]
    boxes = np.array(ends, np.float32).reshape(-1, 4) * stride + offset

    def outline(index: int) -> NDArray[np.floating[Any]]:
        ys, xs = places[index]
        corner = np.array([ys.start, xs.start])
        ring = mask_ring(labels[ys, xs] == index + 1)
        return np.asarray((ring + corner) * stride + offset)

    return Candidates(boxes.astype(np.float32), scores.astype(np.float32), classes, outline)
