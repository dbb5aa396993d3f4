"""The last layer of counting networks."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["CountHead"]

_MAX_LOG_VARIANCE = 8.0
"""Maximum logarithm of a variance, so that its exponential stays finite."""


class CountHead(nn.Conv2d):
    """Predicted count of each class in each cell, at least 0, and its variance.

    Parameters
    ----------
    inputs, classes
        Number of input channels, and of classes.
    variance
        Whether to predict variances too (as logarithms internally); they follow the counts.
    unit
        Count that corresponds to an internal value of 1.
    """

    def __init__(self, inputs: int, classes: int, variance: bool, unit: float) -> None:
        super().__init__(inputs, classes * (1 + variance), 1)
        self.classes, self.variance, self.unit = classes, variance, unit
        nn.init.constant_(self.bias, 0.1)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Return the counts, then the variances if there are any, ``(n, 1 or 2 · k, h, w)``."""
        x = super().forward(x)
        if not self.variance:
            return self._density(x)
        x, log_variance = x[:, : self.classes], x[:, self.classes :]
        return torch.cat(
            (self._density(x), self.unit * log_variance.clamp(max=_MAX_LOG_VARIANCE).exp()), dim=1
        )

    def _density(self, x: Tensor) -> Tensor:
        x = self.unit * x
        y = F.relu(x)
        # In training a small slope below zero keeps the gradient alive; the value is the same.
        return y + 0.02 * ((x - y) - (x - y).detach()) if self.training else y

    @torch.no_grad()
    def rescale(self, counts: float, variances: float) -> None:
        """Multiply the predicted counts and variances by constants."""
        assert self.bias is not None
        self.weight[: self.classes] *= counts
        self.bias[: self.classes] *= counts
        self.bias[self.classes :] += math.log(variances)
