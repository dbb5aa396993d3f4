"""Flows to the centers of instances, and the probability of being inside one.

The post-processing is that of Stringer, Wang, Michaelos and Pachitariu, *Cellpose: a generalist
algorithm for cellular segmentation*, Nature Methods 2021, without its comparison of the flows with
those of the resulting masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.models.activations import activate
from hrviewer.models.card import ModelCard
from hrviewer.models.decoders.base import Candidates, Decoder
from hrviewer.models.decoders.label_outlines import candidates_from_labels

__all__ = ["Cellpose"]

Floats = NDArray[np.float32]

STEPS = 200
"""Steps along the flow, of at most a pixel each."""
FLOW_SCALE = 5.0
"""Length of the network's flows."""
MIN_PIXELS_AT_SEED, MIN_PIXELS_AT_END = 10, 2
"""More pixels than these end at the seed of an instance, and at its other end points."""
MIN_SIZE = 15
"""Pixels of the smallest instance."""
MAX_SHARE = 0.4
"""Share of the input of the largest instance."""


class Cellpose(Decoder):
    """``(n, 3, h, w)``: flow along y, along x, the logit of being inside; others are left out."""

    name = "cellpose"
    duplicates = False

    def decode(
        self, outputs: Sequence[Floats], card: ModelCard, score_threshold: float
    ) -> list[Candidates]:
        """Return the instances of each input; all are of the first class."""
        maps = next((o for o in outputs if o.ndim == 4 and o.shape[1] == 3), None)
        if maps is None:
            raise self.mismatch(card, "(3, h, w)", outputs)
        stride = card.output.scalar_stride
        found = []
        for dy, dx, logit in maps:
            labels = follow_flows(np.stack([dy, dx]), logit > 0)
            m = int(labels.max(initial=0))
            inside = np.asarray(activate(logit, "sigmoid"), np.float64)
            sums = np.bincount(labels.ravel(), inside.ravel(), m + 1)[1:]
            scores = sums / np.bincount(labels.ravel(), minlength=m + 1)[1:]
            classes = np.zeros(m, np.int64)
            found.append(
                candidates_from_labels(labels, scores, classes, stride, card.output.margin)
            )
        return found


def follow_flows(flow: NDArray[Any], inside: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the label map ``(h, w)`` of pixels that flow to the same place.

    Parameters
    ----------
    flow
        ``(2, h, w)``: along y and x, of length 5 inside instances.
    inside
        ``(h, w)``: whether a pixel belongs to an instance.
    """
    from scipy.ndimage import binary_dilation, map_coordinates, maximum_filter

    labels = np.zeros(inside.shape, np.int64)
    pixels = np.argwhere(inside)
    if not len(pixels):
        return labels
    step = np.where(inside, flow, 0).astype(np.float64) / FLOW_SCALE
    at = pixels.T.astype(np.float64)
    limit = np.array(inside.shape)[:, None] - 1
    for _ in range(STEPS):
        moved = [map_coordinates(part, at, order=1, mode="nearest") for part in step]
        at = np.clip(at + np.stack(moved), 0, limit)
    ends = np.rint(at).astype(np.intp)
    counts = np.zeros(inside.shape, np.int64)
    np.add.at(counts, tuple(ends), 1)
    peaks = np.argwhere((counts == maximum_filter(counts, 5)) & (counts > MIN_PIXELS_AT_SEED))
    # The fullest last, so that it has its surroundings.
    peaks = peaks[np.argsort(counts[tuple(peaks.T)], kind="stable")]
    places = np.zeros(inside.shape, np.int64)
    for number, (y, x) in enumerate(peaks, 1):
        window = slice(max(0, y - 5), y + 6), slice(max(0, x - 5), x + 6)
        seed = np.zeros(counts[window].shape, bool)
        seed[y - window[0].start, x - window[1].start] = True
        allowed = counts[window] > MIN_PIXELS_AT_END
        grown = binary_dilation(seed, np.ones((3, 3)), iterations=5, mask=allowed)
        places[window][grown] = number
    labels[tuple(pixels.T)] = places[tuple(ends)]
    sizes = np.bincount(labels.ravel())
    keeps = (sizes >= MIN_SIZE) & (sizes <= MAX_SHARE * inside.size)
    keeps[0] = False
    numbers = np.cumsum(keeps) * keeps
    return np.asarray(numbers[labels], np.int64)
