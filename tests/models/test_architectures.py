"""What hrviewer's own architectures promise."""

from __future__ import annotations

import pytest
import torch

from hrviewer.models.architectures import DensityUNet

SMALL = {"widths": (4, 6, 8, 10), "blocks": (1, 0, 1)}


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def test_variances_come_after_the_densities_and_are_positive(image):
    torch.manual_seed(0)
    network = DensityUNet(classes=2, variance=True, **SMALL).eval()
    out = network(image)
    assert out.shape == (2, 4, 16, 24)
    assert (out[:, :2] >= 0).all()
    assert (out[:, 2:] > 0).all()


def test_the_unit_is_what_the_last_layers_one_stands_for(image):
    outputs = []
    for unit in (1 / 16, 1.0):
        torch.manual_seed(0)
        outputs.append(DensityUNet(unit=unit, variance=True, **SMALL).eval()(image))
    torch.testing.assert_close(outputs[1], 16 * outputs[0])


def test_rescaling_multiplies_counts_and_variances_by_constants(image):
    torch.manual_seed(0)
    network = DensityUNet(classes=2, variance=True, **SMALL).eval()
    before = network(image)
    network.rescale(1.5, 0.3)
    after = network(image)
    torch.testing.assert_close(after[:, :2], 1.5 * before[:, :2])
    torch.testing.assert_close(after[:, 2:], 0.3 * before[:, 2:])
