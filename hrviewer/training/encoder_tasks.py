"""Training tasks of compression: encoders that make embeddings of an image, and heads on them.

An encoder has the layers of ``main`` and starts with its weights; it learns to embed main's counts
and the appearance of each place. A head is then trained on fixed embeddings.
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
"""Numbers in an embedding."""
STRIDE = 16
"""Pixels per side that an embedding covers."""
WINDOWS = ((1, 1.0, 0.02), (4, 0.5, 0.06), (8, 0.3, 0.15))
"""Windows of `density_loss`, in cells of the embeddings."""
RECONSTRUCTION_WEIGHT = 0.1
"""Weight of the appearance, next to the counts."""


@dataclass(frozen=True)
class EncoderTask(DistilledScout):
    """Training of an encoder, whose embeddings predict the counts of ``main`` and the appearance.

    Parameters
    ----------
    card, sources, teacher, stream, validation, test, windows, tile, steps, learning_rate
        As in `DistilledScout`.
    initial_weights
        Initial weights, by their names.
    """

    learning_rate: float = 1e-3
    initial_weights: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    ROLE: ClassVar[str] = "encoder"

    @classmethod
    def _derive(
        cls, bundle: ModelBundle, main: ModelCard, role: str, downsample: int | None, device: str
    ) -> dict[str, Any]:
        source = main.architecture
        trunk = source.params if source is not None and source.name == "density-unet" else {}
        widths, blocks = trunk.get("widths", (24, 48, 72)), trunk.get("blocks", (1, 2))
        architecture = Architecture(
            name="density-encoder",
            params={
                "embedding_dim": EMBEDDING_WIDTH,
                "classes": len(main.classes),
                # The same as in main down to an eighth.
                "widths": [*widths[:3], 2 * EMBEDDING_WIDTH],
                "blocks": [*blocks[:2], 1],
            },
        )
        card = derive_card(
            main,
            role,
            architecture,
            task="embedding",
            input=main.input.model_copy(
                update={
                    "tile": 512,
                    "multiple_of": STRIDE,
                    "fixed": False,
                    "downsample": float(downsample or 1),
                }
            ),
            output=ModelOutput(stride=STRIDE, halo=halo(architecture), width=EMBEDDING_WIDTH),
        )
        weights = load_file(bundle.weights("main")) if trunk else {}
        return {"card": card, "windows": WINDOWS, "initial_weights": weights}

    def create_model(self) -> nn.Module:
        """Return a network with main's weights wherever they fit."""
        network = build(self.card.architecture)
        own = network.state_dict()
        initial = {
            name: value
            for name, value in self.initial_weights.items()
            if name in own and value.shape == own[name].shape
        }
        network.load_state_dict(own | initial)
        return network

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Compare the predictions of two heads with main's counts and with the image."""
        (images,) = batch
        inputs = normalise(self._model_input(images), self.card.input)
        embeddings = model(inputs)
        target = F.pixel_unshuffle(F.avg_pool2d(inputs, 4), STRIDE // 4)
        appearance_loss = F.mse_loss(model.picture(embeddings).float(), target)  # type: ignore[operator]
        counts: Tensor = model.guide(embeddings)  # type: ignore[operator]
        return self._prediction_loss(counts, images) + RECONSTRUCTION_WEIGHT * appearance_loss

    def evaluate(self, model: nn.Module) -> dict[str, Any]:
        """Return the metrics of the encoder's own head, and the relative size of embeddings."""
        metrics = super().evaluate(model)
        pixels = self._cell_side**2 * self.card.input.channel_count
        return metrics | {"embedding_ratio": round(2 * EMBEDDING_WIDTH / pixels, 5)}

    def _predict(self, model: nn.Module, images: Tensor) -> Tensor:
        predicted: Tensor = model.guide(super()._predict(model, images))  # type: ignore[operator]
        return predicted


@dataclass(frozen=True)
class HeadTask(DistilledScout):
    """Training of a head, which predicts the counts of ``main`` from fixed embeddings.

    Parameters
    ----------
    card, sources, teacher, stream, validation, test, windows, tile, steps, learning_rate
        As in `DistilledScout`.
    encoder
        Encoder that makes the embeddings.
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
        architecture = Architecture(
            name="embedding-head",
            params={"embedding_dim": width, "classes": len(main.classes), "variance": True},
        )
        card = derive_card(
            main,
            role,
            architecture,
            input=ModelInput(channels=width, tile=32),
            output=ModelOutput(
                stride=1, halo=halo(architecture), classes=main.classes, variance=True
            ),
        )
        return {"card": card, "windows": WINDOWS, "encoder": encoder}

    @property
    def _cell_side(self) -> int:
        return int(self.encoder.stride * self.encoder.card.input.downsample)

    def _predict(self, model: nn.Module, images: Tensor) -> Tensor:
        spec = self.encoder.card.input
        small = F.avg_pool2d(images, int(spec.downsample))
        embeddings = self.encoder(normalise(small, spec).float().cpu().numpy())
        # In half precision, as embeddings are stored.
        predicted: Tensor = model(torch.from_numpy(embeddings).half().float().to(images.device))
        return predicted

    def _relative_flops(self, model: nn.Module) -> float:
        side, tile = self.card.input.tile, self.teacher.card.input.tile
        meta_model = build(self.card.architecture).to("meta")
        flops = count_flops(meta_model, "forward", (1, self.card.input.channel_count, side, side))
        return flops / (self.teacher.flops(tile, tile) * (side * self._cell_side / tile) ** 2)
