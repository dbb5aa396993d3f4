"""Combined streams of training batches."""

from __future__ import annotations

import torch
from torch.utils.data import Dataset

from hrviewer.training.task import Batch

__all__ = ["WithoutContext", "ZippedStreams"]


class ZippedStreams(Dataset[Batch]):
    """Several streams as one: each batch concatenates a batch of every stream.

    Parameters
    ----------
    *streams
        Streams of the same length, whose batches differ only in their number of samples.
    """

    def __init__(self, *streams: Dataset[Batch]) -> None:
        self.streams = streams

    def __len__(self) -> int:
        return len(self.streams[0])  # type: ignore[arg-type]

    def __getitem__(self, step: int) -> Batch:
        """Return the concatenated batches of this step."""
        parts = [stream[step] for stream in self.streams]
        return tuple(torch.cat(tensors) for tensors in zip(*parts, strict=True))


class WithoutContext(Dataset[Batch]):
    """Images without context, to be combined with streams that have it.

    Parameters
    ----------
    stream
        Batches of images only.
    rings
        Number of context rings, as in `CropStream`.
    patch
        Side of a context patch, in pixels.
    """

    def __init__(self, stream: Dataset[Batch], rings: int, patch: int = 16) -> None:
        self.stream, self.rings, self.patch = stream, rings, patch

    def __len__(self) -> int:
        return len(self.stream)  # type: ignore[arg-type]

    def __getitem__(self, step: int) -> Batch:
        """Return the images, and NaN as their context."""
        (images,) = self.stream[step]
        shape = len(images), 8 * self.rings, 3, self.patch, self.patch
        return images, torch.full(shape, torch.nan)
