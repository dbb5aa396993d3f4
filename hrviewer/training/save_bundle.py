"""A learned role goes into its pack; the pack's other roles stay as they are."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from hrviewer.models.bundle import ModelBundle
from hrviewer.models.card import ModelCard, read_json
from hrviewer.training.task import TaskSet

__all__ = ["round_weights", "write_role"]


@torch.no_grad()
def round_weights(model: nn.Module) -> None:
    """Round matrices and kernels to half precision, as they are written: half the size.

    What is one number for each channel stays as it is, since variances may be tiny.
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

    What `round_weights` rounds is written in half precision. The pack is then read, and the role
    loaded, as anybody would.

    Parameters
    ----------
    folder, name, course
        The pack.
    role, network, card
        What was learned, and its card as the lesson has it.
    training, metrics
        What the card says besides.

    Raises
    ------
    UserError
        Where the pack cannot be read, or its card does not tell the truth.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file, weights = folder / "bundle.json", folder / f"{role}.safetensors"
    pack: Any = read_json(file) if file.exists() else {"roles": {}}
    data = save({k: _as_stored(v) for k, v in model.state_dict().items()})
    sha256 = hashlib.sha256(data).hexdigest()
    whole = card.model_copy(update={"sha256": sha256, "training": training, "metrics": metrics})
    pack["roles"][role] = {
        "weights": weights.name,
        "card": whole.model_dump(mode="json", exclude_defaults=True),
    }
    pack = {"name": name, "title": task_set.title, "description": task_set.description} | {
        "roles": pack["roles"]
    }
    weights.write_bytes(data)
    file.write_text(json.dumps(pack, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    ModelBundle.read(folder).load(role, "cpu")


def _as_stored(value: Tensor) -> Tensor:
    value = value.cpu().contiguous()
    return value.half() if value.is_floating_point() and value.ndim > 1 else value
