"""Cards whose activation does not fit the graph are refused by the cause, and no other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_cards import make_card
from onnx import helper

from hrviewer.errors import HrviewerError
from hrviewer.models import open_bundle

Save = Callable[..., Path]
node = helper.make_node


def graph(*last: Any, k: int = 2) -> tuple[list[Any], dict[str, np.ndarray]]:
    """A 1 × 1 convolution to `k` logits ``z``, then `last`."""
    weights = np.random.default_rng(0).standard_normal((k, 3, 1, 1)).astype(np.float32)
    zero = np.zeros(1, np.float32)
    return [node("Conv", ["x", "w"], ["z" if last else "y"]), *last], {"w": weights, "w0": zero}


SOFTMAX = node("Softmax", ["z"], ["y"], axis=1)
SIGMOID = node("Sigmoid", ["z"], ["y"])
MASK = node("Greater", ["z", "w0"], ["m"])
AS_FLOAT = node("Cast", ["m"], ["y"], to=1)
ARGMAX = node("ArgMax", ["z"], ["y"], axis=1, keepdims=1)


@pytest.mark.parametrize(
    ("last", "activation", "message"),
    [
        ([SOFTMAX], "softmax", "is softmax, but the network applies a softmax itself .* to none"),
        ([SOFTMAX], "sigmoid", "is sigmoid, but the network applies a softmax itself"),
        ([SIGMOID], "sigmoid", "is sigmoid, but the network applies a sigmoid itself: .* none"),
        ([SIGMOID], "softmax", "applies a sigmoid itself"),
        ([], "none", r"are no probabilities: set it to softmax, or sigmoid where"),
        ([MASK, AS_FLOAT], "none", r"a mask of 0 and 1 \(Greater\), without probabilities"),
        ([ARGMAX], "none", "ArgMax.*export it without that last step"),
    ],
)
def test_activations_that_do_not_fit(
    save: Save, last: list[Any], activation: str, message: str
) -> None:
    output = {"classes": ["a", "b"], "activation": activation}
    path = save(*graph(*last), task="segmentation", input={"scale": 1 / 255}, output=output)
    with pytest.raises(HrviewerError, match=message) as raised:
        open_bundle(path).load("main", "cpu")
    assert str(raised.value).count("net:") == 1


@pytest.mark.parametrize(
    ("last", "activation"),
    [([SOFTMAX], "none"), ([SIGMOID], "none"), ([], "softmax"), ([], "sigmoid")],
)
def test_activations_that_fit(save: Save, last: list[Any], activation: str) -> None:
    output = {"classes": ["a", "b"], "activation": activation}
    path = save(*graph(*last), task="segmentation", input={"scale": 1 / 255}, output=output)
    net = open_bundle(path).load("main", "cpu")
    out = net(np.random.default_rng(0).random((1, 3, 64, 64), np.float32))
    assert 0 <= out.min() < out.max() <= 1


def test_the_softmax_of_one_class() -> None:
    with pytest.raises(HrviewerError, match=r"of one class is always 1: .* must be sigmoid"):
        make_card(task="segmentation", output={"activation": "softmax"})


def test_a_halo_that_leaves_nothing(save: Save) -> None:
    path = save(
        *graph(), task="density", input={"fixed": True}, output={"classes": ["a", "b"], "halo": 32}
    )
    with pytest.raises(HrviewerError, match=r"output\.halo is 32 pixels, which leave nothing of"):
        open_bundle(path).load("main", "cpu")
