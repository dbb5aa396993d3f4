"""The lessons of compression: what makes codes of an image, and what reads them.

An encoder goes the way down that ``main`` goes, beginning with what main has learned, and is
taught to put into its codes what main counts there and what the place looks like. A head is then
taught on codes that stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from hrviewer.models.bundle import ModelBundle
from hrviewer.models.card import Architecture, ModelCard, ModelInput, ModelOutput
from hrviewer.models.loaders.torch import count_flops
from hrviewer.models.network import Network
from hrviewer.training.density_task import build, halo, normalise
from hrviewer.training.distillation import DistilledScout, derive_card
from hrviewer.training.task import Batch

__all__ = ["EncoderTask", "HeadTask"]

EMBEDDING_WIDTH = 24
"""Numbers in a code."""
STRIDE = 16
"""Pixels a side that a code stands for."""
WINDOWS = ((1, 1.0, 0.02), (4, 0.5, 0.06), (8, 0.3, 0.15))
"""As `density_loss` takes them, in codes."""
RECONSTRUCTION_WEIGHT = 0.1
"""How much the looks of a place matter beside what is counted there."""


@dataclass(frozen=True)
class EncoderTask(DistilledScout):
    """Learn to encode what ``main`` counts, and what it looks like.

    Parameters
    ----------
    card, sources, teacher, stream, choose, test, windows, tile, steps, rate
        See `Student`.
    start
        Weights to begin with, by their names.
    """

    learning_rate: float = 1e-3
    initial_weights: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    ROLE: ClassVar[str] = "encoder"

    @classmethod
    def _derive(
        cls, bundle: ModelBundle, main: ModelCard, role: str, downsample: int | None, device: str
    ) -> dict[str, Any]:
        like = main.architecture
        trunk = like.params if like is not None and like.name == "density-unet" else {}
        widths, blocks = trunk.get("widths", (24, 48, 72)), trunk.get("blocks", (1, 2))
        what = Architecture(
            name="density-encoder",
            params={
                "embedding_dim": EMBEDDING_WIDTH,
                "classes": len(main.classes),
                # As main down to an eighth; what is below it is cheap, and there to be left out.
                "widths": [*widths[:3], 2 * EMBEDDING_WIDTH],
                "blocks": [*blocks[:2], 1],
            },
        )
        card = derive_card(
            main,
            role,
            what,
            task="embedding",
            input=main.input.model_copy(
                update={
                    "tile": 512,
                    "multiple_of": STRIDE,
                    "fixed": False,
                    "downsample": float(downsample or 1),
                }
            ),
            output=ModelOutput(stride=STRIDE, halo=halo(what), width=EMBEDDING_WIDTH),
        )
        # As much of main as fits is what it begins with.
        weights = load_file(bundle.weights("main")) if trunk else {}
        return {"card": card, "windows": WINDOWS, "initial_weights": weights}

    def create_model(self) -> nn.Module:
        """Return a network that has main's weights wherever they fit."""
        network = build(self.card.architecture)
        own = network.state_dict()
        fits = {
            k: v for k, v in self.initial_weights.items() if k in own and v.shape == own[k].shape
        }
        network.load_state_dict(own | fits)
        return network

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Ask its own two heads what is there, and what it looks like."""
        (images,) = batch
        seen = normalise(self._model_input(images), self.card.input)
        codes = model(seen)
        small = F.pixel_unshuffle(F.avg_pool2d(seen, 4), STRIDE // 4)
        looks = F.mse_loss(model.picture(codes).float(), small)  # type: ignore[operator]
        return self._prediction_loss(model.guide(codes), images) + RECONSTRUCTION_WEIGHT * looks  # type: ignore[operator]

    def evaluate(self, model: nn.Module) -> dict[str, Any]:
        """Return how well its own head does, and how much smaller codes are than the image."""
        figures = super().evaluate(model)
        pixels = self._cell_side**2 * self.card.input.channel_count
        return figures | {"embedding_ratio": round(2 * EMBEDDING_WIDTH / pixels, 5)}

    def _predict(self, model: nn.Module, images: Tensor) -> Tensor:
        said: Tensor = model.guide(super()._predict(model, images))  # type: ignore[operator]
        return said


@dataclass(frozen=True)
class HeadTask(DistilledScout):
    """Learn to read from codes, which stay as they are, what ``main`` counts.

    Parameters
    ----------
    card, sources, teacher, stream, choose, test, windows, tile, steps, rate
        See `Student`.
    encoder
        Whose codes are read.
    """

    steps: int = 800
    encoder: Network = field(kw_only=True)
    ROLE: ClassVar[str] = "head"

    @classmethod
    def _derive(
        cls, bundle: ModelBundle, main: ModelCard, role: str, downsample: int | None, device: str
    ) -> dict[str, Any]:
        encoder = bundle.load("encoder", device)
        width = encoder.card.prediction_channels
        what = Architecture(
            name="embedding-head",
            params={"embedding_dim": width, "classes": len(main.classes), "variance": True},
        )
        card = derive_card(
            main,
            role,
            what,
            input=ModelInput(channels=width, tile=32),
            output=ModelOutput(stride=1, halo=halo(what), classes=main.classes, variance=True),
        )
        return {"card": card, "windows": WINDOWS, "encoder": encoder}

    @property
    def _cell_side(self) -> int:
        return int(self.encoder.stride * self.encoder.card.input.downsample)

    def _predict(self, model: nn.Module, images: Tensor) -> Tensor:
        how = self.encoder.card.input
        small = F.avg_pool2d(images, int(how.downsample))
        codes = self.encoder(normalise(small, how).float().cpu().numpy())
        # As they are kept.
        said: Tensor = model(torch.from_numpy(codes).half().float().to(images.device))
        return said

    def _relative_flops(self, model: nn.Module) -> float:
        side, tile = self.card.input.tile, self.teacher.card.input.tile
        hollow = build(self.card.architecture).to("meta")
        flops = count_flops(hollow, "forward", (1, self.card.input.channel_count, side, side))
        return flops / (self.teacher.flops(tile, tile) * (side * self._cell_side / tile) ** 2)
