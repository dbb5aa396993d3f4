"""Streams of batches, put together."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.data import Dataset

from hrviewer.training.lesson import Batch

__all__ = ["Joined", "Shrunk"]


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


class Shrunk(Dataset[Batch]):
    """Images and densities at several sizes: each batch is shrunk by one of some factors.

    Parameters
    ----------
    stream
        Takes the side of its images, in pixels; returns batches of images and densities.
    side
        Of what comes out.
    shares
        How often each factor is drawn.
    seed
        What that chance is drawn from.
    """

    def __init__(
        self,
        stream: Callable[[int], Dataset[Batch]],
        side: int,
        shares: Mapping[int, float],
        seed: int,
    ) -> None:
        self.streams = {factor: stream(side * factor) for factor in shares}
        self.shares = list(shares.values())
        self.seed = seed

    def __len__(self) -> int:
        return len(next(iter(self.streams.values())))  # type: ignore[arg-type]

    def __getitem__(self, step: int) -> Batch:
        """Return the batch of this step, its images averaged and its densities summed."""
        rng = np.random.default_rng((self.seed, step))
        factor = int(rng.choice(list(self.streams), p=self.shares))
        images, density = self.streams[factor][step]
        return F.avg_pool2d(images, factor), F.avg_pool2d(density, factor) * factor**2
