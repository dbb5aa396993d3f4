"""Distillation of a user's own model on the user's own images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import hrviewer
from hrviewer.errors import ModelError, ParameterError, WriteError
from hrviewer.models import installed_bundles, open_bundle
from hrviewer.models.card import ModelCard
from hrviewer.models.registry import register_architecture
from hrviewer.training import TaskSet, samples, write_role
from hrviewer.training.distill import _result, distill
from hrviewer.training.samples import teacher_map

TASKS = TaskSet("Dark", "Dark places.", {})


class DarkPixels(nn.Module):
    """The darkness of each cell: a count, or the shares of two classes."""

    halo = 0

    def __init__(self, stride: int = 8, classes: int = 1) -> None:
        super().__init__()
        self.mean = nn.Conv2d(3, 1, stride, stride)
        nn.init.constant_(self.mean.weight, -1 / (3 * stride**2))
        nn.init.ones_(self.mean.bias)
        self.classes = classes

    def forward(self, x):
        dark = (self.mean(x) - 1e-3).clamp(0, 1)  # white is none, also with rounding
        return dark if self.classes == 1 else torch.cat([1 - dark, dark], 1)


register_architecture("dark-pixels", DarkPixels)


def own_model(folder, task, stride=8, **fields):
    classes = ["dark"] if task == "density" else ["pale", "dark"]
    card = ModelCard.model_validate(
        {
            "name": "own",
            "task": task,
            "architecture": {
                "name": "dark-pixels",
                "params": {"stride": stride, "classes": len(classes)},
            },
            "input": {"channels": "rgb", "scale": 1 / 255, "tile": 64, "multiple_of": stride}
            | fields,
            "output": {"stride": stride, "halo": 0, "classes": classes},
        }
    )
    network = DarkPixels(stride, len(classes))
    write_role(folder, "own", TASKS, "main", network, card, training={}, metrics={})
    return folder


def picture(seed, side=540):
    """Return a pale image with dark blocks, mostly in one part."""
    rng = np.random.default_rng(seed)
    n = -(-side // 20)
    dark = rng.random((n, n)) < np.linspace(0, 0.5, n)[:, None] * rng.random(n)
    blocks = dark.repeat(20, 0).repeat(20, 1)[:side, :side]
    image = np.where(blocks, 40, 220).astype(np.uint8)
    return np.repeat(image[..., None], 3, 2)


PICTURES = [picture(seed) for seed in range(3)]


@pytest.mark.slow
def test_a_scout_and_a_scanner_are_distilled_found_and_used(tmp_path):
    model = own_model(tmp_path / "own", "density")
    phases = {}
    made = hrviewer.distill(
        open_bundle(model),
        PICTURES,
        squares=4,
        steps=40,
        downsample=2,
        on_progress=lambda phase, done, total: phases.__setitem__(phase, (done, total)),
    )
    assert phases == {"main": (12, 12), "scout": (40, 40), "scanner": (40, 40)}
    assert made.name == "own-distilled"
    assert installed_bundles()[made.name].folder == made.path
    assert not (made.path / "samples").exists()
    bundle = open_bundle(made.name)
    assert [*bundle.roles] == ["main", "scout", "scanner"]
    for role, result in made.roles.items():
        card = bundle.roles[role]
        assert card.classes == ("dark",)
        assert card.training["teacher"]["digest"] == open_bundle(model).load("main", "cpu").digest
        assert result.metrics["relative_flops"] > 0
        assert result.verdict.startswith("worth" if result.worth_using else "not worth")
    run = hrviewer.run(picture(5), model=made.name, strategy="scanner", out=tmp_path / "r.run.zarr")
    assert run.header["complete"]
    with pytest.raises(WriteError, match="these roles already"):
        distill(open_bundle(model), PICTURES, squares=4, steps=40)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["segmentation", "classification"])
def test_shares_are_distilled(tmp_path, task):
    # A classifier has one prediction per tile of fixed size, 64 pixels.
    extra = {"fixed": True, "tile": 64} if task == "classification" else {}
    stride = 64 if task == "classification" else 8
    model = own_model(tmp_path / "own", task, stride, **extra)
    made = distill(open_bundle(model), PICTURES, squares=4, steps=60, out=tmp_path / "made")
    scout, scanner = (made.roles[role].metrics for role in ("scout", "scanner"))
    assert scanner["correlation"] > 0.5
    assert 0 <= scanner["share_error"] < 0.3
    assert scout["relative_variance"] > 0
    bundle = open_bundle(made.path)
    assert bundle.roles["scanner"].task == task
    assert bundle.roles["scout"].task == "saliency"
    network = bundle.load("scanner", "cpu")
    shares = network(np.zeros((1, 3, 112, 112), np.float32))
    # The network learned each share by itself; what a strategy gives sums to one.
    if task == "classification":
        np.testing.assert_allclose(shares.sum(1), 1, atol=0.05)


@pytest.mark.slow
def test_it_goes_on_after_an_interruption(tmp_path, monkeypatch):
    model = open_bundle(own_model(tmp_path / "own", "density"))
    images, out = PICTURES, tmp_path / "made"

    def interrupt(phase, done, total):
        if phase == "main" and done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distill(
            model, images, roles=["scanner"], squares=4, steps=2, out=out, on_progress=interrupt
        )
    stored = {file: file.stat().st_mtime_ns for file in (out / "samples").glob("*.npz")}
    assert len(stored) == 7
    with pytest.raises(ParameterError, match="another distillation"):
        distill(model, images, roles=["scanner"], squares=5, steps=2, out=out)

    def check(phase, done, total):
        if phase == "main" and done == 12:
            assert {file: file.stat().st_mtime_ns for file in stored} == stored

    made = distill(model, images, roles=["scanner"], squares=4, steps=2, out=out, on_progress=check)
    assert [*made.roles] == ["scanner"]


@pytest.mark.parametrize(("fixed", "tile"), [(False, 64), (True, 64), (True, 96)])
def test_mains_prediction_lies_where_it_was_made(tmp_path, fixed, tile):
    fields = {"fixed": fixed, "tile": tile}
    main = open_bundle(own_model(tmp_path / "own", "density", 8, **fields)).load("main", "cpu")
    pixels = picture(3, 256)
    found = teacher_map(main, pixels)
    assert found.shape == (1, 64, 64)
    dark = 1 - pixels[..., 0] / 255
    # Each cell of 8 pixels holds its mean, in four cells of 4.
    expected = dark.reshape(32, 8, 32, 8).mean((1, 3)).repeat(2, 0).repeat(2, 1) / 4
    known = ~np.isnan(found[0])
    np.testing.assert_allclose(found[0][known], expected[known], atol=1e-3)
    whole = 256 // tile * tile // 4 if fixed else 64
    assert known.sum() == whole**2


@pytest.mark.parametrize(
    ("task", "fields", "options", "error", "words"),
    [
        ("density", {}, {"roles": ["policy"]}, ParameterError, "no role 'policy'"),
        ("segmentation", {}, {"roles": ["encoder"]}, ModelError, "gets no encoder"),
        ("density", {"fixed": True}, {"roles": ["transformer"]}, ModelError, "any size"),
        ("density", {}, {"squares": 2}, ParameterError, "too few"),
        ("density", {}, {"downsample": 3}, ParameterError, "2, 4 or 8"),
    ],
)
def test_what_cannot_be_distilled_is_refused_in_one_line(
    tmp_path, task, fields, options, error, words
):
    model = open_bundle(own_model(tmp_path / "own", task, 8, **fields))
    with pytest.raises(error, match=words):
        distill(model, PICTURES, out=tmp_path / "made", **options)
    assert not (tmp_path / "made").exists()


def test_another_bundle_is_not_written_to(tmp_path):
    model = open_bundle(own_model(tmp_path / "own", "density"))
    with pytest.raises(WriteError, match="holds another model"):
        distill(model, PICTURES, squares=4, out=tmp_path / "own")
    assert [*open_bundle(tmp_path / "own").roles] == ["main"]


def test_images_without_objects_are_refused(tmp_path):
    model = open_bundle(own_model(tmp_path / "own", "density"))
    white = np.full((540, 540, 3), 255, np.uint8)
    with pytest.raises(ParameterError, match="finds nothing"):
        distill(model, [white, white, white], squares=4, out=tmp_path / "made")


def test_squares_that_are_held_out_are_of_other_images_or_parts(tmp_path):
    model = open_bundle(own_model(tmp_path / "own", "density"))
    with pytest.raises(ParameterError, match=r"at least 3 images, or one with a side of 3,413"):
        distill(model, PICTURES[:2], squares=4, out=tmp_path / "made")
    images = [hrviewer.open(np.full((540, 540, 3), n, np.uint8)) for n in range(8)]
    order = np.random.default_rng(0).permutation(8)
    uses = [samples._pool(images, order, use)[0] for use in ("train", "validation", "test")]
    assert [len(part) for part in uses] == [6, 1, 1]
    assert len({id(image) for part in uses for image in part}) == 8
    long = hrviewer.open(np.zeros((4000, 600, 3), np.uint8))
    rng = np.random.default_rng(1)
    _, part = samples._pool([long], np.zeros(1, int), "test")
    places = [samples._random_place(long, 512, part, rng) for _ in range(20)]
    assert min(place.y for place in places) >= 3400
    assert max(place.y1 for place in places) <= 4000
    assert len({place.x for place in places}) > 5


def test_the_verdict_follows_from_correlation_and_cost():
    def card(role, **metrics):
        fields = {
            "name": "x",
            "task": "density",
            "input": {"channels": "rgb", "tile": 16},
            "output": {"stride": 4, "classes": ["dark"]},
            "training": {"minutes": 1},
            "metrics": {"relative_flops": 0.01} | metrics,
        }
        return _result(role, ModelCard.model_validate(fields))

    good, poor = card("scanner", correlation=0.99), card("scanner", correlation=0.2)
    assert good.worth_using
    assert "24 %" in good.verdict  # √(1 − .99²) + .99 · √.01
    assert not poor.worth_using
    assert "more squares" in poor.verdict
    assert card("scout", correlation=0.5, relative_variance=0.25).worth_using
    assert not card("transformer", count_error=0.3).worth_using
