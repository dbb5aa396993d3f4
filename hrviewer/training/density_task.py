"""Training task of a counting network: images, and the density of the objects in them."""

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
"""Objects; the mass below which an image is empty, since objects outside reach into it."""
STRIP_ROWS = 1024
"""Rows of an image that are processed together."""
TILE_SIDE = 128
"""Pixels; side of the tiles on which the context is evaluated."""


@dataclass(frozen=True, slots=True, eq=False)
class CountedImage:
    """An image ``(3, h, w)``, from 0 to 1 or in bytes, and the number of objects in it."""

    image: Tensor
    count: float


def build(spec: Architecture | None) -> nn.Module:
    """Return a network with random weights, of a card's architecture."""
    assert spec is not None, "a task's card names an architecture"
    network: nn.Module = get_architecture(spec.name)(**spec.params)
    return network


def halo(spec: Architecture) -> int:
    """Return the halo of an architecture's network, its attribute ``halo``."""
    return int(build(spec).halo)  # type: ignore[arg-type]


def normalise(images: Tensor, spec: ModelInput) -> Tensor:
    """Return images ``(…, c, h, w)`` from 0 to 1 as the input of a card's network."""
    mean, std = (images.new_tensor(v).view(-1, 1, 1) for v in (spec.mean, spec.std))
    return ((images * (255 * spec.scale) - mean) / std).contiguous(
        memory_format=torch.channels_last
    )


def to_float(image: Tensor) -> Tensor:
    """Return an image from 0 to 1; images are kept in bytes, a quarter of the memory."""
    return image / 255 if image.dtype == torch.uint8 else image


@torch.inference_mode()
def predict_density(model: nn.Module, image: Tensor, spec: ModelInput) -> Tensor:
    """Return the predicted density ``(k, h/stride, w/stride)`` of one image ``(c, h, w)``.

    The image is from 0 to 1 or in bytes; its sides are multiples of the card's ``multiple_of``.
    """
    image = to_float(image).to(next(model.parameters()).device)
    output: Tensor = model.eval()(normalise(image[None], spec))
    return output[0].float().cpu()


