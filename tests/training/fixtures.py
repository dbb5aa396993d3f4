"""A toy task: count the white squares of a black image."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from hrviewer.models.card import Architecture, ModelCard, ModelInput, ModelOutput
from hrviewer.training import CountedImage, DensityTask

NETWORK = Architecture(
    name="density-unet", params={"widths": [4, 4, 4, 4], "blocks": [0, 0, 0], "unit": 1.0}
)
CARD = ModelCard(
    name="squares",
    title="Squares",
    task="density",
    input=ModelInput(
        channels="rgb", scale=1 / 255, mean=(0.5,), std=(0.5,), tile=64, multiple_of=16
    ),
    output=ModelOutput(stride=4, halo=64, classes=("square",)),
    architecture=NETWORK,
)


def squares(rng: np.random.Generator, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return an image and its density: every square fills one cell of 4 pixels."""
    density = torch.from_numpy(rng.random((1, side // 4, side // 4)) < rng.uniform(0, 0.3)).float()
    image = density.repeat_interleave(4, 1).repeat_interleave(4, 2).expand(3, -1, -1)
    return image, density


class Squares(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    def __init__(self, steps: int, seed: int) -> None:
        self.steps, self.seed = steps, seed

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        rng = np.random.default_rng((self.seed, step))
        images, densities = zip(*(squares(rng, 32) for _ in range(4)), strict=True)
        return torch.stack(images), torch.stack(densities)


class Pictures(Squares):
    """The same, large enough for a scout, without labels."""

    def __getitem__(self, step: int) -> tuple[torch.Tensor]:
        return (picture((self.seed, step), 64)[None],)


def picture(seed: Any, side: int) -> torch.Tensor:
    return squares(np.random.default_rng(seed), side)[0]


def counted(seed: int) -> CountedImage:
    image, density = squares(np.random.default_rng(seed), 64)
    return CountedImage(image, float(density.sum()))


def toy(**changes: Any) -> DensityTask:
    parts: dict[str, Any] = {
        "card": CARD,
        "sources": {"data": "squares"},
        "stream": Squares,
        "validation": {"validation": [counted(seed) for seed in range(100, 104)]},
        "test": {"test": [counted(seed) for seed in range(200, 204)]},
        "steps": 60,
        "learning_rate": 1e-2,
    }
    return DensityTask(**parts | changes)
