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

from hrviewer.models.card import Architecture, ModelCard, ModelInput
from hrviewer.models.registry import get_architecture
from hrviewer.training.losses import WINDOWS, density_loss
from hrviewer.training.task import Batch

__all__ = [
    "CountedImage",
    "DensityTask",
    "build",
    "count_metrics",
    "fit_gain",
    "halo",
    "normalise",
    "predict_count",
    "predict_density",
    "to_float",
]

EMPTY_BELOW = 0.01
"""What an image holds at most that holds nothing: who stands outside reaches in."""
STRIP_ROWS = 1024
"""Rows of a picture that are looked at together."""
TILE_SIDE = 128
"""Of the tiles by which context is judged, in pixels."""


@dataclass(frozen=True, slots=True, eq=False)
class CountedImage:
    """A picture ``(3, h, w)``, from 0 to 1 or in bytes, and how many things are in it."""

    image: Tensor
    count: float


def build(spec: Architecture | None) -> nn.Module:
    """Return a network of random weights, as a card names it."""
    assert spec is not None, "a lesson's card names an architecture"
    network: nn.Module = get_architecture(spec.name)(**spec.params)
    return network


def halo(spec: Architecture) -> int:
    """Return how far a network of this architecture sees, which it says as its ``halo``."""
    return int(build(spec).halo)  # type: ignore[arg-type]


def normalise(images: Tensor, spec: ModelInput) -> Tensor:
    """Make of images ``(…, c, h, w)`` from 0 to 1 what a card's network takes in."""
    mean, std = (images.new_tensor(v).view(-1, 1, 1) for v in (spec.mean, spec.std))
    return ((images * (255 * spec.scale) - mean) / std).contiguous(
        memory_format=torch.channels_last
    )


def to_float(image: Tensor) -> Tensor:
    """Return an image from 0 to 1; one in bytes takes a quarter of the memory until then."""
    return image / 255 if image.dtype == torch.uint8 else image


@torch.inference_mode()
def predict_density(model: nn.Module, image: Tensor, spec: ModelInput) -> Tensor:
    """Return what the network says ``(k, h/stride, w/stride)`` of one image ``(c, h, w)``.

    The image is from 0 to 1 or in bytes; its sides are multiples of the card's ``multiple_of``.
    """
    image = to_float(image).to(next(model.parameters()).device)
    output: Tensor = model.eval()(normalise(image[None], spec))
    return output[0].float().cpu()


