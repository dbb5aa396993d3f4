"""The distance of an image from those that a model learned, and its note in every run."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import hrviewer
from hrviewer.engine.domain_check import domain_distance, domain_note
from hrviewer.errors import ModelError
from hrviewer.models.card import ModelCard
from hrviewer.models.learned_domain import FEATURES, LearnedDomain, is_blank, square_features
from hrviewer.training import TaskSet, write_role
from hrviewer.training.density_task import build
from hrviewer.training.domain import measure_domain

CARD = ModelCard.model_validate(
    {
        "name": "squares",
        "task": "density",
        "input": {"channels": "rgb", "scale": 1 / 255, "tile": 64, "multiple_of": 16},
        "output": {"stride": 4, "halo": 64, "classes": ["square"]},
        "architecture": {
            "name": "density-unet",
            "params": {"widths": [4, 4, 4, 4], "blocks": [0, 0, 0], "unit": 1.0},
        },
    }
)


def tissue(seed, side, colour=(0.6, 0.3, 0.55)):
    """Return smooth noise in one hue, ``(side, side, 3)`` from 0 to 1, a little different each."""
    rng = np.random.default_rng(seed)
    n = side // 8 + 2
    coarse = rng.random((n, n)).repeat(8, 0).repeat(8, 1)
    y, x = rng.integers(8, size=2)
    coarse = coarse[y : y + side, x : x + side] * rng.uniform(0.7, 1)
    level = 0.3 + 0.5 * coarse + rng.uniform(0.02, 0.15) * rng.random((side, side))
    return np.clip(level[..., None] * (np.array(colour) + rng.normal(0, 0.03, 3)), 0, 1)


class Tissue:
    def __getitem__(self, step):
        images = [tissue((step, i), 96).transpose(2, 0, 1) for i in range(4)]
        return (torch.from_numpy(np.stack(images)).float(),)


@pytest.fixture(scope="module")
def card():
    domain = measure_domain(Tissue(), "noise", "none")
    return ModelCard.model_validate(
        {**CARD.model_dump(), "accuracy": {"learned_domain": domain.model_dump()}}
    )


def image(seed, colour=(0.6, 0.3, 0.55)):
    return hrviewer.open((tissue(seed, 700, colour) * 255).astype(np.uint8))


def test_an_image_of_the_kind_is_near_and_another_is_far(card):
    domain = card.accuracy.learned_domain
    assert domain.squares == 256
    near, far = (domain_distance(domain, card, image(9, colour)) for colour in
                 ((0.6, 0.3, 0.55), (0.3, 0.6, 0.2)))  # fmt: skip
    assert near < 1 < far
    assert domain_note(card, image(9)) == ""
    assert "unlike those" in domain_note(card, image(9, (0.3, 0.6, 0.2)))
    assert domain_note(CARD, image(9, (0.3, 0.6, 0.2))) == ""
    # Nothing is known of blank images and of grey levels.
    assert domain_note(card, hrviewer.open(np.full((400, 400, 3), 250, np.uint8))) == ""
    assert domain_note(card, hrviewer.open(np.zeros((400, 400), np.uint8))) == ""


def test_features_are_of_colour_contrast_and_sharpness():
    square = tissue(1, 64).transpose(2, 0, 1)
    known = dict(zip(FEATURES, square_features(square), strict=True))
    assert known["red"] == pytest.approx(float(-np.log(square[0]).mean()))
    blurred = square.reshape(3, 16, 4, 16, 4).mean((2, 4)).repeat(4, 1).repeat(4, 2)
    softer = dict(zip(FEATURES, square_features(blurred), strict=True))
    assert softer["edges"] < known["edges"] - 0.1
    assert softer["coarse edges"] == pytest.approx(known["coarse edges"], abs=0.05)
    assert is_blank(np.full((3, 8, 8), 0.9))


def test_the_median_square_decides():
    domain = LearnedDomain.fit(
        np.random.default_rng(0).normal(size=(400, len(FEATURES))), "normal", "none"
    )
    inside, outside = np.zeros(len(FEATURES)), np.full(len(FEATURES), 9.0)
    assert domain.distance([]) == 0
    assert domain.distance([inside, inside, outside]) < 1 < domain.distance([inside, outside] * 2)
    # The distance at which 99 % of them are, of seven independent features: √χ².
    assert domain.limit == pytest.approx(np.sqrt(18.5), rel=0.1)


def test_a_card_keeps_it_and_every_run_says_it(card, tmp_path):
    torch.manual_seed(0)
    network = build(card.architecture)
    folder = tmp_path / "bundle"
    tasks = TaskSet("Squares", "Counts squares.", {})
    write_role(folder, "squares", tasks, "main", network, card, training={}, metrics={})
    run = hrviewer.run(
        image(9, (0.3, 0.6, 0.2)), model=folder, strategy="uniform", out=tmp_path / "x.run.zarr"
    )
    assert any("unlike those" in note for note in run.header["notes"])
    file = folder / "bundle.json"
    bundle = json.loads(file.read_text())
    bundle["roles"]["main"]["card"]["accuracy"]["learned_domain"]["mean"] = [0.0]
    file.write_text(json.dumps(bundle))
    with pytest.raises(ModelError, match="7 features"):
        hrviewer.load(folder)
