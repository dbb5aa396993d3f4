"""Synthetic images for training: crops, and the density of their objects."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hrviewer.geometry import Rect
from hrviewer.ground_truth import GroundTruth
from hrviewer.pyramid.synthetic import SyntheticImage
from hrviewer.training import CropStream, FullImages, counted_image, density_map, synthetic_data


class Corner(SyntheticImage):
    """Every pixel is its seed's; 40 objects, all in the first quarter."""

    title, classes, version = "Corner", ("thing",), 1

    def render(self, rect, scale):
        return np.full((rect.h // scale, rect.w // scale, 3), self.seed % 256, np.uint8)

    def ground_truth(self, rect):
        points = np.random.default_rng(self.seed).uniform(20, self.size / 2 - 20, (40, 2))
        return GroundTruth(
            points, boxes=np.column_stack([points - 5, np.full((40, 2), 10.0)])
        ).clip(rect)

    def labels(self, rect):
        raise NotImplementedError


@pytest.fixture(autouse=True)
def corner(monkeypatch):
    monkeypatch.setattr(
        synthetic_data, "make_synthetic_image", lambda name, size, seed: Corner(size, seed)
    )


def test_every_object_has_mass_one_about_its_point():
    truth = GroundTruth(np.array([[50.0, 70.0], [90.0, 34.0]]), boxes=np.full((2, 4), 20.0))
    expected = density_map(truth, Rect(0, 0, 128, 160), 4)
    assert expected.shape == (1, 32, 40)
    assert float(expected.sum()) == pytest.approx(2, abs=1e-5)
    # Standard deviation 3: the cells from 48 to 52 and 68 to 72 are within 2 / 3 of it, both ways.
    assert float(expected[0, 12, 17]) == pytest.approx(0.49501**2, abs=1e-4)


def test_a_rectangle_gets_the_mass_inside():
    truth = GroundTruth(np.array([[64.0, 64.0]]))
    halves = [density_map(truth, Rect(0, x, 128, 64), 4) for x in (0, 64)]
    assert [float(half.sum()) for half in halves] == pytest.approx([0.5, 0.5])
    whole = density_map(truth, Rect(0, 0, 128, 128), 4)
    torch.testing.assert_close(torch.cat(halves, 2), whole)


def test_classes_have_separate_densities():
    truth = GroundTruth(
        np.array([[8.0, 8.0], [24.0, 24.0], [24.0, 8.0]]), ("a", "b"), np.array([0, 1, 1])
    )
    assert density_map(truth, Rect(0, 0, 32, 32), 4).sum((1, 2)).tolist() == pytest.approx(
        [1, 2], 1e-4
    )


def test_crops_depend_on_seed_and_number_alone():
    one = CropStream("corner", 5, 3, size=1024, side=64, batch=3, stride=4)
    images, expected = one[2]
    assert images.shape == (3, 3, 64, 64)
    assert expected.shape == (3, 1, 16, 16)
    assert 0 <= float(images.min()) <= float(images.max()) <= 1
    again = CropStream("corner", 9, 3, size=1024, side=64, batch=3, stride=4)[2]
    assert all(torch.equal(a, b) for a, b in zip((images, expected), again, strict=True))
    assert not torch.equal(images, one[2 + one.batches_per_image][0])
    assert len(CropStream("corner", 5, 3, size=1024, side=64)[0]) == 1  # without densities


def test_crops_around_objects_contain_one():
    def held(fraction: float) -> int:
        crops = CropStream(
            "corner", 20, 0, size=1024, side=128, batch=4, stride=4, object_fraction=fraction
        )
        return sum(int(mass > 0.5) for step in range(20) for mass in crops[step][1].sum((1, 2, 3)))

    assert held(1.0) >= 76
    assert 0 < held(0.0) < 40


def test_isolated_objects_are_as_likely_as_a_crowd(monkeypatch):
    crowd = np.random.default_rng(0).uniform(512, 576, (99, 2))
    points = np.vstack([crowd, [[100.0, 100.0]]])
    monkeypatch.setattr(Corner, "ground_truth", lambda self, rect: GroundTruth(points).clip(rect))
    crops = CropStream("corner", 0, 0, size=1024, side=64, object_fraction=1.0)
    rng = np.random.default_rng(1)
    alone = sum(crops._sample_rect(points, rng, (64, 64)).y < 128 for _ in range(400))
    assert 150 < alone < 250


@pytest.mark.parametrize(("density_exponent", "share"), [(0.5, 3 / 4), (1.0, 9 / 10)])
def test_crowds_are_drawn_by_a_power_of_their_count(density_exponent, share):
    points = np.array([[100.0, 100.0]] + [[500.0, 500.0]] * 9)
    crops = CropStream(
        "corner", 0, 0, size=1024, side=64, object_fraction=1, density_exponent=density_exponent
    )
    rng = np.random.default_rng(0)
    crowd = sum(crops._sample_rect(points, rng, (64, 64)).y > 300 for _ in range(2000)) / 2000
    assert crowd == pytest.approx(share, abs=0.04)


def test_some_pieces_are_seen_from_farther():
    crops = CropStream(
        "corner", 9, 3, size=1024, side=32, batch=6, stride=4, object_fraction=1, downscaled=4
    )
    counts = []
    for number in range(9):
        images, expected = crops[number]
        assert images.shape == (6, 3, 32, 32)
        assert expected.shape == (6, 1, 8, 8)
        counts.append(expected.sum((1, 2, 3)).numpy())
    near, far = np.array(counts)[:, 4:].mean(), np.array(counts)[:, :4].mean()
    # An area of up to 64 times as much holds more.
    assert far > 2 * near
    rng = np.random.default_rng(0)
    for lattice in (1, 2, 8):
        rect = crops._sample_rect(np.array([[700.0, 900.0]]), rng, (32, 64), lattice)
        assert (rect.h, rect.w) == (32, 64)
        assert rect.y % lattice == rect.x % lattice == 0
        assert rect in Rect(0, 0, 1024, 1024)


def test_things_of_every_size_are_seen_as_often():
    crops = CropStream("corner", 0, 0, size=10_064, side=64, object_fraction=0, size_gradient=10)
    rng = np.random.default_rng(1)
    tops = np.array([crops._sample_rect(np.empty((0, 2)), rng, (64, 64)).y for _ in range(4000)])
    # Sizes grow from 1 to 10 along the side: half of the places are above that of √10.
    assert np.median(tops) == pytest.approx(10_000 * (np.sqrt(10) - 1) / 9, rel=0.08)
    assert 0 <= tops.min() < tops.max() <= 10_000


def test_whole_pictures_come_with_their_count():
    whole = counted_image("corner", 1024, 10_007)
    assert whole.image.dtype == torch.uint8
    assert whole.image.shape == (3, 1024, 1024)
    assert whole.count == 40


def test_whole_scenes_are_made_when_they_are_asked_for():
    lot = FullImages("corner", 256, [11, 12, 13])
    assert len(lot) == len(list(lot)) == 3
    assert torch.equal(lot[1].image, counted_image("corner", 256, 12).image)
    assert [one.count for one in lot] == [
        counted_image("corner", 256, seed).count for seed in (11, 12, 13)
    ]
