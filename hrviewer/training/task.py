"""What is learned: the lesson of a role, and where plug-ins offer theirs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn
from torch.utils.data import Dataset

from hrviewer.errors import HrviewerError, short_message
from hrviewer.models.card import ModelCard

__all__ = ["GROUP", "Batch", "TaskSet", "TrainingTask", "installed_task_sets"]

GROUP = "hrviewer.training_tasks"
"""Entry points whose name is a pack's and whose value is its `Course`."""

Batch = Sequence[Tensor]
"""What one step learns from; what is in it is between a lesson's `batches` and its `loss`."""


class TrainingTask(Protocol):
    """What one role's network is, what it learns from, and how it is judged.

    Attributes
    ----------
    card : Card
        Of the network, with its architecture. The program adds `sha256`, `training` and `metrics`.
    sources : dict
        What it learns from, in words and numbers; part of the card's `training`.
    steps : int
        How many are enough: under 20 minutes on two cores.
    learning_rate : float
        The highest rate of learning.
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
        """Return the network as it is before the first step; chance is torch's, and seeded."""
        ...

    def batches(self, steps: int, seed: int) -> Dataset[Batch]:
        """Return the batches by their numbers, from 0 to ``steps - 1``.

        Each is a function of the seed and its number alone, so that training can go on anywhere.
        Made in another process: it must pickle.
        """
        ...

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return what is to become small, a single number.

        The batch is on the network's device; what the network says may be in bfloat16.
        """
        ...

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Return a few figures on the data for choosing, to be shown while it learns."""
        ...

    def calibrate(self, model: nn.Module) -> dict[str, float]:
        """Set, on the data for choosing, what one number can set; say which numbers."""
        ...

    def evaluate(self, model: nn.Module) -> dict[str, Any]:
        """Return the card's figures, on data that it was never shown."""
        ...


@dataclass(frozen=True)
class TaskSet:
    """The lessons of one pack.

    Parameters
    ----------
    title, description : str
        The pack's, for a person to read.
    tasks : mapping of role to function
        Another way to teach a role has its name, too: ``scout/topk``, for ``--by topk``. Each
        takes the folder of data (``--data``, or None) and the pack's folder, where networks
        that were taught before lie, and returns the role's lesson.
    """

    title: str
    description: str
    tasks: Mapping[str, Callable[[Path | None, Path], TrainingTask]]


def installed_task_sets() -> dict[str, Callable[[], TaskSet]]:
    """Return what loads the course of each pack of the installed plug-ins, by the pack's name."""

    def loader(entry: Any) -> Callable[[], TaskSet]:
        def load() -> TaskSet:
            try:
                course: TaskSet = entry.load()
            except Exception as error:
                raise HrviewerError(
                    f"the lessons of {entry.name} ({entry.value}) do not import "
                    f"({short_message(error)}): install its plug-in again"
                ) from error
            return course

        return load

    return {entry.name: loader(entry) for entry in sorted(entry_points(group=GROUP))}
