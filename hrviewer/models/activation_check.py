"""Check that a card's activation turns the network's outputs into probabilities, once."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from hrviewer.errors import ModelError
from hrviewer.models.network import Floats, Network, concatenate_outputs

__all__ = [
    "PROBABILITY_TASKS",
    "check_activation",
    "reject_class_numbers",
    "reject_hard_classes",
]

PROBABILITY_TASKS = "segmentation", "classification", "multi-label"
_TOLERANCE = 5e-3
"""Largest distance of a sum of probabilities in half precision from 1."""
_CLASS_NUMBERS = {"ArgMax", "TopK"}
_THRESHOLDS = {"Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal", "Round", "Sign", "Not"}


def reject_hard_classes(network: Network, output: Floats) -> None:
    """Raise `ModelError` if a network gives class numbers or masks instead of probabilities.

    Parameters
    ----------
    network
        Its last operations are known in ONNX; of others the numbers decide.
    output
        The prediction for a tile.
    """
    card, final = network.card, network.final_operations
    if card.task not in PROBABILITY_TASKS or card.output.decode:
        return
    whole = not final and output.max() >= 2 and bool((output == np.rint(output)).all())
    reject_class_numbers(card.name, {"ArgMax"} if whole and np.ptp(output) else final)


def reject_class_numbers(name: str, final_operations: Collection[str]) -> None:
    """Raise `ModelError` if a network's last operations make class numbers or masks.

    Parameters
    ----------
    name
        Of the network.
    final_operations
        See `hrviewer.models.loaders.graph.final_operations`.
    """
    final = {*final_operations}
    if final & _CLASS_NUMBERS:
        raise ModelError(
            f"{name}: the network gives the number of the best class (ArgMax), without "
            "probabilities: export it without that last step, with one channel per class"
        )
    if final & _THRESHOLDS:
        raise ModelError(
            f"{name}: the network gives a mask of 0 and 1 ({', '.join(sorted(final))}), "
            "without probabilities: export it without that last step"
        )


def check_activation(network: Network, tile: Floats, output: Floats) -> None:
    """Raise `ModelError` if outputs are no probabilities, or an activation is applied twice.

    Parameters
    ----------
    network
        Its task has probabilities, or nothing is checked.
    tile
        A prepared tile, ``(1, C, h, w)``.
    output
        The prediction for it, after the activation.
    """
    card = network.card
    if card.task not in PROBABILITY_TASKS or card.output.decode or card.output.attention:
        return
    activation, final = card.output.activation, network.final_operations
    if activation == "none":
        low, high = float(output.min()), float(output.max())
        if low < -_TOLERANCE or high > 1 + _TOLERANCE:
            advice = "sigmoid, or the task to regression if they are quantities"
            if card.task != "multi-label" and len(card.classes) > 1:
                advice = "softmax, or sigmoid where classes do not exclude one another"
            raise _mismatch(
                network,
                f"is none, but the outputs run from {low:.3g} to {high:.3g} and are no "
                f"probabilities: set it to {advice}",
            )
        return
    if activation not in ("softmax", "sigmoid"):
        return
    raw = concatenate_outputs(network.run_raw(tile))
    distribution = raw.shape[1] > 1 and raw.min() >= 0 and np.ptp(raw) > 0
    if distribution and np.abs(raw.sum(axis=1) - 1).max() <= _TOLERANCE:
        raise _mismatch(
            network,
            f"is {activation}, but the network applies a softmax itself (its outputs sum to 1): "
            "set it to none",
        )
    if final == {"Sigmoid"}:
        raise _mismatch(
            network, f"is {activation}, but the network applies a sigmoid itself: set it to none"
        )


def _mismatch(network: Network, problem: str) -> ModelError:
    return ModelError(f"{network.card.name}: the card's output.activation {problem}")
