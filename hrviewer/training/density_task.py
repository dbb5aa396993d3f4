"""The lesson of a network that counts: pictures, and the density of what is in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset

from hrviewer.models.card import Architecture, Card, Input
from hrviewer.models.registry import architecture
from hrviewer.training.losses import WINDOWS, density_loss
from hrviewer.training.task import Batch

__all__ = [
    "Counted",
    "Density",
    "best_gain",
    "build",
    "count",
    "estimate",
    "floats",
    "halo",
    "measure",
    "normalised",
]

EMPTY = 0.01
"""What an image holds at most that holds nothing: who stands outside reaches in."""
STRIP = 1024
"""Rows of a picture that are looked at together."""
SIDE = 128
"""Of the tiles by which context is judged, in pixels."""


@dataclass(frozen=True, slots=True, eq=False)
class Counted:
    """A picture ``(3, h, w)``, from 0 to 1 or in bytes, and how many things are in it."""

    image: Tensor
    count: float


def build(what: Architecture | None) -> nn.Module:
    """Return a network of random weights, as a card names it."""
    assert what is not None, "a lesson's card names an architecture"
    network: nn.Module = architecture(what.name)(**what.params)
    return network


def halo(what: Architecture) -> int:
    """Return how far a network of this architecture sees, which it says as its ``halo``."""
    return int(build(what).halo)  # type: ignore[arg-type]


def normalised(images: Tensor, how: Input) -> Tensor:
    """Make of images ``(…, c, h, w)`` from 0 to 1 what a card's network takes in."""
    mean, std = (images.new_tensor(v).view(-1, 1, 1) for v in (how.mean, how.std))
    return ((images * (255 * how.scale) - mean) / std).contiguous(memory_format=torch.channels_last)


def floats(image: Tensor) -> Tensor:
    """Return an image from 0 to 1; one in bytes takes a quarter of the memory until then."""
    return image / 255 if image.dtype == torch.uint8 else image


@torch.inference_mode()
def estimate(network: nn.Module, image: Tensor, how: Input) -> Tensor:
    """Return what the network says ``(k, h/stride, w/stride)`` of one image ``(c, h, w)``.

    The image is from 0 to 1 or in bytes; its sides are multiples of the card's ``multiple_of``.
    """
    image = floats(image).to(next(network.parameters()).device)
    output: Tensor = network.eval()(normalised(image[None], how))
    return output[0].float().cpu()


