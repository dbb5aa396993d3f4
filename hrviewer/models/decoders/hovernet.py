"""Distances to the centers of nuclei along x and y, whose steps separate nuclei that touch.

The post-processing is that of Graham et al., *Hover-Net: Simultaneous segmentation and
classification of nuclei in multi-tissue histology images*, Medical Image Analysis 2019: a watershed
of scikit-image, with markers where the distances have no steps.
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

__all__ = ["HoverNet"]

Floats = NDArray[np.float32]

SOBEL_SIDE = 21
"""Side of the filter that finds the steps."""
MARKER_STEP = 0.4
"""Steps above this separate the markers."""
_TOLERANCE = 5e-3
"""Largest distance of a sum of probabilities in half precision from 1."""
MIN_SIZE = 10
"""Pixels of the smallest nucleus, and of the smallest marker."""


class HoverNet(Decoder):
    """Nuclei ``(n, 2, h, w)``, distances along x and y ``(n, 2, h, w)``, and types.

    Types, of several classes only, are ``(n, classes + 1, h, w)``, background first. The arrays may
    be in any order, nuclei before distances, or one array of nuclei (one channel of probabilities
    or two), distances and types. Nuclei and types are probabilities or logits.
    """

    name = "hovernet"
    duplicates = False

    def decode(
        self, outputs: Sequence[Floats], card: ModelCard, score_threshold: float
    ) -> list[Candidates]:
        """Return the nuclei of each input."""
        nuclei, distances, kinds = self._split(outputs, card)
        stride = card.output.scalar_stride
        found = []
        for i, (probability, steps) in enumerate(zip(nuclei, distances, strict=True)):
            labels = separate_nuclei(probability, steps)
            m = int(labels.max(initial=0))
            flat = labels.ravel()
            sizes = np.bincount(flat, minlength=m + 1)[1:]
            scores = np.bincount(flat, probability.ravel().astype(np.float64), m + 1)[1:] / sizes
            classes = np.zeros(m, np.int64)
            if kinds is not None:
                best = kinds[i].argmax(axis=0).ravel()
                votes = np.zeros((m + 1, len(kinds[i])), np.int64)
                np.add.at(votes, (flat, best), 1)
                # The most frequent type besides background; where there is none, the best one.
                sums = [np.bincount(flat, one.ravel().astype(float), m + 1) for one in kinds[i][1:]]
                unnamed = votes[1:, 1:].sum(axis=1) == 0
                classes = np.where(
                    unnamed, np.stack(sums)[:, 1:].argmax(axis=0), votes[1:, 1:].argmax(axis=1)
                )
            found.append(
                candidates_from_labels(labels, scores, classes, stride, card.output.margin)
            )
        return found

    def _split(
        self, outputs: Sequence[Floats], card: ModelCard
    ) -> tuple[Floats, Floats, Floats | None]:
        """Return the probability of nuclei ``(n, h, w)``, the distances, and the types."""
        k = len(card.classes)
        maps = [o for o in outputs if o.ndim == 4]
        kinds: Floats | None = None
        if len(maps) == 1:
            channels, types = maps[0].shape[1], k + 1 if k > 1 else 0
            nuclear = channels - types - 2
            if nuclear not in (1, 2):
                raise self.mismatch(card, f"(4 or {4 + k + 1}, h, w)", outputs)
            parts = np.split(maps[0], [nuclear, nuclear + 2], axis=1)
            nuclei, distances = parts[0], parts[1]
            kinds = parts[2] if types else None
        else:
            if k > 1:
                kinds = next((m for m in maps if m.shape[1] == k + 1), None)
            rest = [m for m in maps if m is not kinds and m.shape[1] <= 2]
            if len(rest) < 2 or rest[1].shape[1] != 2 or (k > 1 and kinds is None):
                raise self.mismatch(card, f"(2, h, w), (2, h, w) and ({k + 1}, h, w)", outputs)
            nuclei, distances = rest[:2]
        if nuclei.shape[1] == 2:
            if np.abs(nuclei.sum(axis=1) - 1).max() > _TOLERANCE:  # logits
                nuclei = activate(nuclei, "softmax")
        elif nuclei.min() < 0 or nuclei.max() > 1:
            nuclei = activate(nuclei, "sigmoid")
        return nuclei[:, -1], distances, kinds


def separate_nuclei(probability: NDArray[Any], distances: NDArray[Any]) -> NDArray[np.int64]:
    """Return the label map ``(h, w)`` of nuclei.

    Parameters
    ----------
    probability
        ``(h, w)``: of a pixel to belong to a nucleus.
    distances
        ``(2, h, w)``: to the center along x and y, from −1 to 1 across each nucleus.
    """
    from scipy.ndimage import (
        binary_dilation,
        binary_erosion,
        binary_fill_holes,
        gaussian_filter,
        label,
    )
    from skimage.segmentation import watershed

    inside = remove_small(label(probability >= 0.5)[0]) > 0
    if not inside.any():
        return np.zeros(inside.shape, np.int64)
    horizontal, vertical = (stretch(part) for part in distances.astype(np.float64))
    steps = np.maximum(1 - stretch(sobel(horizontal, 1)), 1 - stretch(sobel(vertical, 0)))
    steps = np.clip(steps - ~inside, 0, None)
    relief = -gaussian_filter((1 - steps) * inside, 0.8, truncate=1.25, mode="mirror")
    markers = inside & (steps < MARKER_STEP)
    disc = np.array([[0, 0, 1, 0, 0], *[[1] * 5] * 3, [0, 0, 1, 0, 0]], bool)
    # Opened as OpenCV does it: what lies beyond the border erodes nothing.
    eroded = binary_erosion(binary_fill_holes(markers), disc, border_value=1)
    markers = binary_dilation(eroded, disc)
    numbered = remove_small(label(markers)[0])
    found = np.asarray(watershed(relief, numbered, mask=inside), np.int64)
    # Numbers without gaps.
    return np.unique(np.append(0, found.ravel()), return_inverse=True)[1][1:].reshape(found.shape)


def stretch(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Stretch values to 0 to 1."""
    low, high = float(values.min()), float(values.max())
    return (values - low) / max(high - low, 1e-12)


def sobel(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Return the derivative along an axis by Sobel's filter of 21 × 21, as OpenCV has it."""
    from scipy.ndimage import correlate1d

    smooth = np.ones(1)
    for _ in range(SOBEL_SIDE - 2):
        smooth = np.convolve(smooth, [0.5, 0.5])
    derivative = np.convolve(smooth, [-1, 1])
    smooth = np.convolve(smooth, [0.5, 0.5])
    along = correlate1d(values, derivative, axis, mode="mirror")
    return np.asarray(correlate1d(along, smooth, 1 - axis, mode="mirror"))


def remove_small(labels: NDArray[Any]) -> NDArray[Any]:
    """Return a label map without parts of fewer pixels than `MIN_SIZE`."""
    sizes = np.bincount(labels.ravel())
    sizes[0] = MIN_SIZE
    return np.where(sizes[labels] < MIN_SIZE, 0, labels)
