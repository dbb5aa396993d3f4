"""A fitted head as a pack of its own."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hrviewer.errors import HrviewerError
from hrviewer.models import ModelCard
from hrviewer.paths import is_vacant
from hrviewer.runs.heads.embeddings import Floats

__all__ = ["NO_SKLEARN", "FittedHead", "check_unused", "write_head"]

NO_SKLEARN = 'a head is fitted by scikit-learn: pip install "hrviewer[fit]"'


@dataclass(frozen=True, slots=True)
class FittedHead(ABC):
    """A head that was fitted.

    Parameters
    ----------
    path : Path
        Its pack: a folder with the role ``head`` alone.
    cells : int
        How many codes it was fitted to.
    error : float or None
        How wrong it is on what it was not fitted to, 0 to 1; None where that is not known.
    """

    path: Path
    cells: int
    error: float | None

    @property
    @abstractmethod
    def training_summary(self) -> str:
        """What it was fitted to, in words."""

    @property
    @abstractmethod
    def validation_summary(self) -> str:
        """How good it is on what it was not fitted to, in words."""

    @property
    @abstractmethod
    def metrics(self) -> dict[str, Any]:
        """The same in numbers, for its card."""


def check_unused(out: Path) -> None:
    """Raise `UserError` where a pack cannot be written."""
    if not is_vacant(out):
        raise HrviewerError(f"{out} exists: choose another place for the head")


def write_head(
    head: FittedHead,
    layers: Mapping[str, tuple[Floats, Floats | None]],
    card: dict[str, Any],
    provenance: dict[str, Any],
) -> None:
    """Write a head as a pack.

    Parameters
    ----------
    head : Fitted
        Where, and what it is worth.
    layers : mapping of str to pairs of ndarray
        Weights ``(outputs, inputs)`` and bias ``(outputs,)``, if any, of each layer by its name.
    card : dict
        The card's title, task, architecture and output.
    provenance : dict
        What it was made of.
    """
    from safetensors.numpy import save

    numbers = {}
    for name, (weights, bias) in layers.items():
        # In C's order, which safetensors takes for granted.
        numbers[f"{name}.weight"] = np.ascontiguousarray(weights, np.float32)[:, :, None, None]
        if bias is not None:
            numbers[f"{name}.bias"] = bias.astype(np.float32)
    data = save(numbers)
    written = ModelCard.from_dict(
        {
            "name": f"{head.path.name}-head",
            "input": {"channels": card["architecture"]["params"]["embedding_dim"], "tile": 32},
            "sha256": hashlib.sha256(data).hexdigest(),
            "training": {**provenance, "cells": head.cells},
            "metrics": head.metrics,
            **card,
        },
        head.path,
    )
    role = {
        "weights": "head.safetensors",
        "card": written.model_dump(mode="json", exclude_defaults=True),
    }
    pack = {"name": head.path.name, "title": written.title, "roles": {"head": role}}
    head.path.mkdir(parents=True, exist_ok=True)
    (head.path / "head.safetensors").write_bytes(data)
    text = json.dumps(pack, indent=2, ensure_ascii=False)
    (head.path / "bundle.json").write_text(text + "\n", encoding="utf-8")
