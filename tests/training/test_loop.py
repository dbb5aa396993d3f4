"""The loop: it learns, and an interruption leaves no trace."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from hrviewer.errors import HrviewerError
from hrviewer.training import ZippedStreams, density_loss, loop, train
from hrviewer.training.density_task import fit_gain, predict_count

from .fixtures import Squares, counted, toy


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def same(one: torch.nn.Module, two: torch.nn.Module) -> bool:
    a, b = one.state_dict(), two.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_interrupted_and_resumed_is_uninterrupted_bit_for_bit(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY", 7)
    full, _ = train(toy(), tmp_path / "whole", steps=40, seed=3, workers=0)

    def interrupt(step, loss, figures):
        if step == 25:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(toy(), tmp_path / "parts", steps=40, seed=3, workers=0, on_step=interrupt)
    state = torch.load(tmp_path / "parts", weights_only=True)
    assert state["step"] == 21
    torch.rand(5)  # the random state has changed in between
    inputs: list[int] = []
    parts, _ = train(
        toy(),
        tmp_path / "parts",
        steps=40,
        seed=3,
        workers=0,
        on_step=lambda step, loss, figures: inputs.append(step),
    )
    assert inputs == list(range(22, 41))
    assert same(full, parts)


@pytest.mark.slow
def test_another_process_makes_the_same_batches(tmp_path):
    here, _ = train(toy(), tmp_path / "here", steps=3, workers=0)
    beside, _ = train(toy(), tmp_path / "beside", steps=3, workers=1)
    assert same(here, beside)


def test_another_seed_is_another_network(tmp_path):
    one, _ = train(toy(), tmp_path / "one", steps=2, seed=0, workers=0)
    two, _ = train(toy(), tmp_path / "two", steps=2, seed=1, workers=0)
    assert not same(one, two)


def test_it_learns_to_count_and_reports_metrics(tmp_path):
    reported: list[tuple[int, dict[str, float]]] = []

    def watch(step, loss, figures):
        if figures is not None:
            reported.append((step, figures))

    task = toy()
    network, minutes = train(task, tmp_path / "c", steps=200, workers=0, on_step=watch)
    assert [step for step, _ in reported] == [50, 100, 150, 200]
    assert minutes > 0
    gain = task.calibrate(network)["gain"]
    figures = task.evaluate(network)
    assert gain == pytest.approx(1, abs=0.2)
    assert figures["test"]["mae_over_mean"] < 0.15
    # On the data of the gain the relative error is minimal.
    spec = task.card.input
    result, expected = np.array([
        (predict_count(network, p.image, spec), p.count) for p in task.validation["validation"]
    ]).T  # fmt: skip
    off = [np.abs(factor * result / expected - 1).mean() for factor in (0.98, 1, 1.02)]
    assert off[1] == min(off)
    assert fit_gain(result, expected) == pytest.approx(1, abs=1e-4)


def test_the_gain_is_robust():
    result, expected = np.array([10.0, 20, 30, 300]), np.array([20.0, 40, 60, 150])
    tried = np.linspace(0.2, 4, 20_001)
    off = np.abs(tried[:, None] * result / expected - 1).mean(1)
    gain = fit_gain(result, expected)
    assert gain == pytest.approx(tried[off.argmin()], abs=2e-4)
    assert np.abs(gain * result / expected - 1).mean() <= off.min() + 1e-9


def test_the_gain_may_be_set_on_other_images(tmp_path):
    network, _ = train(toy(), tmp_path / "c", steps=20, workers=0)
    gauge = {"others": [counted(seed) for seed in range(300, 303)]}
    reported = toy(calibration=gauge).calibrate(copy.deepcopy(network))["gain"]
    assert reported != toy().calibrate(copy.deepcopy(network))["gain"]
    assert reported == toy(validation=gauge).calibrate(network)["gain"]


def test_the_checkpoint_of_another_run_is_refused(tmp_path):
    train(toy(), tmp_path / "c", steps=2, workers=0)
    with pytest.raises(HrviewerError, match="of another training: remove it"):
        train(toy(), tmp_path / "c", steps=3, workers=0)


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path):
    class Wild:
        def __getattr__(self, name):
            return getattr(toy(), name)

        def loss(self, network, batch):
            return density_loss(network(batch[0]).float(), batch[1]) / 0

    with pytest.raises(HrviewerError, match="at step 1: lower"):
        train(Wild(), tmp_path / "c", steps=2, workers=0)


def test_zipped_streams_concatenate_in_order():
    both = ZippedStreams(Squares(5, 0), Squares(5, 1))
    assert len(both) == 5
    images, densities = both[2]
    assert torch.equal(images, torch.cat([Squares(5, 0)[2][0], Squares(5, 1)[2][0]]))
    assert torch.equal(densities[4:], Squares(5, 1)[2][1])
