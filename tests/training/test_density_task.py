"""Training task of counting: data and metrics."""

from __future__ import annotations

import pytest
import torch

from hrviewer.training import CountedImage
from hrviewer.training.density_task import normalise, predict_count, tiling_error

from .fixtures import CARD, picture, toy


def test_with_enough_context_tiles_add_up_to_the_image():
    torch.manual_seed(1)
    network = toy().create_model().eval()
    image = picture(5, 272)  # whole tiles only: 256
    full = predict_count(network, image[:, :256, :256], CARD.input)
    assert full > 1
    assert tiling_error(network, image, CARD.input, 64) < 1e-5
    assert tiling_error(network, image, CARD.input, 0) > 1e-4


def test_the_context_of_the_card_is_evaluated():
    output = CARD.output.model_copy(update={"context": 32})
    task = toy(card=CARD.model_copy(update={"output": output}))
    network = task.create_model().eval()
    assert "context" not in toy().evaluate(network)
    image = picture(5, 256)
    reported = toy(card=task.card, test={"test": [CountedImage(image, 1.0)]}).evaluate(network)[
        "context"
    ]
    assert reported["test"] == pytest.approx(tiling_error(network, image, CARD.input, 32), abs=1e-4)


def test_of_empty_images_only_hard_negatives_are_used():
    torch.manual_seed(1)
    task = toy(hard_negatives=2)
    network = task.create_model()
    images = torch.rand(6, 3, 32, 32)
    density = torch.zeros(6, 1, 8, 8)
    density[1] = density[4] = 0.05
    with torch.no_grad():
        inputs = network.eval()(normalise(images, CARD.input)).sum((1, 2, 3))
    empty = sorted((0, 2, 3, 5), key=lambda i: -float(inputs[i]))[:2]
    kept = sorted([1, 4, *empty])
    network.train()
    result = task.loss(network, (images, density))
    assert network.training
    again = toy().loss(network, (images[kept], density[kept]))
    torch.testing.assert_close(result, again)
    assert not torch.isclose(result, toy().loss(network, (images, density)))
