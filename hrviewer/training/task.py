"""Training tasks: what a role of a model bundle learns, and where plug-ins register theirs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn
from torch.utils.data import Dataset

from hrviewer.errors import ModelError
from hrviewer.extensions import load_extension
from hrviewer.models.card import ModelCard

__all__ = ["GROUP", "Batch", "TaskSet", "TrainingTask", "installed_task_sets"]

GROUP = "hrviewer.training_tasks"
"""Entry points whose name is a bundle's and whose value is its `TaskSet`."""

Batch = Sequence[Tensor]
"""Tensors of one training step; their meaning is between a task's `batches` and its `loss`."""


class TrainingTask(Protocol):
    """Model, data, loss and metrics of one role.

    Attributes
    ----------
    card : ModelCard
        Card of the model, with its architecture. The program adds `sha256`, `training` and
        `metrics`.
    sources : dict
        Provenance of the data, for the card's `training`.
    steps : int
        Default number of steps: under 20 minutes on two cores.
    learning_rate : float
        Peak learning rate.
    """

    @property
    def card(self) -> ModelCard:  # noqa: D102
        ...

    @property
    def sources(self) -> dict[str, Any]:  # noqa: D102
        ...

    @property
    def steps(self) -> int:  # noqa: D102
        ...

    @property
    def learning_rate(self) -> float:  # noqa: D102
        ...

    def create_model(self) -> nn.Module:
        """Return the model before the first step; torch's generator is seeded."""
        ...

    def batches(self, steps: int, seed: int) -> Dataset[Batch]:
        """Return the batches by their numbers, from 0 to ``steps - 1``.

        Each depends on the seed and its number alone, so that training can resume anywhere. The
        data set is pickled, because batches are made in another process.
        """
        ...

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the loss, a single number.

        The batch is on the model's device; predictions may be in bfloat16.
        """
        ...

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Return a few metrics on the validation data, shown during training."""
        ...

    def calibrate(self, model: nn.Module) -> dict[str, float]:
        """Fit scale factors of the predictions on the validation data, and return them."""
        ...

    def evaluate(self, model: nn.Module) -> dict[str, Any]:
        """Return the card's metrics, on held-out test data."""
        ...


@dataclass(frozen=True)
class TaskSet:
    """The training tasks of one model bundle.

    Parameters
    ----------
    title, description : str
        Title and description of the bundle.
    tasks : mapping of role to function
        A variant of a role has its own name: ``scout/topk``, for ``--by topk``. Each function
        takes the data folder (``--data``, or None) and the bundle's folder, which holds the
        networks trained before, and returns the task.
    """

    title: str
    description: str
    tasks: Mapping[str, Callable[[Path | None, Path], TrainingTask]]


def installed_task_sets() -> dict[str, Callable[[], TaskSet]]:
    """Return loaders of the task sets of all installed plug-ins, by the bundle's name."""

    def loader(entry: Any) -> Callable[[], TaskSet]:
        def load() -> TaskSet:
            task_set: TaskSet = load_extension(entry, "the training tasks", ModelError)
            return task_set

        return load

    return {entry.name: loader(entry) for entry in sorted(entry_points(group=GROUP))}
