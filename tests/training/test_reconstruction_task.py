"""An encoder trained on unlabelled images, next to one trained on main's counts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hrviewer.models.card import Architecture, ModelOutput
from hrviewer.training import DenoisingTask, EncoderTask, TaskSet, train, write_role
from hrviewer.training.density_task import build
from hrviewer.training.reconstruction_task import add_noise

from .fixtures import CARD, Pictures, picture

TASKS = TaskSet("Squares", "Counts squares.", {})
NETWORK = Architecture(
    name="density-unet", params={"widths": [4, 6, 8, 10], "blocks": [1, 1, 1], "unit": 1.0}
)
MAIN = CARD.model_copy(
    update={"architecture": NETWORK, "output": ModelOutput(stride=4, halo=96, classes=("square",))}
)


@pytest.fixture(autouse=True)
def one_backend(monkeypatch):
    monkeypatch.setenv("HRVIEWER_BACKEND", "torch")


def task(bundle, kind: type[EncoderTask] = DenoisingTask) -> EncoderTask:
    return kind.from_bundle(
        bundle,
        {"data": "squares"},
        Pictures,
        validation=[picture(seed, 128) for seed in range(4)],
        test=[picture(seed, 128) for seed in range(4, 8)],
        tile=32,
        device="cpu",
    )


def written(folder, role, network, card):
    write_role(folder, "squares", TASKS, role, network, card, training={}, metrics={})
    return folder


@pytest.mark.slow
def test_it_learns_the_appearance_and_reports_metrics(tmp_path):
    torch.manual_seed(0)
    bundle = written(tmp_path / "bundle", "main", build(NETWORK), MAIN)
    denoising = task(bundle)
    network, _ = train(denoising, tmp_path / "checkpoint", steps=120, workers=0)
    assert (
        denoising.validate(network)["reconstruction_error"]
        < 0.9 * denoising.validate(denoising.create_model())["reconstruction_error"]
    )
    reported = denoising.evaluate(network)
    assert "supervised_encoder" not in reported
    assert -1 <= reported["correlation"] <= 1
    # Compared with itself, it has the same metrics.
    again = task(written(bundle, "encoder", network, denoising.card))
    reported = again.evaluate(network)
    own = {name: reported[name] for name in ("count_error", "correlation")}
    assert reported["supervised_encoder"] == pytest.approx(own, abs=0.02)


def test_ridge_regression_finds_counts_that_are_linear_in_embeddings(tmp_path):
    torch.manual_seed(0)
    denoising = task(written(tmp_path / "bundle", "main", build(NETWORK), MAIN))
    # Embeddings that hold main's counts, and noise.
    rng = np.random.default_rng(0)

    def encode(images):
        counts = denoising._teacher_density(images).sum(1, keepdim=True)
        noise = torch.from_numpy(rng.normal(size=(1, 3, *counts.shape[2:]))).float()
        return torch.cat([3 * counts + 1, noise], 1)

    figures = denoising._ridge_metrics(encode)
    assert figures["count_error"] < 0.01
    assert figures["correlation"] > 0.99


def test_noise_and_tint_are_added():
    torch.manual_seed(0)
    off = add_noise(torch.zeros(64, 3, 32, 32))
    assert float(off.mean((2, 3)).std()) == pytest.approx(0.1, rel=0.2)
    assert float(off.std((2, 3)).mean()) == pytest.approx(0.05, rel=0.05)
