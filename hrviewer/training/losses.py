"""Loss functions: errors of predicted counts, and of their predicted variance."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["WINDOWS", "density_loss", "variance_loss"]

WINDOWS = ((1, 2.0, 0.03), (4, 0.5, 0.15), (10, 0.4, 0.4), (40, 0.3, 1.5))
"""Windows for a density of stride 4: side in cells, weight, and the constant added to a count."""


def density_loss(
    output: Tensor, target: Tensor, windows: Sequence[tuple[int, float, float]] = WINDOWS
) -> Tensor:
    """Squared error of the counts in windows, each over the expected count.

    The variance of a count of random events is its mean, so an error is divided by the count plus a
    constant: the predicted count, since division by the target's would bias uncertain counts down.

    Parameters
    ----------
    output, target
        Densities ``(n, k, h, w)``. NaN in the target means unknown; a window with any NaN has no
        loss.
    windows
        Side in cells (at most the density's own), weight, and constant, of each size of window.
    """
    total = output.new_zeros(())
    for side, weight, constant in windows:
        side = min(side, *output.shape[-2:])
        area = side * side
        predicted, expected = (F.avg_pool2d(x, side) * area for x in (output, target))
        expected = torch.where(expected.isnan(), predicted.detach(), expected)
        total = (
            total + weight * ((predicted - expected) ** 2 / (predicted.detach() + constant)).mean()
        )
    return total


def variance_loss(
    mean: Tensor, variance: Tensor, target: Tensor, sides: Sequence[int] = (1, 2, 4, 8)
) -> Tensor:
    """Gaussian negative log-likelihood of the counts in windows, given their variances.

    It trains the variance only: through the mean its gradient vanishes where the network is unsure,
    so hard places would never be learned (Seitzer et al., On the pitfalls of heteroscedastic
    uncertainty estimation with probabilistic neural networks, ICLR 2022). The mean has its own
    loss.

    Parameters
    ----------
    mean, variance, target
        Predicted mean, predicted variance and target of the count in each cell, ``(n, k, h, w)``.
        As in `density_loss`, NaN in the target means unknown.
    sides
        Sides of the windows, in cells.
    """
    error = mean.detach() - target
    total = mean.new_zeros(())
    for side in sides:
        area = side * side
        residual, spread = (F.avg_pool2d(x, side) * area for x in (error, variance))
        known = ~residual.isnan()
        residual, spread = residual[known], spread[known]
        if len(residual):
            total = total + F.gaussian_nll_loss(residual, torch.zeros_like(residual), spread)
    return total / len(sides)
