"""A scout predicts the counts of main, with uncertainty."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hrviewer.errors import HrviewerError
from hrviewer.models import open_bundle
from hrviewer.models.loaders.torch import count_flops
from hrviewer.training import DistilledScout, TaskSet, train, write_role
from hrviewer.training.density_task import build, fit_gain, normalise
from hrviewer.training.distillation import _distillation_metrics

from .fixtures import CARD, Pictures, picture

TASKS = TaskSet("Squares", "Counts squares.", {})


@pytest.fixture
def bundle(tmp_path):
    torch.manual_seed(0)
    network = build(CARD.architecture)
    write_role(
        tmp_path / "bundle", "squares", TASKS, "main", network, CARD, training={}, metrics={}
    )
    return tmp_path / "bundle"


@pytest.fixture
def task(bundle):
    return DistilledScout.from_bundle(
        bundle,
        {"data": "squares"},
        Pictures,
        downsample=2,
        validation=[picture(seed, 128) for seed in range(8)],
        test=[picture(seed, 128) for seed in range(8, 16)],
        tile=32,
        device="cpu",
    )


def test_its_card_follows_from_mains(task):
    card = task.card
    assert card.input.downsample == 2
    assert card.output.variance
    assert card.output_channels == 2
    assert card.classes == CARD.classes
    assert card.output.halo == build(card.architecture).halo


def test_its_target_is_mains_count(task, bundle):
    images = torch.stack([picture(seed, 64) for seed in range(2)])
    main = open_bundle(bundle).load("main", "cpu")
    full = main(normalise(images, CARD.input).numpy())
    target = task._teacher_density(images)
    assert target.shape == (2, 1, 8, 8)  # cells of 4 pixels of a picture shrunk by 2
    np.testing.assert_allclose(target.sum((1, 2, 3)), full.sum((1, 2, 3)), rtol=1e-4)
    np.testing.assert_allclose(target[0, 0, 3, 5], full[0, 0, 6:8, 10:12].sum(), rtol=1e-4)


def test_calibrated_its_counts_and_the_spread_of_its_errors_are_right(task, tmp_path):
    network, _ = train(task, tmp_path / "checkpoint", steps=5, workers=0)
    task.calibrate(network)
    _, pictures = task._tile_sums(network, task.validation)
    assert fit_gain(pictures[:, 0], pictures[:, 2]) == pytest.approx(1, rel=1e-3)
    assert task.validate(network)["spread"] == pytest.approx(1, abs=1e-3)


def test_the_saved_network_predicts_density_and_variance(task, bundle, tmp_path):
    network, _ = train(task, tmp_path / "checkpoint", steps=2, workers=0)
    write_role(bundle, "squares", TASKS, "scout", network, task.card, training={}, metrics={})
    scout = open_bundle(bundle).load("scout", "cpu")
    small = torch.nn.functional.avg_pool2d(picture(5, 128), 2)
    out = scout(scout.card.prepare(small.permute(1, 2, 0).numpy() * 255)[None])
    assert out.shape == (1, 2, 16, 16)
    assert (out[:, 1] > 0).all()
    assert "main" in open_bundle(bundle).roles


def test_images_in_bytes_are_the_same(task):
    network = build(task.card.architecture)
    pictures = task.validation[:2]
    bytes_ = [(p * 255).round().byte() for p in pictures]
    for one, two in zip(
        task._tile_sums(network, pictures), task._tile_sums(network, bytes_), strict=True
    ):
        np.testing.assert_allclose(one, two, rtol=1e-5)


def test_its_cost_is_relative_to_mains(task, bundle):
    network = build(task.card.architecture)
    main = open_bundle(bundle).load("main", "cpu")
    flops = count_flops(network.to("meta"), "forward", (1, 3, 64, 64))
    # 64 pixels of its own are 128 of main's.
    assert task._relative_flops(network) == pytest.approx(flops / main.flops(128, 128), rel=1e-6)


def test_metrics_of_a_scout_with_correct_uncertainty():
    rng = np.random.default_rng(0)
    expected = rng.gamma(1, 10, 20_000)
    variance = 1 + expected
    mean = expected + rng.normal(size=20_000) * np.sqrt(variance)
    tiles = np.stack([mean, variance, expected], -1)
    figures = _distillation_metrics(tiles, tiles.reshape(20, 1000, 3).sum(1))
    assert figures["spread"] == pytest.approx(1, abs=0.02)
    assert figures["coverage_95"] == pytest.approx(0.95, abs=0.005)
    assert figures["correlation"] == pytest.approx(np.corrcoef(mean, expected)[0, 1], abs=1e-4)
    # The tenth with most of an exponential holds (1 + ln 10) / 10 of it; noise mixes some up.
    assert 0.28 < figures["count_in_top_tenth"] < 0.33
    assert figures["count_error"] < 0.02


def test_without_a_main_there_is_no_teacher(tmp_path):
    with pytest.raises(HrviewerError, match=r"no bundle\.json"):
        DistilledScout.from_bundle(tmp_path, {}, Pictures, validation=[], test=[])


def test_a_scanner_covers_every_pixel(bundle):
    task = DistilledScout.from_bundle(
        bundle, {}, Pictures, role="scanner", validation=[], test=[], tile=32, device="cpu"
    )
    card, network = task.card, build(task.card.architecture).eval()
    assert (card.input.downsample, card.stride, card.output.margin) == (1, 8, 24)
    predicted = network(normalise(task._model_input(torch.rand(1, 3, 128, 64)), card.input))
    assert predicted.shape == (1, 2, 16, 8)
    assert task._teacher_density(torch.rand(1, 3, 128, 64)).shape == (1, 1, 16, 8)
