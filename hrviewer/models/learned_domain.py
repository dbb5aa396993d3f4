"""The kind of images a network learned from, and how far others are from it.

Squares of the network's input are described by a few features: colour, contrast and sharpness. The
distance of an image is the median over its squares of Mahalanobis' distance from those that were
learned (Lee et al., *A Simple Unified Framework for Detecting Out-of-Distribution Samples*,
NeurIPS 2018, with features of the image in the place of the network's). It distinguishes other
stains, scanners and subjects, not every image on which a network errs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveFloat, PositiveInt, model_validator

from hrviewer.models.card_section import CardSection

__all__ = ["FEATURES", "LearnedDomain", "is_blank", "square_features"]

FEATURES = ("red", "green", "blue", "contrast", "edges", "coarse edges", "saturation")
"""Mean optical densities, and logarithms of three standard deviations and of the saturation."""
BLANK = 0.02
"""Standard deviation of the grey level below which a square is blank and has no features."""
QUANTILE = 0.99

Floats = NDArray[np.float64]


class LearnedDomain(CardSection):
    """Distribution of the features of squares that a network learned from.

    Attributes
    ----------
    mean, precision
        Mean, and inverse of the covariance, row by row.
    limit
        Distance below which 99 % of those squares are.
    squares
        Their number.
    data, command
        What was learned, and the command that repeats the measurement.
    """

    mean: tuple[float, ...]
    precision: tuple[tuple[float, ...], ...]
    limit: PositiveFloat
    squares: PositiveInt
    data: str
    command: str

    @model_validator(mode="after")
    def _check_shape(self) -> LearnedDomain:
        n = len(FEATURES)
        if len(self.mean) != n or [len(row) for row in self.precision] != [n] * n:
            raise ValueError(f"mean and precision are of {n} features")
        return self

    @classmethod
    def fit(cls, features: Floats, data: str, command: str) -> LearnedDomain:
        """Return the distribution of features ``(n, 7)``."""
        mean = features.mean(axis=0)
        covariance = np.cov(features.T) + 1e-4 * np.eye(features.shape[1])
        precision = np.linalg.inv(covariance).astype(np.float64)
        distance = _distances(features, mean, precision)
        return cls(
            mean=tuple(np.round(mean, 4).tolist()),
            precision=tuple(tuple(row) for row in np.round(precision, 3).tolist()),
            limit=round(float(np.quantile(distance, QUANTILE)), 3),
            squares=len(features),
            data=data,
            command=command,
        )

    def distance(self, features: Sequence[Floats]) -> float:
        """Return the median distance of squares over `limit`: above 1 they are unlike the learned.

        It is 0 without squares.
        """
        if not len(features):
            return 0.0
        distances = _distances(np.stack(features), np.array(self.mean), np.array(self.precision))
        return float(np.median(distances)) / self.limit


def is_blank(square: NDArray[np.floating[Any]]) -> bool:
    """Return whether a square ``(3, h, w)`` from 0 to 1 shows nothing."""
    return float(square.mean(axis=0).std()) < BLANK


def square_features(square: NDArray[np.floating[Any]]) -> Floats:
    """Return the features of a square ``(3, h, w)`` from 0 to 1: see `FEATURES`."""
    x = np.clip(np.asarray(square, np.float64), 1 / 256, 1)
    density = -np.log(x)
    grey = density.mean(axis=0)
    coarse = grey[: grey.shape[0] // 4 * 4, : grey.shape[1] // 4 * 4]
    coarse = coarse.reshape(coarse.shape[0] // 4, 4, -1, 4).mean(axis=(1, 3))

    def steepness(plane: Floats) -> float:
        return math.log(
            1e-3 + math.hypot(*(float(np.diff(plane, axis=axis).std()) for axis in (0, 1)))
        )

    return np.array(
        [
            *density.mean(axis=(1, 2)),
            math.log(1e-3 + float(grey.std())),
            steepness(grey),
            steepness(coarse),
            math.log(1e-3 + float(density.std(axis=0).mean())),
        ]
    )


def _distances(features: Floats, mean: Floats, precision: Floats) -> Floats:
    difference = features - mean
    squared: Floats = np.einsum("ni,ij,nj->n", difference, precision, difference)
    return np.sqrt(np.maximum(squared, 0))