def count(network: nn.Module, image: Tensor, how: Input) -> float:
    """Count all of an image ``(c, h, w)``, in strips: memory does not grow with its height."""
    halo, height = int(network.halo), image.shape[1]  # type: ignore[arg-type]
    total = 0.0
    for top in range(0, height, STRIP):
        end = min(top + STRIP, height)
        first, last = max(0, top - halo), min(height, end + halo)
        said = estimate(network, image[:, first:last], how)
        cell = (last - first) // said.shape[1]
        total += float(said[:, (top - first) // cell : (end - first) // cell].sum())
    return total


def off_in_tiles(network: nn.Module, image: Tensor, how: Input, context: int) -> float:
    """Return by which part a count is off that is made tile by tile, with so much context.

    Tiles have `SIDE` pixels; of the image ``(c, h, w)`` only whole ones are looked at.
    """
    h, w = (length // SIDE * SIDE for length in image.shape[1:])
    image, total = image[:, :h, :w], 0.0
    for y in range(0, h, SIDE):
        for x in range(0, w, SIDE):
            y0, x0 = max(0, y - context), max(0, x - context)
            near = image[:, y0 : y + SIDE + context, x0 : x + SIDE + context]
            said = estimate(network, near, how)
            cell = near.shape[1] // said.shape[1]
            top, left, n = (y - y0) // cell, (x - x0) // cell, SIDE // cell
            total += float(said[:, top : top + n, left : left + n].sum())
    return abs(total / count(network, image, how) - 1)


def measure(network: nn.Module, pictures: Iterable[Counted], how: Input) -> dict[str, float]:
    """Count every picture; return the mean absolute error, also over the mean, and the bias."""
    pairs = np.array([(count(network, p.image, how), p.count) for p in pictures])
    error = pairs[:, 0] - pairs[:, 1]
    mae, mean = float(np.abs(error).mean()), float(pairs[:, 1].mean())
    return {
        "mae": round(mae, 2),
        "mae_over_mean": round(mae / mean, 4),
        "bias_over_mean": round(float(error.mean()) / mean, 4),
    }


@dataclass(frozen=True)
class Density:
    """Learn to count.

    Parameters
    ----------
    card, sources
        See `Lesson`. The architecture has a method ``rescale`` as `DensityUNet` has.
    stream
        Takes steps and seed, returns batches of images ``(n, 3, h, w)`` from 0 to 1 and densities
        ``(n, k, h/stride, w/stride)``.
    choose, test
        Whole pictures by the name of their lot, to choose by and to report on.
    gauge
        Those that the gain is set on; `choose` by default.
    windows
        As `density_loss` takes them.
    worst
        Of the images of a batch that hold nothing, how many are learned from: those in which it
        sees most (hard negatives; Sung and Poggio, Example-based learning for view-based human
        face detection, PAMI 1998). All by default.
    steps, rate
        See `Lesson`.
    """

    card: Card
    sources: dict[str, Any]
    stream: Callable[[int, int], Dataset[Batch]]
    choose: Mapping[str, Sequence[Counted]]
    test: Mapping[str, Sequence[Counted]]
    windows: Sequence[tuple[int, float, float]] = WINDOWS
    worst: int | None = None
    gauge: Mapping[str, Sequence[Counted]] | None = None
    steps: int = 3600
    rate: float = 3e-3

    def begin(self) -> nn.Module:
        """Return a network of random weights."""
        return build(self.card.architecture)

    def batches(self, steps: int, seed: int) -> Dataset[Batch]:
        """Return the stream."""
        return self.stream(steps, seed)

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """Compare counts in windows."""
        images, density = batch
        images = normalised(images, self.card.input)
        if self.worst is not None:
            kept = self._kept(network, images, density)
            images, density = images[kept], density[kept]
        return density_loss(network(images).float(), density, self.windows)

    @torch.no_grad()
    def _kept(self, network: nn.Module, images: Tensor, density: Tensor) -> Tensor:
        """Return which images are learned from."""
        held = density.sum((1, 2, 3)) > EMPTY
        empty = torch.nonzero(~held).ravel()
        if len(empty) <= (self.worst or 0):
            return torch.arange(len(images), device=images.device)
        seen = network.eval()(images[empty]).float().sum((1, 2, 3))
        network.train()
        worst = empty[seen.topk(self.worst or 0).indices]
        return torch.cat([torch.nonzero(held).ravel(), worst]).sort().values

    def judge(self, network: nn.Module) -> dict[str, float]:
        """Return the mean absolute error over the mean count, for each lot to choose by."""
        how = self.card.input
        return {k: measure(network, lot, how)["mae_over_mean"] for k, lot in self.choose.items()}

    def calibrate(self, network: nn.Module) -> dict[str, float]:
        """Scale the density so that counts are off by as small a part as can be, on average.

        What was not seen in training is missed more often than what was; one number makes up
        for it. Each lot weighs the same, however many pictures are in it.
        """
        how = self.card.input
        gains = []
        for lot in (self.gauge or self.choose).values():
            pairs = [(count(network, picture.image, how), picture.count) for picture in lot]
            found, there = np.array([pair for pair in pairs if pair[1]]).T
            gains.append(best_gain(found, there))
        gain = float(np.exp(np.mean(np.log(gains))))
        network.rescale(gain)  # type: ignore[operator]
        return {"gain": round(gain, 4)}

    def examine(self, network: nn.Module) -> dict[str, Any]:
        """Return the errors of the counts of each lot to test with."""
        how, context = self.card.input, self.card.output.context
        told = {
            "what": "error of the counts of whole pictures that were not learned from",
            "pictures": {name: len(lot) for name, lot in self.test.items()},
            **{name: measure(network, lot, how) for name, lot in self.test.items()},
        }
        if context is not None:
            told["context"] = {
                "what": f"by which part counts are off in tiles of {SIDE} px with {context} around",
                **{
                    name: round(off_in_tiles(network, lot[0].image, how, context), 4)
                    for name, lot in self.test.items()
                    if min(lot[0].image.shape[1:]) >= SIDE
                },
            }
        return told


def best_gain(found: NDArray[np.float64], there: NDArray[np.float64]) -> float:
    """Return the factor of `found` that makes the mean of their errors, over `there`, smallest.

    That is the median of their ratios, each with the weight of its inverse.
    """
    ratios = there / np.maximum(found, 1e-9)
    order = np.argsort(ratios)
    weights = np.cumsum(1 / ratios[order])
    return float(ratios[order][np.searchsorted(weights, weights[-1] / 2)])
