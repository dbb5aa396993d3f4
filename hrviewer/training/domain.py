"""Measurement of the kind of images that a training task learns from."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch.utils.data import Dataset

from hrviewer.models.learned_domain import LearnedDomain, is_blank, square_features

__all__ = ["measure_domain"]

BATCHES = 64
"""Number of batches that are described; more if a batch has few images."""


def measure_domain(stream: Dataset[Any], data: str, command: str) -> LearnedDomain:
    """Return the distribution of a stream's images.

    Parameters
    ----------
    stream
        Batches whose first tensor is of images ``(n, 3, h, w)`` from 0 to 1, at least 64.
    data, command
        For the record.
    """
    features = []
    for number in range(BATCHES):
        squares = stream[number][0].numpy()
        features += [square_features(each) for each in squares if not is_blank(each)]
    return LearnedDomain.fit(np.stack(features), data, command)
