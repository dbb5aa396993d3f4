"""Random scales and warps of training crops: pixels and mass agree."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hrviewer.ground_truth import GroundTruth
from hrviewer.pyramid.resample import block_mean
from hrviewer.training.warps import Warp, mass_between, random_warp, warp_pixels


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_a_whole_scale_is_the_pyramid_s(factor):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 64, 3)).astype(np.float64)
    warp = Warp(np.arange(0, 33.0, factor), np.arange(0, 65.0, factor))
    expected = torch.from_numpy(block_mean(pixels, factor)).permute(2, 0, 1).float()
    torch.testing.assert_close(warp_pixels(pixels, warp), expected)


def test_warps_have_the_asked_scales_and_ascend():
    rng = np.random.default_rng(1)
    warps = [random_warp(rng, 48, (1.0, 8.0), bent=0.5) for _ in range(300)]
    scales = np.array([[warp.rows[-1], warp.columns[-1]] for warp in warps]) / 48
    assert all(warp.finest > 0.4 for warp in warps)
    # Logarithms are uniform: a third of the mean scales per octave.
    mean = np.sqrt(scales.prod(axis=1))
    shares = np.histogram(np.log2(mean), [0, 1, 2, 3])[0] / 300
    assert shares == pytest.approx([1 / 3] * 3, abs=0.08)
    assert 0.05 < np.std(np.log(scales[:, 0] / scales[:, 1])) < 0.2


def test_objects_keep_their_mass_and_lie_where_they_are_shown():
    rng = np.random.default_rng(2)
    for _ in range(8):
        warp = random_warp(rng, 64, (2.0, 4.0), bent=1.0)
        h, w = warp.sides
        points = np.array([[0.3 * h, 0.6 * w]])
        boxes = np.hstack([points - 12, np.full((1, 2), 24.0)])
        mass = mass_between(GroundTruth(points, boxes=boxes), warp.rows[::4], warp.columns[::4])[0]
        assert float(mass.sum()) == pytest.approx(1, abs=1e-3)
        ys, xs = (np.arange(n) + 0.5 for n in (h, w))
        spot = np.exp(-((ys[:, None] - points[0, 0]) ** 2 + (xs - points[0, 1]) ** 2) / 60)
        image = warp_pixels(spot[..., None], warp)[0]
        for shown, axis in ((image.sum(1), 0), (image.sum(0), 1)):
            centre = float((shown * (torch.arange(64) + 0.5)).sum() / shown.sum())
            cells = mass.sum(1 - axis)
            expected = float((cells * (torch.arange(16) * 4 + 2)).sum() / cells.sum())
            assert centre == pytest.approx(expected, abs=1.0)


def test_a_warp_is_limited_to_its_source():
    warp = Warp(np.linspace(0, 300, 33), np.linspace(0, 90, 33)).limited(200, 100)
    assert (warp.rows[-1], warp.columns[-1]) == (200, 90)


def test_a_limited_warp_is_never_longer_than_its_source():
    """A product that rounds up must not ask for a row more than there are."""
    rng = np.random.default_rng(3)
    for _ in range(400):
        length = int(rng.integers(40, 300))
        warp = random_warp(rng, 40, (7.0, 8.0), bent=0.3).limited(length, length)
        assert warp.sides == (min(warp.sides[0], length), min(warp.sides[1], length))
        assert (np.diff(warp.rows) > 0).all()
