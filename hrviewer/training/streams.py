"""Streams of batches, put together."""

from __future__ import annotations

import torch
from torch.utils.data import Dataset

from hrviewer.training.lesson import Batch

__all__ = ["Joined"]


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
