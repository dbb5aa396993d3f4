"""A scout is trained so that its uncertainty selects the tiles with the largest errors."""

from __future__ import annotations

import pytest
import torch

from hrviewer.training import TaskSet, TopKScout, scout_tasks, train, write_role
from hrviewer.training.density_task import build
from hrviewer.training.save_bundle import round_weights
from hrviewer.training.scout_tasks import remaining_error, tile_sums

from .fixtures import CARD, Pictures, picture

TASKS = TaskSet("Squares", "Counts squares.", {})


class Wide(Pictures):
    """Pictures of four tiles of 32 pixels."""

    def __getitem__(self, step):
        return (picture((self.seed, step), 64)[None],)


def test_tiles_sum_their_cells():
    maps = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert tile_sums(torch.cat((maps, maps), 1), 2).tolist() == [20, 36, 84, 100]


def test_uncertainty_moves_to_the_errors():
    torch.manual_seed(0)
    error = torch.tensor([0.1, 0.0, 2.0, 0.1, 0.0, 0.3, 0.0, 0.1, 0.0, 0.1])
    uncertainty = torch.zeros(10, requires_grad=True)
    optimizer = torch.optim.Adam([uncertainty], 0.1)
    before = float(remaining_error(error, uncertainty.detach().exp()))
    for _ in range(40):
        optimizer.zero_grad()
        remaining_error(error, uncertainty.exp()).backward()
        optimizer.step()
    assert uncertainty.argmax() == 2
    assert before == pytest.approx(0.9, abs=0.1)  # one of ten, by chance
    assert float(remaining_error(error, uncertainty.detach().exp())) < 0.35  # of 2.7, all but 2


@pytest.mark.slow
def test_both_metrics_are_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(scout_tasks, "TILE_SIDE", 32)
    torch.manual_seed(0)
    folder = tmp_path / "bundle"
    main = build(CARD.architecture)
    write_role(folder, "squares", TASKS, "main", main, CARD, training={}, metrics={})

    def task():
        evaluated = [picture(seed, 128) for seed in range(4)]
        return TopKScout.from_bundle(
            folder,
            {},
            Wide,
            downsample=2,
            validation=evaluated[:2],
            test=evaluated[2:],
            tile=32,
            device="cpu",
        )

    first = task()
    network, _ = train(first, tmp_path / "checkpoint", steps=3, workers=0)
    round_weights(network)
    figures = first.evaluate(network)
    assert "baseline" not in figures
    assert 0 <= figures["error_beyond_top_tenth"] <= 1
    write_role(folder, "squares", TASKS, "scout", network, first.card, training={}, metrics=figures)
    again = task()
    fresh = again.create_model()
    assert again.evaluate(fresh)["baseline"] == {
        k: v for k, v in figures.items() if k != "description"
    }
