"""The lesson of counting: what it learns from, and what it says of itself."""

from __future__ import annotations

import pytest
import torch

from hrviewer.training import CountedImage
from hrviewer.training.density_task import normalise, predict_count, tiling_error

from .fixtures import CARD, picture, toy


def test_with_context_enough_tiles_add_up_to_the_whole():
    torch.manual_seed(1)
    network = toy().create_model().eval()
    image = picture(5, 272)  # whole tiles only: 256
    whole = predict_count(network, image[:, :256, :256], CARD.input)
    assert whole > 1
    assert tiling_error(network, image, CARD.input, 64) < 1e-5
    assert tiling_error(network, image, CARD.input, 0) > 1e-4


def test_the_context_of_the_card_is_examined():
    output = CARD.output.model_copy(update={"context": 32})
    lesson = toy(card=CARD.model_copy(update={"output": output}))
    network = lesson.create_model().eval()
    assert "context" not in toy().evaluate(network)
    image = picture(5, 256)
    told = toy(card=lesson.card, test={"test": [CountedImage(image, 1.0)]}).evaluate(network)[
        "context"
    ]
    assert told["test"] == pytest.approx(tiling_error(network, image, CARD.input, 32), abs=1e-4)


def test_of_empty_images_only_the_worst_are_learned_from():
    torch.manual_seed(1)
    lesson = toy(hard_negatives=2)
    network = lesson.create_model()
    images = torch.rand(6, 3, 32, 32)
    density = torch.zeros(6, 1, 8, 8)
    density[1] = density[4] = 0.05
    with torch.no_grad():
        seen = network.eval()(normalise(images, CARD.input)).sum((1, 2, 3))
    empty = sorted((0, 2, 3, 5), key=lambda i: -float(seen[i]))[:2]
    kept = sorted([1, 4, *empty])
    network.train()
    found = lesson.loss(network, (images, density))
    assert network.training
    again = toy().loss(network, (images[kept], density[kept]))
    torch.testing.assert_close(found, again)
    assert not torch.isclose(found, toy().loss(network, (images, density)))
