"""The count of ``main`` as another model predicts it, with the interval of its measured error.

A model that stands in for ``main`` on the whole region has no measurements that would correct it.
What is known of its error is on its card (`PredictionError`), measured on whole images and their
regions: the mean ratio of both counts, by which its count is corrected, and the deviations.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from hrviewer.models.accuracy import PredictionError
from hrviewer.strategies.estimation.intervals import Interval
from hrviewer.strategies.estimation.regression import CalibrationFactor
from hrviewer.strategies.protocol import PlanContext

__all__ = ["StandIn"]

Floats = NDArray[np.float64]


class StandIn:
    """Correction of the counts of a model that stands in for ``main``.

    Without a measured error for images of this kind, counts are kept, and have no interval.

    Parameters
    ----------
    context : PlanContext
        Properties of the image and the models.
    role : str
        Role of the model.
    """

    def __init__(self, context: PlanContext, role: str) -> None:
        self.error: PredictionError | None = context.prediction_error(role)
        self._name = context.models[role].card.name

    def correct(self, values: Floats) -> Floats:
        """Return the counts of ``main``, ``(k,)``, from those of the model."""
        return values if self.error is None else values * self.error.ratio

    def interval(
        self, values: Floats, variance: float, sampled: Interval | None = None
    ) -> Interval | None:
        """Return the 95 % interval of the corrected total; None if the error is not known.

        Parameters
        ----------
        values : ndarray, shape (k,)
            Counts of the model, not corrected.
        variance : float
            Predicted variance of their sum.
        sampled : tuple of float, optional
            95 % interval of their sum, if they are estimated from a sample of the region.
        """
        if self.error is None:
            return None
        ratio = np.full(len(values), self.error.ratio)
        factor = CalibrationFactor(ratio, ratio * self.error.ratio_deviation, self.error)
        low, high = factor.interval(0.0, values[None], np.array([math.sqrt(max(variance, 0.0))]))
        if sampled is not None:
            middle = float(values.sum())
            total = middle * self.error.ratio
            below, above = ((abs(end - middle)) * self.error.ratio for end in sampled)
            low, high = (
                total - math.hypot(total - low, below),
                total + math.hypot(high - total, above),
            )
        return max(low, 0.0), high

    def note(self) -> str:
        """Return a note for the user."""
        if self.error is None:
            return f"the error of {self._name} was not measured on images of this kind"
        return f"corrected by {self.error.ratio:.2f}, as {self._name} needs on {self.error.domain}"
