"""A policy is trained by reward to select tiles for main."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from hrviewer.errors import HrviewerError
from hrviewer.models import open_bundle
from hrviewer.models.architectures import TilePolicy
from hrviewer.training import DistilledScout, PolicyTask, TaskSet, policy_task, train, write_role
from hrviewer.training.density_task import build
from hrviewer.training.policy_task import EXPLORATION, reinforce, reward

from .fixtures import CARD, Pictures, picture

TASKS = TaskSet("Squares", "Counts squares.", {})
SIDE = 64
"""Side of a tile: 16 pixels of an image downsampled by 4."""


class Wide(Pictures):
    """Images of four tiles."""

    def __getitem__(self, step):
        return (picture((self.seed, step), 2 * SIDE)[None],)


def lots(start):
    return [picture(seed, 4 * SIDE) for seed in range(start, start + 3)]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A bundle that no test changes."""
    torch.manual_seed(0)
    main, folder = build(CARD.architecture), tmp_path_factory.mktemp("bundles") / "bundle"
    write_role(folder, "squares", TASKS, "main", main, CARD, training={}, metrics={})
    return folder


@pytest.fixture(scope="module")
def with_scout(bundle, tmp_path_factory):
    folder = Path(shutil.copytree(bundle, tmp_path_factory.mktemp("bundles") / "scouted"))
    scout_task = DistilledScout.from_bundle(
        folder, {}, Wide, downsample=4, validation=[], test=[], device="cpu"
    )
    scout = scout_task.create_model()
    write_role(folder, "squares", TASKS, "scout", scout, scout_task.card, training={}, metrics={})
    return folder


@pytest.fixture
def scouted(with_scout, tmp_path):
    return Path(shutil.copytree(with_scout, tmp_path / "scouted"))


def make_task(bundle):
    return PolicyTask.from_bundle(bundle, {}, Wide, validation=lots(0), test=lots(3), device="cpu")


def test_a_policy_needs_a_scout(bundle):
    with pytest.raises(HrviewerError, match="no scout"):
        make_task(bundle)


def test_the_reward_is_the_correction_less_the_price():
    looks, gain = torch.tensor([1.0, 1, 0, 1]), torch.tensor([3.0, 1, 8, 400])
    assert reward(looks, gain, 2.0).tolist() == [0.5, -0.5, 0, policy_task.MAX_REWARD - 1]


def test_the_gradient_is_that_of_the_expected_reward(monkeypatch):
    monkeypatch.setattr(policy_task, "SAMPLES_PER_IMAGE", 200_000)
    torch.manual_seed(0)
    logits = torch.tensor([[[1.0, -0.5], [0.2, -2.0]]], requires_grad=True)
    gain, price = torch.tensor([[[3.0, 0.0], [1.5, 9.0]]]), 2.0
    reinforce(logits, gain, price).backward()
    chance = torch.sigmoid(logits.detach())
    slope = (1 - 2 * EXPLORATION) * chance * (1 - chance)
    expected = -slope * (gain / price - 1) / 4
    torch.testing.assert_close(logits.grad, expected, rtol=0.05, atol=2e-4)


@pytest.mark.slow
def test_it_learns_to_select_rewarding_tiles():
    torch.manual_seed(0)
    network = TilePolicy(widths=(4, 4, 8, 8))
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)

    def tiles(n):
        bright = (torch.rand(n, 4, 4) < 0.3).float()
        grown = bright.repeat_interleave(16, 1).repeat_interleave(16, 2)
        return grown[:, None].expand(-1, 3, -1, -1) + 0.1 * torch.randn(n, 3, 64, 64), bright

    for _ in range(60):
        images, bright = tiles(4)
        optimizer.zero_grad()
        reinforce(network(images)[:, 0], 2.5 * bright, 1.0).backward()
        optimizer.step()
    images, bright = tiles(16)
    looks = (network.eval()(images)[:, 0] > 0).float()
    assert (looks == bright).float().mean() > 0.95


def test_targets_are_the_corrections_by_main(scouted):
    made = make_task(scouted)
    networks = open_bundle(scouted)
    main, scout = (networks.load(role, "cpu") for role in ("main", "scout"))
    image = picture(5, 2 * SIDE)
    targets = made._measure_targets(image[None])
    small = torch.nn.functional.avg_pool2d(image, 4)
    assert targets.model_input.shape == (1, 3, 32, 32)
    there = main(main.card.prepare(image.permute(1, 2, 0).numpy() * 255)[None])
    predicted = scout(scout.card.prepare(small.permute(1, 2, 0).numpy() * 255)[None])
    tile = there[0, 0, 16:, :16].sum() - predicted[0, 0, 4:, :4].sum()
    assert float(targets.gain[0, 1, 0]) == pytest.approx(abs(tile), rel=1e-3)
    assert float(targets.uncertainty[0, 1, 0]) == pytest.approx(
        np.sqrt(predicted[0, 1, 4:, :4].sum()), rel=1e-3
    )


@pytest.mark.slow
def test_trained_saved_and_loaded(scouted, tmp_path, monkeypatch):
    monkeypatch.setattr(policy_task, "BANK_SIZE", 2)
    made = make_task(scouted)
    card = made.card
    assert (card.task, card.stride, card.input.downsample) == ("saliency", 16, 4)
    network, _ = train(made, tmp_path / "checkpoint", steps=5, workers=0)
    assert len(made._batch_targets) == 2  # main ran on as many batches
    predicted = made.calibrate(network)
    gains = torch.cat([made._targets_of(p).gain.flatten() for p in made.validation])
    assert (gains > predicted["price"]).float().mean() == pytest.approx(
        policy_task.TARGET_FRACTION, abs=0.02
    )
    figures = made.evaluate(network)
    assert 0 <= figures["selected"] <= 1
    assert figures["corrected"] <= figures["corrected_by_oracle"] <= 1
    assert figures["relative_flops"] > 0
    write_role(scouted, "squares", TASKS, "policy", network, card, training={}, metrics=figures)
    loaded = open_bundle(scouted).load("policy", "cpu")
    out = loaded(np.zeros((1, 3, 64, 96), np.float32))
    assert out.shape == (1, 1, 4, 6)
    assert (out > 0).all()
    assert (out < 1).all()


def test_the_same_whether_it_was_interrupted(scouted, tmp_path, monkeypatch):
    monkeypatch.setattr(policy_task, "BANK_SIZE", 2)
    monkeypatch.setattr("hrviewer.training.loop.CHECKPOINT_EVERY", 2)
    full, _ = train(make_task(scouted), tmp_path / "one", steps=4, workers=0)

    def stop(step, loss, figures):
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(make_task(scouted), tmp_path / "two", steps=4, workers=0, on_step=stop)
    again, _ = train(make_task(scouted), tmp_path / "two", steps=4, workers=0)
    for one, other in zip(full.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
