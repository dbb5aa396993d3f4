"""Outputs of a network in torch: a tensor, or several in a list, tuple or dictionary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from hrviewer.errors import ModelError
from hrviewer.models.network import Floats

__all__ = ["select_outputs", "to_arrays"]


def to_arrays(out: Any) -> dict[str, Floats]:
    """Return a network's outputs by name: a dictionary's keys, else numbers from 0.

    Raises
    ------
    ModelError
        If an output is no tensor, as in a list of each input's objects.
    """
    if isinstance(out, Mapping):
        named = {str(name): value for name, value in out.items()}
    else:
        several = list(out) if isinstance(out, (list, tuple)) else [out]
        named = {str(i): value for i, value in enumerate(several)}
    for name, value in named.items():
        if not isinstance(value, Tensor):
            raise ModelError(
                f"output {name} of the network is no tensor, but of the type "
                f"{type(value).__name__}: export it so that it returns tensors only"
            )
    return {name: value.float().contiguous().cpu().numpy() for name, value in named.items()}


def select_outputs(outputs: Mapping[str, Floats], names: Sequence[str]) -> list[Floats]:
    """Return the outputs that a card's ``output.names`` selects, in that order; all without any.

    Raises
    ------
    ModelError
        If there is no output of a name.
    """
    for name in names:
        if name not in outputs:
            raise ModelError(
                f"the network has no output {name!r}, but {', '.join(outputs)}: correct the "
                "card's output.names"
            )
    return [outputs[name] for name in names] if names else list(outputs.values())
