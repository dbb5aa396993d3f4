"""A scout guesses what main counts, and how surely."""

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
def pack(tmp_path):
    torch.manual_seed(0)
    network = build(CARD.architecture)
    write_role(tmp_path / "pack", "squares", TASKS, "main", network, CARD, training={}, metrics={})
    return tmp_path / "pack"


@pytest.fixture
def lesson(pack):
    return DistilledScout.from_bundle(
        pack,
        {"data": "squares"},
        Pictures,
        downsample=2,
        validation=[picture(seed, 128) for seed in range(8)],
        test=[picture(seed, 128) for seed in range(8, 16)],
        tile=32,
        device="cpu",
    )


def test_its_card_follows_from_mains(lesson):
    card = lesson.card
    assert card.input.downsample == 2
    assert card.output.variance
    assert card.output_channels == 2
    assert card.classes == CARD.classes
    assert card.output.halo == build(card.architecture).halo


def test_its_target_is_mains_count(lesson, pack):
    images = torch.stack([picture(seed, 64) for seed in range(2)])
    main = open_bundle(pack).load("main", "cpu")
    whole = main(normalise(images, CARD.input).numpy())
    target = lesson._teacher_density(images)
    assert target.shape == (2, 1, 8, 8)  # cells of 4 pixels of a picture shrunk by 2
    np.testing.assert_allclose(target.sum((1, 2, 3)), whole.sum((1, 2, 3)), rtol=1e-4)
    np.testing.assert_allclose(target[0, 0, 3, 5], whole[0, 0, 6:8, 10:12].sum(), rtol=1e-4)


def test_calibrated_its_counts_and_the_spread_of_its_errors_are_right(lesson, tmp_path):
    network, _ = train(lesson, tmp_path / "checkpoint", steps=5, workers=0)
    lesson.calibrate(network)
    _, pictures = lesson._tile_sums(network, lesson.validation)
    assert fit_gain(pictures[:, 0], pictures[:, 2]) == pytest.approx(1, rel=1e-3)
    assert lesson.validate(network)["spread"] == pytest.approx(1, abs=1e-3)


def test_what_is_written_loads_and_says_density_and_variance(lesson, pack, tmp_path):
    network, _ = train(lesson, tmp_path / "checkpoint", steps=2, workers=0)
    write_role(pack, "squares", TASKS, "scout", network, lesson.card, training={}, metrics={})
    scout = open_bundle(pack).load("scout", "cpu")
    small = torch.nn.functional.avg_pool2d(picture(5, 128), 2)
    out = scout(scout.card.prepare(small.permute(1, 2, 0).numpy() * 255)[None])
    assert out.shape == (1, 2, 16, 16)
    assert (out[:, 1] > 0).all()
    assert "main" in open_bundle(pack).roles


def test_pictures_in_bytes_are_the_same(lesson):
    network = build(lesson.card.architecture)
    pictures = lesson.validation[:2]
    bytes_ = [(p * 255).round().byte() for p in pictures]
    for one, two in zip(
        lesson._tile_sums(network, pictures), lesson._tile_sums(network, bytes_), strict=True
    ):
        np.testing.assert_allclose(one, two, rtol=1e-5)


def test_its_cost_is_told_over_mains(lesson, pack):
    network = build(lesson.card.architecture)
    main = open_bundle(pack).load("main", "cpu")
    flops = count_flops(network.to("meta"), "forward", (1, 3, 64, 64))
    # 64 pixels of its own are 128 of main's.
    assert lesson._relative_flops(network) == pytest.approx(flops / main.flops(128, 128), rel=1e-6)


def test_figures_of_a_scout_that_knows_how_sure_it_is():
    rng = np.random.default_rng(0)
    there = rng.gamma(1, 10, 20_000)
    variance = 1 + there
    mean = there + rng.normal(size=20_000) * np.sqrt(variance)
    tiles = np.stack([mean, variance, there], -1)
    figures = _distillation_metrics(tiles, tiles.reshape(20, 1000, 3).sum(1))
    assert figures["spread"] == pytest.approx(1, abs=0.02)
    assert figures["coverage_95"] == pytest.approx(0.95, abs=0.005)
    assert figures["correlation"] == pytest.approx(np.corrcoef(mean, there)[0, 1], abs=1e-4)
    # The tenth with most of an exponential holds (1 + ln 10) / 10 of it; noise mixes some up.
    assert 0.28 < figures["count_in_top_tenth"] < 0.33
    assert figures["count_error"] < 0.02


def test_without_a_main_there_is_nothing_to_learn_from(tmp_path):
    with pytest.raises(HrviewerError, match=r"no bundle\.json"):
        DistilledScout.from_bundle(tmp_path, {}, Pictures, validation=[], test=[])


def test_a_scanner_sees_every_pixel_and_answers_for_all_of_them(pack):
    lesson = DistilledScout.from_bundle(
        pack, {}, Pictures, role="scanner", validation=[], test=[], tile=32, device="cpu"
    )
    card, network = lesson.card, build(lesson.card.architecture).eval()
    assert (card.input.downsample, card.stride, card.output.margin) == (1, 8, 24)
    said = network(normalise(lesson._model_input(torch.rand(1, 3, 128, 64)), card.input))
    assert said.shape == (1, 2, 16, 8)
    assert lesson._teacher_density(torch.rand(1, 3, 128, 64)).shape == (1, 1, 16, 8)
