"""What the pack's network learns: ``hrviewer-train dots main``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from hrviewer.geometry import Rect
from hrviewer.models.card import Architecture, Card, Input, Output
from hrviewer.training import CHOOSE, TEST, TRAIN, Counted, Course, Density, halo
from torch import Tensor
from torch.utils.data import Dataset

from hrviewer_template.dots import Dots

__all__ = ["COURSE"]

SIZE, SIDE, STRIDE = 4096, 160, 4
NETWORK = Architecture(name="density-unet", params={"widths": [8, 8, 8, 8], "blocks": [1, 0, 0]})


class Crops(Dataset[tuple[Tensor, Tensor]]):
    """Batches of pieces of scenes and their densities, each of the seed and its number alone."""

    def __init__(self, steps: int, seed: int) -> None:
        self.steps, self.seed = steps, seed

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        """Return images ``(n, 3, h, w)`` from 0 to 1 and densities at the network's stride."""
        rng = np.random.default_rng((self.seed, step))
        pieces = [crop(Dots(SIZE, int(rng.choice(TRAIN))), rng) for _ in range(8)]
        images, densities = zip(*pieces, strict=True)
        return torch.stack(images), torch.stack(densities)


def crop(scene: Dots, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Return a random piece of a scene, and its dots in cells of the network's stride."""
    y, x = (int(rng.integers(SIZE - SIDE)) for _ in range(2))
    rect = Rect(y, x, SIDE, SIDE)
    cells = SIDE // STRIDE
    points = (scene.truth(rect).points - (y, x)) / STRIDE
    density, _, _ = np.histogram2d(*points.T, bins=cells, range=[[0, cells]] * 2)
    return picture(scene, rect), torch.from_numpy(density).float()[None]


def picture(scene: Dots, rect: Rect) -> Tensor:
    """Return a piece ``(3, h, w)`` from 0 to 1."""
    return torch.from_numpy(scene.render(rect, 1)).permute(2, 0, 1).float() / 255


def counted(seed: int) -> Counted:
    """Return a whole small scene and its count."""
    scene, rect = Dots(1024, seed), Rect(0, 0, 1024, 1024)
    return Counted(picture(scene, rect), len(scene.truth(rect)))


def main(data: Path | None, pack: Path) -> Density:
    """Count dots."""
    card = Card(
        name="dots-density",
        title="Dots, a density network",
        task="density",
        input=Input(
            channels="rgb", scale=1 / 255, mean=(0.8,), std=(0.2,), tile=512, multiple_of=16
        ),
        output=Output(stride=STRIDE, halo=halo(NETWORK), classes=("dot",)),
        architecture=NETWORK,
        licence="BSD-3-Clause",
    )
    return Density(
        card,
        {"data": f"scenes of dots, seeds {TRAIN[0]}–{TRAIN[-1]}"},
        Crops,
        choose={"choose": [counted(seed) for seed in CHOOSE[:4]]},
        test={"test": [counted(seed) for seed in TEST[:10]]},
        steps=600,
        rate=1e-2,
    )


COURSE = Course("Dots", "Counts dots: a pack to copy.", {"main": main})