def predict_count(model: nn.Module, image: Tensor, spec: ModelInput) -> float:
    """Return the predicted count of an image ``(c, h, w)``, in strips of bounded memory."""
    halo, height = int(model.halo), image.shape[1]  # type: ignore[arg-type]
    total = 0.0
    for top in range(0, height, STRIP_ROWS):
        end = min(top + STRIP_ROWS, height)
        first, last = max(0, top - halo), min(height, end + halo)
        density = predict_density(model, image[:, first:last], spec)
        cell = (last - first) // density.shape[1]
        total += float(density[:, (top - first) // cell : (end - first) // cell].sum())
    return total


def tiling_error(model: nn.Module, image: Tensor, spec: ModelInput, context: int) -> float:
    """Return the relative error of a count that is made tile by tile with some context.

    Tiles have `TILE_SIDE` pixels; partial tiles of the image ``(c, h, w)`` are left out.
    """
    h, w = (length // TILE_SIDE * TILE_SIDE for length in image.shape[1:])
    image, total = image[:, :h, :w], 0.0
    for y in range(0, h, TILE_SIDE):
        for x in range(0, w, TILE_SIDE):
            y0, x0 = max(0, y - context), max(0, x - context)
            near = image[:, y0 : y + TILE_SIDE + context, x0 : x + TILE_SIDE + context]
            density = predict_density(model, near, spec)
            cell = near.shape[1] // density.shape[1]
            top, left, n = (y - y0) // cell, (x - x0) // cell, TILE_SIDE // cell
            total += float(density[:, top : top + n, left : left + n].sum())
    return abs(total / predict_count(model, image, spec) - 1)


def count_metrics(
    model: nn.Module, images: Iterable[CountedImage], spec: ModelInput
) -> dict[str, float]:
    """Return the mean absolute error of predicted counts, also over their mean, and the bias."""
    pairs = np.array([(predict_count(model, item.image, spec), item.count) for item in images])
    error = pairs[:, 0] - pairs[:, 1]
    mae, mean = float(np.abs(error).mean()), float(pairs[:, 1].mean())
    return {
        "mae": round(mae, 2),
        "mae_over_mean": round(mae / mean, 4),
        "bias_over_mean": round(float(error.mean()) / mean, 4),
    }


@dataclass(frozen=True)
class DensityTask:
    """Training of a counting network.

    Parameters
    ----------
    card, sources
        As in `TrainingTask`. The architecture has a method ``rescale`` as `DensityUNet` has.
    stream
        Takes steps and seed, returns batches of images ``(n, 3, h, w)`` from 0 to 1 and densities
        ``(n, k, h/stride, w/stride)``.
    validation, test
        Images for validation and for the final metrics, by the name of their set.
    calibration
        Images on which the gain is set; `validation` by default.
    windows
        Windows of `density_loss`.
    hard_negatives
        Number of a batch's empty images that are used: those with the largest predicted counts
        (Sung and Poggio, Example-based learning for view-based human face detection, PAMI 1998).
        All by default.
    steps, learning_rate
        As in `TrainingTask`.
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
        """Return a network with random weights."""
        return build(self.card.architecture)

    def batches(self, steps: int, seed: int) -> Dataset[Batch]:
        """Return the data stream."""
        return self.stream(steps, seed)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Compare predicted counts in windows with the density's."""
        images, density = batch
        images = normalise(images, self.card.input)
        if self.hard_negatives is not None:
            used = self._select_images(model, images, density)
            images, density = images[used], density[used]
        return density_loss(model(images).float(), density, self.windows)

    @torch.no_grad()
    def _select_images(self, model: nn.Module, images: Tensor, density: Tensor) -> Tensor:
        """Return the indices of the images used: non-empty ones and hard negatives."""
        occupied = density.sum((1, 2, 3)) > EMPTY_BELOW
        empty = torch.nonzero(~occupied).ravel()
        if len(empty) <= (self.hard_negatives or 0):
            return torch.arange(len(images), device=images.device)
        predicted = model.eval()(images[empty]).float().sum((1, 2, 3))
        model.train()
        hard = empty[predicted.topk(self.hard_negatives or 0).indices]
        return torch.cat([torch.nonzero(occupied).ravel(), hard]).sort().values

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Return the mean absolute error over the mean count, for each validation set."""
        spec = self.card.input
        return {
            name: count_metrics(model, images, spec)["mae_over_mean"]
            for name, images in self.validation.items()
        }

    def calibrate(self, model: nn.Module) -> dict[str, float]:
        """Scale the density for the smallest mean relative error of counts.

        Unfamiliar images are undercounted more often than training images; one factor corrects for
        that. Each set has the same weight, independent of its size.
        """
        spec = self.card.input
        gains = []
        for images in (self.calibration or self.validation).values():
            pairs = [(predict_count(model, item.image, spec), item.count) for item in images]
            predicted, expected = np.array([pair for pair in pairs if pair[1]]).T
            gains.append(fit_gain(predicted, expected))
        gain = float(np.exp(np.mean(np.log(gains))))
        model.rescale(gain)  # type: ignore[operator]
        return {"gain": round(gain, 4)}

    def evaluate(self, model: nn.Module) -> dict[str, Any]:
        """Return the errors of the counts of each test set."""
        spec, context = self.card.input, self.card.output.context
        metrics = {
            "description": "error of the counts of held-out images",
            "images": {name: len(images) for name, images in self.test.items()},
            **{name: count_metrics(model, images, spec) for name, images in self.test.items()},
        }
        if context is not None:
            metrics["context"] = {
                "description": "relative error of counts made tile by tile: "
                f"{TILE_SIDE} px, context {context} px",
                **{
                    name: round(tiling_error(model, images[0].image, spec, context), 4)
                    for name, images in self.test.items()
                    if min(images[0].image.shape[1:]) >= TILE_SIDE
                },
            }
        return metrics


def fit_gain(predicted: NDArray[np.float64], expected: NDArray[np.float64]) -> float:
    """Return the factor of `predicted` with the smallest mean relative error.

    That is the median of the ratios, each weighted by its inverse.
    """
    ratios = expected / np.maximum(predicted, 1e-9)
    order = np.argsort(ratios)
    weights = np.cumsum(1 / ratios[order])
    return float(ratios[order][np.searchsorted(weights, weights[-1] / 2)])
