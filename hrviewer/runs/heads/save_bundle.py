"""Fitted heads, written as model bundles."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hrviewer.errors import WriteError, write_error
from hrviewer.io.atomic_write import atomic_path
from hrviewer.models import ModelCard
from hrviewer.paths import is_vacant
from hrviewer.runs.heads.embeddings import Floats

__all__ = ["NO_SKLEARN", "FittedHead", "check_unused", "write_head"]

NO_SKLEARN = 'fitting a head needs scikit-learn: pip install "hrviewer[fit]"'


@dataclass(frozen=True, slots=True)
class FittedHead(ABC):
    """A fitted head.

    Parameters
    ----------
    path : Path
        Its model bundle: a folder with the role ``head`` alone.
    cells : int
        Number of embeddings that it was fitted to.
    error : float or None
        Cross-validated error, 0 to 1; None where the annotations are too few to measure it.
    """

    path: Path
    cells: int
    error: float | None

    @property
    @abstractmethod
    def training_summary(self) -> str:
        """The training data, as text."""

    @property
    @abstractmethod
    def validation_summary(self) -> str:
        """The cross-validated errors, as text."""

    @property
    @abstractmethod
    def metrics(self) -> dict[str, Any]:
        """The cross-validated errors, for its card."""


def check_unused(out: Path) -> None:
    """Raise an error if a model bundle exists already."""
    if not is_vacant(out):
        raise WriteError(f"{out} exists: choose another folder for the head")


def write_head(
    head: FittedHead,
    layers: Mapping[str, tuple[Floats, Floats | None]],
    card: dict[str, Any],
    provenance: dict[str, Any],
) -> None:
    """Write a head as a model bundle, which appears under its name when it is complete.

    Parameters
    ----------
    head : FittedHead
        The head: its folder and its errors.
    layers : mapping of str to pairs of ndarray
        Weights ``(outputs, inputs)`` and bias ``(outputs,)``, if any, of each layer by its name.
    card : dict
        The card's title, task, architecture and output.
    provenance : dict
        Sources of the training data.
    """
    from safetensors.numpy import save

    numbers = {}
    for name, (weights, bias) in layers.items():
        # In C order, which safetensors assumes.
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
    bundle = {"name": head.path.name, "title": written.title, "roles": {"head": role}}
    text = json.dumps(bundle, indent=2, ensure_ascii=False)
    try:
        head.path.parent.mkdir(parents=True, exist_ok=True)
        if head.path.is_dir():
            head.path.rmdir()  # an empty one, by which the name was reserved
    except OSError as error:
        raise write_error(head.path, error) from error
    with atomic_path(head.path) as part:
        part.mkdir()
        (part / "head.safetensors").write_bytes(data)
        (part / "bundle.json").write_text(text + "\n", encoding="utf-8")
