"""The losses against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from hrviewer.training import density_loss, variance_loss


def test_density_loss_is_the_weighted_squared_error_of_the_windows():
    result, expected = torch.full((1, 1, 4, 4), 2.0), torch.full((1, 1, 4, 4), 3.0)
    # Windows of one cell: (2 - 3)² / (2 + 0.5); of four: (8 - 12)² / (8 + 1).
    windows = ((1, 1.0, 0.5), (2, 0.25, 1.0))
    assert float(density_loss(result, expected, windows)) == pytest.approx(1 / 2.5 + 0.25 * 16 / 9)
    assert float(density_loss(expected, expected)) == 0


def test_no_window_is_larger_than_the_density():
    result, expected = torch.full((1, 1, 2, 2), 2.0), torch.full((1, 1, 2, 2), 3.0)
    assert float(density_loss(result, expected, ((40, 1.0, 1.0),))) == pytest.approx(16 / 9)


def test_the_divisor_of_an_error_does_not_bias_the_count():
    # d/df (f - t)² / const = 2 (f - t) / const: without the quotient's own derivative.
    result = torch.full((1, 1, 1, 1), 2.0, requires_grad=True)
    density_loss(result, torch.full((1, 1, 1, 1), 3.0), ((1, 1.0, 0.5),)).backward()
    assert result.grad.item() == pytest.approx(-2 / 2.5)


def test_variance_loss_is_the_gaussian_log_likelihood_and_leaves_the_mean_alone():
    mean = torch.full((1, 1, 2, 2), 1.0, requires_grad=True)
    variance = torch.full((1, 1, 2, 2), 0.5, requires_grad=True)
    target = torch.tensor([[[[1.0, 2.0], [3.0, 0.0]]]])
    value = variance_loss(mean, variance, target, sides=(1, 2))
    # Errors 0, -1, -2, 1 in cells; their sum, -2, in the one window of four, of variance 2.
    cells = 0.5 * (math.log(0.5) + (0 + 1 + 4 + 1) / 4 / 0.5)
    window = 0.5 * (math.log(2.0) + 4 / 2)
    assert value.item() == pytest.approx((cells + window) / 2)
    value.backward()
    assert mean.grad is None
    assert variance.grad.abs().sum() > 0


def test_variance_loss_is_least_where_the_variance_is_that_of_the_errors():
    target = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0)) * 1.5
    losses = {
        v: float(variance_loss(torch.zeros_like(target), torch.full_like(target, v), target, (1,)))
        for v in (1.0, 1.8, 2.25, 2.8, 4.0)
    }
    assert min(losses, key=losses.__getitem__) == 2.25


def test_unknown_windows_have_no_loss():
    result = torch.arange(16.0).reshape(1, 1, 4, 4).requires_grad_()
    expected = torch.full((1, 1, 4, 4), 3.0)
    expected[..., :2, :2] = math.nan
    density_loss(result, expected, ((1, 1.0, 0.5), (2, 0.25, 1.0))).backward()
    assert not result.grad[..., :2, :2].any()
    assert result.grad[..., 2:, :].all()
    some = density_loss(result[..., 2:], expected[..., 2:], ((2, 1.0, 1.0),))
    # Half of the windows of four, since the upper left one holds what is not known.
    left = density_loss(result[..., 2:, :2], expected[..., 2:, :2], ((2, 1.0, 1.0),))
    whole = density_loss(result, expected, ((2, 1.0, 1.0),))
    assert whole.item() == pytest.approx((2 * some.item() + left.item()) / 4)
