"""Attention pooling: one prediction per image from predictions at many places, part by part.

Each place predicts the class of the image, and a score whose exponential is its weight (Ilse,
Tomczak and Welling, *Attention-based Deep Multiple Instance Learning*, ICML 2018). There the
embeddings are averaged by weight, followed by a linear function and a softmax, which equals the
softmax of the weighted average of the logits. Since a softmax is invariant to a constant added to
all classes, log-probabilities serve as logits. So the prediction is a ratio of sums over places,
and can be accumulated over parts of an image: of each part, the average and the logarithm of the
weight are stored.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["combine_parts", "pool"]

Floats = NDArray[np.float64]
_MIN_PROBABILITY = 1e-38


def pool(predictions: NDArray[np.floating], areas: NDArray[np.float64]) -> Floats:
    """Pool the predictions in one part of an image.

    Parameters
    ----------
    predictions : ndarray, shape (k + 1, n)
        Class probabilities at each place, then its score; NaN where there is no prediction.
    areas : ndarray, shape (n,)
        Area of each place inside the part.

    Returns
    -------
    ndarray, shape (k + 1,)
        The average log-probabilities, and the logarithm of the weight. NaN if there is no
        prediction.
    """
    known = (areas > 0) & np.isfinite(predictions).all(axis=0)
    values = np.log(np.maximum(predictions[:-1, known].astype(np.float64), _MIN_PROBABILITY))
    return _weighted_average(values.T, predictions[-1, known] + np.log(areas[known]))


def combine_parts(parts: Floats) -> Floats:
    """Return the class probabilities ``(k,)`` of an image from its pooled parts, ``(m, k + 1)``."""
    mean = _weighted_average(parts[:, :-1], parts[:, -1])[:-1]
    weights = np.exp(mean - mean.max())
    return np.asarray(weights / weights.sum())


def _weighted_average(values: Floats, scores: Floats) -> Floats:
    """Average ``(n, k)`` weighted by exp(scores); append the log-sum-exp of the scores."""
    if not len(scores):
        return np.full(values.shape[1] + 1, np.nan)
    top = scores.max()  # taken out, so that nothing overflows
    weights = np.exp(scores - top)
    total = weights.sum()
    return np.append(weights @ values / total, top + np.log(total))
