"""Activations that a card names, for outputs of any back end."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hrviewer.models.card import Activation

__all__ = ["activate"]

Floats = NDArray[np.float32]


def activate(x: Floats, activation: Activation) -> Floats:
    """Apply an activation to ``(n, k, …)``, over ``k``, without overflow."""
    if activation == "relu":
        return np.maximum(x, 0)
    if activation == "sigmoid":
        return np.asarray((1 + np.tanh(x / 2)) / 2, np.float32)
    if activation == "softmax":
        e = np.exp(x - x.max(axis=1, keepdims=True))
        return np.asarray(e / e.sum(axis=1, keepdims=True), np.float32)
    return x
