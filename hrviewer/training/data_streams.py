"""Streams of batches, put together."""

from __future__ import annotations

import torch
from torch.utils.data import Dataset

from hrviewer.training.task import Batch

__all__ = ["WithoutContext", "ZippedStreams"]


class ZippedStreams(Dataset[Batch]):
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


class WithoutContext(Dataset[Batch]):
    """Pictures of whose surroundings nothing is known, where others have theirs with them.

    Parameters
    ----------
    stream
        Batches of images alone.
    rings
        As in `Pieces`.
    patch
        Side of a square, in pixels.
    """

    def __init__(self, stream: Dataset[Batch], rings: int, patch: int = 16) -> None:
        self.stream, self.rings, self.patch = stream, rings, patch

    def __len__(self) -> int:
        return len(self.stream)  # type: ignore[arg-type]

    def __getitem__(self, step: int) -> Batch:
        """Return the images, and NaN for what is around them."""
        (images,) = self.stream[step]
        shape = len(images), 8 * self.rings, 3, self.patch, self.patch
        return images, torch.full(shape, torch.nan)
