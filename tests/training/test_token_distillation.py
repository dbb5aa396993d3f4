"""A transformer is trained on squares of several sizes to predict main's counts."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from hrviewer.geometry import Rect
from hrviewer.models import open_bundle
from hrviewer.models.loaders.torch import count_flops
from hrviewer.training import TaskSet, TransformerTask, WithoutContext, train, write_role
from hrviewer.training.density_task import build, normalise
from hrviewer.training.synthetic_data import context_patches
from hrviewer.training.token_distillation import SIDES

from .fixtures import CARD, Pictures, picture

TASKS = TaskSet("Squares", "Counts squares.", {})


class Surrounded(Pictures):
    def __getitem__(self, step):
        context = torch.rand(1, 8, 3, 16, 16)
        context[:, 5] = torch.nan
        return *super().__getitem__(step), context


@pytest.fixture
def task(tmp_path):
    torch.manual_seed(0)
    network = build(CARD.architecture)
    write_role(
        tmp_path / "bundle", "squares", TASKS, "main", network, CARD, training={}, metrics={}
    )
    return TransformerTask.from_bundle(
        tmp_path / "bundle",
        {"data": "squares"},
        Surrounded,
        role="transformer",
        validation=[picture(seed, 128) for seed in range(2)],
        test=[picture(seed, 128) for seed in range(8, 10)],
        tile=64,
        device="cpu",
    )


def test_images_are_cut_into_squares_without_overlap_or_gap(task):
    images = torch.stack([picture(seed, 128) for seed in range(12)])
    counts = task._teacher_density(images)
    content = task._estimate_content(images, counts)
    torch.manual_seed(2)
    groups = task._make_tokens(images, counts, content)
    covered = torch.zeros(12, 128, 128)
    for group, side in zip(groups, reversed(SIDES), strict=True):
        assert (
            len({len(part) for part in (group.tokens, group.boxes, group.owner, group.counts)}) == 1
        )
        for token, box, owner, inside in zip(
            group.tokens, group.boxes.int().tolist(), group.owner, group.counts, strict=True
        ):
            y, x, h, w = box
            assert h == w == side
            covered[owner, y : y + h, x : x + w] += 1
            here = images[owner, :, y : y + h, x : x + w]
            torch.testing.assert_close(token, F.avg_pool2d(here, side // 16))
            there = counts[owner, :, y // 4 : (y + h) // 4, x // 4 : (x + w) // 4]
            torch.testing.assert_close(inside, F.avg_pool2d(there, side // 16) * (side // 16) ** 2)
    assert (covered == 1).all()
    assert all(len(group.tokens) for group in groups)


def test_squares_are_split_by_estimated_content(task):
    images = torch.stack([picture(seed, 128) for seed in range(2)])
    content = torch.zeros(2, 4, 4)
    content[1, 3, 0] = 1
    counts = task._teacher_density(images)
    groups = task._make_tokens(images, counts, content, 0.5)
    result = {
        group.side: [
            (int(owner), *box)
            for owner, box in zip(group.owner, group.boxes.int().tolist(), strict=True)
        ]
        for group in groups
    }
    assert result[128] == [(0, 0, 0, 128, 128)]
    assert result[64] == [(1, 0, 0, 64, 64), (1, 0, 64, 64, 64), (1, 64, 64, 64, 64)]
    assert result[32] == [(1, 64, 0, 32, 32), (1, 64, 32, 32, 32), (1, 96, 32, 32, 32)]
    assert {box[1:3] for box in result[16]} == {(96, 0), (96, 16), (112, 0), (112, 16)}
    # A scout estimates the content, if there is one.
    bundle = task.teacher
    scouted = dataclasses.replace(task, scout=bundle)
    expected = F.avg_pool2d(counts.sum(1).clamp(min=0), 8) * 64
    torch.testing.assert_close(
        scouted._estimate_content(images, counts), expected, rtol=1e-3, atol=1e-3
    )


def loss_over_cuts(task, network, batch):
    """Return the loss over the ways in which an image may be cut."""
    torch.manual_seed(1)
    with torch.no_grad():
        return np.mean([float(task.loss(network, batch)) for _ in range(10)])


def test_it_learns_and_what_is_written_joins_tokens(task, tmp_path):
    batch = task.batches(1, 0)[0]
    before = loss_over_cuts(task, build(task.card.architecture), batch)
    network, _ = train(task, tmp_path / "checkpoint", steps=20, workers=0)
    assert loss_over_cuts(task, network, batch) < 0.7 * before
    torch.manual_seed(2)
    fair = task._gains(network)
    network.rescale(0.5)  # as one that says too little
    torch.manual_seed(2)
    off = task._gains(network)
    assert off[0] == pytest.approx(2 * fair[0], rel=0.05)  # where all is: larger ones hold none
    torch.manual_seed(2)
    set_by = task.calibrate(network)
    assert [set_by[f"gain_{side}"] for side in SIDES] == pytest.approx(off, abs=1e-4)
    assert set_by.keys() == {"gain_16", "gain_32", "gain_64", "gain_128", "error_spread_before"}
    # Each size is right in sum where it is used: small squares where there is something.
    torch.manual_seed(2)
    assert task._gains(network) == pytest.approx(np.ones(4), rel=0.03)
    assert task.validate(network)["spread"] == pytest.approx(1, abs=1e-2)
    assert set(task.evaluate(network)["count_error_by_side"]) == {"16", "32", "64", "128"}

    folder = tmp_path / "bundle"
    write_role(folder, "squares", TASKS, "transformer", network, task.card, training={}, metrics={})
    written = open_bundle(folder).load("transformer", "cpu")
    assert written.accepts_tokens
    image = normalise(picture(5, 64)[None], CARD.input)
    tokens = F.avg_pool2d(image, 4)
    predicted = written.run_tokens(tokens.numpy(), np.array([[0, 0, 64, 64]]))
    assert predicted.shape == (1, 2, 4, 4)
    with torch.inference_mode():
        full = network(image, 64)[0]
    np.testing.assert_allclose(predicted[0].sum((1, 2)), full.sum((1, 2)), rtol=1e-4)
    assert written.token_flops(40) == count_flops(
        build(task.card.architecture).to("meta"), "run_tokens", (40, 3, 16, 16), (40, 4)
    )


def test_a_size_that_is_used_where_there_is_nothing_keeps_its_gain(task, monkeypatch):
    network = build(task.card.architecture)
    nothing = torch.zeros(1, 32, 32)
    monkeypatch.setattr(
        TransformerTask, "_cached_teacher_density", lambda self, picture, image: nothing
    )
    monkeypatch.setattr(
        TransformerTask, "_estimate_content", lambda self, i, c: torch.zeros(len(i), 4, 4)
    )
    network.rescale(1e-9)
    assert task._gains(network) == pytest.approx(np.ones(4), rel=1e-3)


def test_surroundings_that_are_not_known_are_left_out(task):
    context = torch.rand(3, 24, 3, 16, 16)
    context[1] = torch.nan
    inputs = {0: 0, 1: 0, 2: 0}
    for _ in range(20):
        tokens, boxes, owner = task._context_tokens(context, 64)
        assert not tokens.isnan().any()
        assert len(tokens) == len(boxes)
        for i in inputs:
            inputs[i] = max(inputs[i], int((owner == i).sum()))
    assert inputs == {0: 24, 1: 0, 2: 24}
    assert boxes[owner == 0][:8, 2].unique().tolist() in ([], [64.0])
    images, nothing = WithoutContext(Pictures(1, 0), 2)[0]
    assert nothing.shape == (len(images), 16, 3, 16, 16)
    assert nothing.isnan().all()


class Ramp:
    """An image whose brightness is its row, in steps of 32 pixels."""

    def render(self, rect, scale):
        rows = (rect.y + np.arange(-(-rect.h // scale)) * scale) // 32
        return np.broadcast_to(
            rows[:, None, None].astype(np.uint8), (len(rows), -(-rect.w // scale), 3)
        )


def test_context_of_a_crop():
    result = context_patches(Ramp(), 4096, Rect(512, 1024, 512, 512), 2) * 255
    assert result.shape == (16, 3, 16, 16)
    rows = torch.arange(16.0)
    torch.testing.assert_close(result[0, 0, :, 0], rows)  # the row of regions above
    torch.testing.assert_close(result[3, 0, :, 7], 16 + rows)  # to the left
    torch.testing.assert_close(result[6, 2, :, 3], 32 + rows)  # below
    # Thrice as wide: of 3 × 3 squares about the middle, these have theirs in the image.
    inside = [i for i in range(8, 16) if not result[i].isnan().any()]
    assert inside == [12, 14, 15]  # right and below; all others lie beyond a border
    # 24 rows of the overview, 0, 2, 4, …, make 16, each of the two that it touches.
    torch.testing.assert_close(result[12, 0, :, 9], rows * 3 + (rows % 2 == 0))
