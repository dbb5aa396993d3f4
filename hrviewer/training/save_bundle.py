"""Saving a trained role in its model bundle; the bundle's other roles stay as they are."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from hrviewer.models.bundle import ModelBundle
from hrviewer.models.card import ModelCard
from hrviewer.models.json_file import read_json
from hrviewer.training.task import TaskSet

__all__ = ["round_weights", "write_entry", "write_role"]


@torch.no_grad()
def round_weights(model: nn.Module) -> None:
    """Round matrices and kernels to half precision, as they are saved: half the size.

    Vectors, with one number per channel, stay as they are, since variances may be tiny.
    """
    for weight in model.parameters():
        if weight.ndim > 1:
            weight.copy_(weight.half())


def write_role(
    folder: Path,
    name: str,
    task_set: TaskSet,
    role: str,
    model: nn.Module,
    card: ModelCard,
    *,
    training: dict[str, Any],
    metrics: dict[str, Any],
) -> None:
    """Write ``ROLE.safetensors`` and the role's entry of ``bundle.json``.

    What `round_weights` rounds is written in half precision. The saved role is then loaded, as a
    check.

    Parameters
    ----------
    folder, name, task_set
        The model bundle.
    role, model, card
        The trained model, and its card as the task has it.
    training, metrics
        Further entries of the card.

    Raises
    ------
    ModelError
        If the bundle cannot be read, or the model does not match its card.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / f"{role}.safetensors"
    data = save({k: _as_stored(v) for k, v in model.state_dict().items()})
    sha256 = hashlib.sha256(data).hexdigest()
    complete_card = card.model_copy(
        update={"sha256": sha256, "training": training, "metrics": metrics}
    )
    weights.write_bytes(data)
    write_entry(folder, name, task_set, role, weights.name, complete_card)
    ModelBundle.read(folder).load(role, "cpu")


def write_entry(
    folder: Path, name: str, task_set: TaskSet, role: str, weights: str, card: ModelCard
) -> None:
    """Write a role's entry of ``bundle.json``; its weights are in the folder.

    Parameters
    ----------
    folder, name, task_set, role, card
        As of `write_role`.
    weights
        Name of the weights file.

    Raises
    ------
    ModelError
        If the bundle cannot be read.
    """
    file = folder / "bundle.json"
    bundle: Any = read_json(file) if file.exists() else {"roles": {}}
    bundle["roles"][role] = {
        "weights": weights,
        "card": card.model_dump(mode="json", exclude_defaults=True),
    }
    bundle = {"name": name, "title": task_set.title, "description": task_set.description} | {
        "roles": bundle["roles"]
    }
    file.write_text(json.dumps(bundle, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _as_stored(value: Tensor) -> Tensor:
    value = value.cpu().contiguous()
    return value.half() if value.is_floating_point() and value.ndim > 1 else value
