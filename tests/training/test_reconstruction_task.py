"""An encoder taught by pictures alone, beside one taught by main."""

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


def lesson(pack, kind: type[EncoderTask] = DenoisingTask) -> EncoderTask:
    return kind.from_bundle(
        pack,
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


def test_it_learns_what_places_look_like_and_says_what_that_is_worth(tmp_path):
    torch.manual_seed(0)
    pack = written(tmp_path / "pack", "main", build(NETWORK), MAIN)
    blind = lesson(pack)
    network, _ = train(blind, tmp_path / "checkpoint", steps=120, workers=0)
    assert (
        blind.validate(network)["reconstruction_error"]
        < 0.9 * blind.validate(blind.create_model())["reconstruction_error"]
    )
    told = blind.evaluate(network)
    assert "supervised_encoder" not in told
    assert -1 <= told["correlation"] <= 1
    # Beside itself, it is as good as itself.
    again = lesson(written(pack, "encoder", network, blind.card))
    told = again.evaluate(network)
    own = {name: told[name] for name in ("count_error", "correlation")}
    assert told["supervised_encoder"] == pytest.approx(own, abs=0.02)


def test_a_head_reads_counts_that_are_linear_in_the_codes(tmp_path):
    torch.manual_seed(0)
    blind = lesson(written(tmp_path / "pack", "main", build(NETWORK), MAIN))
    # Codes that hold what main counts, and noise.
    rng = np.random.default_rng(0)

    def encode(images):
        counts = blind._teacher_density(images).sum(1, keepdim=True)
        noise = torch.from_numpy(rng.normal(size=(1, 3, *counts.shape[2:]))).float()
        return torch.cat([3 * counts + 1, noise], 1)

    figures = blind._ridge_metrics(encode)
    assert figures["count_error"] < 0.01
    assert figures["correlation"] > 0.99


def test_spoiling_tints_and_adds_noise():
    torch.manual_seed(0)
    off = add_noise(torch.zeros(64, 3, 32, 32))
    assert float(off.mean((2, 3)).std()) == pytest.approx(0.1, rel=0.2)
    assert float(off.std((2, 3)).mean()) == pytest.approx(0.05, rel=0.05)
