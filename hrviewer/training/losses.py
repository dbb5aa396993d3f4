"""What is to become small: errors of counts, and of what is said about their size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["WINDOWS", "density_loss", "variance_loss"]

WINDOWS = ((1, 2.0, 0.03), (4, 0.5, 0.15), (10, 0.4, 0.4), (40, 0.3, 1.5))
"""Of a density of stride 4: side in cells, weight, and the little that is added to a count."""


def density_loss(
    output: Tensor, target: Tensor, windows: Sequence[tuple[int, float, float]] = WINDOWS
) -> Tensor:
    """Squared error of the counts in windows, each over what is expected there.

    A count of chance events varies as its mean, so an error is weighed by the count plus a little.
    That is the estimate's own: weighed by the target's, doubt would pull every count down.

    Parameters
    ----------
    output, target
        Densities ``(n, k, h, w)``. Where the target is NaN nothing is known; a window that holds
        any of that teaches nothing.
    windows
        Side in cells (at most the density's own), weight, and the little, of each size of window.
    """
    total = output.new_zeros(())
    for side, weight, little in windows:
        side = min(side, *output.shape[-2:])
        area = side * side
        found, there = (F.avg_pool2d(x, side) * area for x in (output, target))
        there = torch.where(there.isnan(), found.detach(), there)
        total = total + weight * ((found - there) ** 2 / (found.detach() + little)).mean()
    return total


def variance_loss(
    mean: Tensor, variance: Tensor, target: Tensor, sides: Sequence[int] = (1, 2, 4, 8)
) -> Tensor:
    """Gaussian negative log-likelihood of the counts in windows, given their variances.

    It teaches the variance only: through the mean its gradient vanishes where the network is
    unsure, and hard places would never be learned (Seitzer et al., On the pitfalls of
    heteroscedastic uncertainty estimation with probabilistic neural networks, ICLR 2022). The
    mean has its own loss.

    Parameters
    ----------
    mean, variance, target
        Of the count in each cell, ``(n, k, h, w)``.
    sides
        Of the windows, in cells.
    """
    error = mean.detach() - target
    total = mean.new_zeros(())
    for side in sides:
        area = side * side
        missed, spread = (F.avg_pool2d(x, side) * area for x in (error, variance))
        total = total + F.gaussian_nll_loss(missed, missed.new_zeros(()).expand_as(missed), spread)
    return total / len(sides)
