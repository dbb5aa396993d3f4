from __future__ import annotations

import numpy as np
import pytest

from hrviewer.errors import HrviewerError
from hrviewer.models import BUILTINS, builtin
from hrviewer.models.probe import measure_halo, validate_network


def flat(value: float, side: int = 32) -> np.ndarray:
    return np.full((1, 3, side, side), value, np.float32)


def checkers(side: int = 64, square: int = 1) -> np.ndarray:
    y, x = np.mgrid[:side, :side] // square
    return (255.0 * ((y + x) % 2))[None, None].repeat(3, 1).astype(np.float32)


@pytest.mark.parametrize("role", BUILTINS)
def test_all_keep_the_contract(role: str) -> None:
    net = builtin(role)
    assert net is builtin(role)
    assert net.card.task == "saliency"
    assert BUILTINS[role] == net.card.title
    validate_network(net)
    s = net.stride
    out = net(np.random.default_rng(0).uniform(0, 255, (2, 3, 35, 50)).astype(np.float32))
    assert out.shape == (2, 1, -(-35 // s), -(-50 // s))
    assert net.flops(64, 32) == 2 * net.flops(32, 32) > 0
    assert measure_halo(net, seeds=1) <= net.halo


def test_thumbnail_is_the_grey_level() -> None:
    np.testing.assert_allclose(builtin("@thumbnail")(flat(77)), 77, rtol=1e-6)
    red = flat(0)
    red[:, 0] = 100
    np.testing.assert_allclose(builtin("@thumbnail")(red), 29.9, atol=0.01)


def test_gradient() -> None:
    net = builtin("@gradient")
    np.testing.assert_allclose(net(flat(200)), 0, atol=1e-3)
    ramp = np.arange(64, dtype=np.float32)[None, None, None].repeat(3, 1).repeat(64, 2)
    # One grey level per pixel, away from the border.
    np.testing.assert_allclose(net(ramp)[..., 2:-2, 2:-2], 1, atol=1e-3)
    # A checkerboard of single pixels has no slope at a scale of a pixel.
    np.testing.assert_allclose(net(checkers())[..., 2:-2, 2:-2], 0, atol=0.1)
    # A step of 160 has a slope with the Gaussian's own profile: its peak is 160 / sqrt(2 pi).
    step = flat(0)
    step[..., 16:] = 160
    profile = 160 * np.exp(-((np.arange(4) + 0.5) ** 2) / 2) / np.sqrt(2 * np.pi)
    np.testing.assert_allclose(net(step)[0, 0, 4, 4], profile.mean(), rtol=0.03)


def test_entropy_in_bits() -> None:
    net = builtin("@entropy")
    assert net(flat(13)).max() == 0
    np.testing.assert_allclose(net(checkers()), 1)
    # Every grey level once: eight bits.
    levels = np.arange(256, dtype=np.float32).reshape(16, 16)[None, None].repeat(3, 1)
    np.testing.assert_allclose(net(levels), 8)
    quarter = flat(0, 16)
    quarter[..., :4] = 255
    p = np.array([0.25, 0.75])
    np.testing.assert_allclose(net(quarter), -(p * np.log2(p)).sum(), rtol=1e-6)


def test_foreground_is_neither_white_nor_grey_glass() -> None:
    net = builtin("@foreground")
    assert net(flat(255)).max() < 0.01
    assert net(flat(235)).max() < 0.05
    pink = flat(0)
    pink[0] = np.array([205, 150, 190], np.float32)[:, None, None]
    assert net(pink).min() > 0.99
    assert net(flat(30)).min() > 0.99


def test_a_role_that_is_not_built_in() -> None:
    with pytest.raises(HrviewerError, match="@gradient"):
        builtin("@magic")
