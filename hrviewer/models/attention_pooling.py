"""One answer of many places: attention pooling, put together from parts.

Each place says of which class the image is, and how much it is to matter: a score, whose
exponential is its weight (Ilse, Tomczak and Welling, *Attention-based Deep Multiple Instance
Learning*, ICML 2018). There the codes are averaged by weight, and a linear function and a softmax
follow; that is the softmax of the average of what the linear function says of each code. And since
a softmax takes no notice of what is added to all classes, probabilities tell as much as what they
were made of. So the answer is a ratio of sums over places, which parts of an image can be asked for
one after another: what is kept of a part is its average, and the logarithm of its weight.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["combine_parts", "pool"]

Floats = NDArray[np.float64]
_MIN_PROBABILITY = 1e-38


def pool(predictions: NDArray[np.floating], areas: NDArray[np.float64]) -> Floats:
    """Return what a part of an image says.

    Parameters
    ----------
    predictions : ndarray, shape (k + 1, n)
        The probabilities of classes at each place, and its score; NaN where nothing is known.
    areas : ndarray, shape (n,)
        How much of each place lies in the part.

    Returns
    -------
    ndarray, shape (k + 1,)
        The average of the logarithms of the probabilities, and the logarithm of the weight. NaN
        where nothing is known.
    """
    known = (areas > 0) & np.isfinite(predictions).all(axis=0)
    values = np.log(np.maximum(predictions[:-1, known].astype(np.float64), _MIN_PROBABILITY))
    return _weighted_average(values.T, predictions[-1, known] + np.log(areas[known]))


def combine_parts(parts: Floats) -> Floats:
    """Return the probabilities ``(k,)`` of what parts of an image say, ``(m, k + 1)``."""
    mean = _weighted_average(parts[:, :-1], parts[:, -1])[:-1]
    weights = np.exp(mean - mean.max())
    return np.asarray(weights / weights.sum())


def _weighted_average(values: Floats, scores: Floats) -> Floats:
    """Average ``(n, k)`` by the exponentials of `scores`; their logarithmic sum comes last."""
    if not len(scores):
        return np.full(values.shape[1] + 1, np.nan)
    top = scores.max()  # taken out, so that nothing overflows
    weights = np.exp(scores - top)
    total = weights.sum()
    return np.append(weights @ values / total, top + np.log(total))