def predict_count(model: nn.Module, image: Tensor, spec: ModelInput) -> float:
    """Count all of an image ``(c, h, w)``, in strips: memory does not grow with its height."""
    halo, height = int(model.halo), image.shape[1]  # type: ignore[arg-type]
    total = 0.0
    for top in range(0, height, STRIP_ROWS):
        end = min(top + STRIP_ROWS, height)
        first, last = max(0, top - halo), min(height, end + halo)
        said = predict_density(model, image[:, first:last], spec)
        cell = (last - first) // said.shape[1]
        total += float(said[:, (top - first) // cell : (end - first) // cell].sum())
    return total


def tiling_error(model: nn.Module, image: Tensor, spec: ModelInput, context: int) -> float:
    """Return by which part a count is off that is made tile by tile, with so much context.

    Tiles have `SIDE` pixels; of the image ``(c, h, w)`` only whole ones are looked at.
    """
    h, w = (length // TILE_SIDE * TILE_SIDE for length in image.shape[1:])
    image, total = image[:, :h, :w], 0.0
    for y in range(0, h, TILE_SIDE):
        for x in range(0, w, TILE_SIDE):
            y0, x0 = max(0, y - context), max(0, x - context)
            near = image[:, y0 : y + TILE_SIDE + context, x0 : x + TILE_SIDE + context]
            said = predict_density(model, near, spec)
            cell = near.shape[1] // said.shape[1]
            top, left, n = (y - y0) // cell, (x - x0) // cell, TILE_SIDE // cell
            total += float(said[:, top : top + n, left : left + n].sum())
    return abs(total / predict_count(model, image, spec) - 1)


def count_metrics(
    model: nn.Module, images: Iterable[CountedImage], spec: ModelInput
) -> dict[str, float]:
    """Count every picture; return the mean absolute error, also over the mean, and the bias."""
    pairs = np.array([(predict_count(model, p.image, spec), p.count) for p in images])
    error = pairs[:, 0] - pairs[:, 1]
    mae, mean = float(np.abs(error).mean()), float(pairs[:, 1].mean())
    return {
        "mae": round(mae, 2),
        "mae_over_mean": round(mae / mean, 4),
        "bias_over_mean": round(float(error.mean()) / mean, 4),
    }


@dataclass(frozen=True)
class DensityTask:
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
        Those that the gain is set on; `validation` by default.
    windows
        As `density_loss` takes them.
    worst
        Of the images of a batch that hold nothing, how many are learned from: those in which it
        sees most (hard negatives; Sung and Poggio, Example-based learning for view-based human
        face detection, PAMI 1998). All by default.
    steps, rate
        See `Lesson`.
    """

    card: ModelCard
    sources: dict[str, Any]
    stream: Callable[[int, int], Dataset[Batch]]
    validation: Mapping[str, Sequence[CountedImage]]
    test: Mapping[str, Sequence[CountedImage]]
    windows: Sequence[tuple[int, float, float]] = WINDOWS
    hard_negatives: int | None = None
    calibration: Mapping[str, Sequence[CountedImage]] | None = None
    steps: int = 3600
    learning_rate: float = 3e-3

    def create_model(self) -> nn.Module:
        """Return a network of random weights."""
        return build(self.card.architecture)

    def batches(self, steps: int, seed: int) -> Dataset[Batch]:
        """Return the stream."""
        return self.stream(steps, seed)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Compare counts in windows."""
        images, density = batch
        images = normalise(images, self.card.input)
        if self.hard_negatives is not None:
            kept = self._select_images(model, images, density)
            images, density = images[kept], density[kept]
        return density_loss(model(images).float(), density, self.windows)

    @torch.no_grad()
    def _select_images(self, model: nn.Module, images: Tensor, density: Tensor) -> Tensor:
        """Return which images are learned from."""
        held = density.sum((1, 2, 3)) > EMPTY_BELOW
        empty = torch.nonzero(~held).ravel()
        if len(empty) <= (self.hard_negatives or 0):
            return torch.arange(len(images), device=images.device)
        seen = model.eval()(images[empty]).float().sum((1, 2, 3))
        model.train()
        worst = empty[seen.topk(self.hard_negatives or 0).indices]
        return torch.cat([torch.nonzero(held).ravel(), worst]).sort().values

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Return the mean absolute error over the mean count, for each lot to choose by."""
        how = self.card.input
        return {
            k: count_metrics(model, lot, how)["mae_over_mean"] for k, lot in self.validation.items()
        }

    def calibrate(self, model: nn.Module) -> dict[str, float]:
        """Scale the density so that counts are off by as small a part as can be, on average.

        What was not seen in training is missed more often than what was; one number makes up
        for it. Each lot weighs the same, however many pictures are in it.
        """
        how = self.card.input
        gains = []
        for lot in (self.calibration or self.validation).values():
            pairs = [(predict_count(model, picture.image, how), picture.count) for picture in lot]
            found, there = np.array([pair for pair in pairs if pair[1]]).T
            gains.append(fit_gain(found, there))
        gain = float(np.exp(np.mean(np.log(gains))))
        model.rescale(gain)  # type: ignore[operator]
        return {"gain": round(gain, 4)}

    def evaluate(self, model: nn.Module) -> dict[str, Any]:
        """Return the errors of the counts of each lot to test with."""
        how, context = self.card.input, self.card.output.context
        told = {
            "description": "error of the counts of whole pictures that were not learned from",
            "pictures": {name: len(lot) for name, lot in self.test.items()},
            **{name: count_metrics(model, lot, how) for name, lot in self.test.items()},
        }
        if context is not None:
            told["context"] = {
                "description": "relative error of counts made tile by tile: "
                f"{TILE_SIDE} px, context {context} px",
                **{
                    name: round(tiling_error(model, lot[0].image, how, context), 4)
                    for name, lot in self.test.items()
                    if min(lot[0].image.shape[1:]) >= TILE_SIDE
                },
            }
        return told


def fit_gain(predicted: NDArray[np.float64], expected: NDArray[np.float64]) -> float:
    """Return the factor of `predicted` with the smallest mean relative error.

    That is the median of their ratios, each with the weight of its inverse.
    """
    ratios = expected / np.maximum(predicted, 1e-9)
    order = np.argsort(ratios)
    weights = np.cumsum(1 / ratios[order])
    return float(ratios[order][np.searchsorted(weights, weights[-1] / 2)])
