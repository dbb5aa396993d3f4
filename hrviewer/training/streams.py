"""Streams of batches, and which seeds of scenes are for what."""

from __future__ import annotations

import torch
from torch.utils.data import Dataset

from hrviewer.training.lesson import Batch

__all__ = ["CHOOSE", "TEST", "TRAIN", "Joined"]

TRAIN, CHOOSE, TEST = range(10_000), range(10_000, 11_000), range(11_000, 12_000)
"""Seeds of scenes to learn from, to choose between trainings by, and to test with. No others."""


class Joined(Dataset[Batch]):
    """Several streams side by side: each batch holds a part from every one.

    Parameters
    ----------
    *streams
        Of the same length, whose batches differ in their number of samples only.
    """

    def __init__(self, *streams: Dataset[Batch]) -> None:
        self.streams = streams

    def __len__(self) -> int:
        return len(self.streams[0])  # type: ignore[arg-type]

    def __getitem__(self, step: int) -> Batch:
        """Return the parts of this step, one after another."""
        parts = [stream[step] for stream in self.streams]
        return tuple(torch.cat(tensors) for tensors in zip(*parts, strict=True))
