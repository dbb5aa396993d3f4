"""Training task of a resizer: smaller images, in which ``main`` counts the same.

The resizer is applied before ``main``, which stays fixed (Talebi and Milanfar, *Learning to Resize
Images for Computer Vision Tasks*, ICCV 2021, train both; here other strategies use main, too).
Unlabelled images suffice: the target is main's count at full resolution. It is compared with plain
resizing, as which it starts.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from hrviewer.errors import ModelError
from hrviewer.models.bundle import ModelBundle
from hrviewer.models.card import Architecture, ModelCard, ModelOutput
from hrviewer.models.count_head import CountHead
from hrviewer.models.loaders.torch import count_flops
from hrviewer.training.density_task import build, halo, normalise, to_float
from hrviewer.training.distillation import DistilledScout, derive_card
from hrviewer.training.losses import density_loss

__all__ = ["ResizerTask"]

DEFAULT_SHRINK = 2
WINDOWS = ((1, 1.0, 0.2), (4, 0.5, 1.0), (16, 0.3, 4.0))
"""Windows of `density_loss`, in cells of main's prediction on the small image.

The constants are large: main stays fixed, and cannot correct for an upward bias.
"""


@dataclass(frozen=True)
class ResizerTask(DistilledScout):
    """Training of a resizer, which makes images smaller for ``main``.

    Parameters
    ----------
    card, sources, teacher, stream, validation, test, windows, tile, steps, learning_rate
        As in `DistilledScout`. The stream's sides are multiples of 16 of main's cells, downsampled.
    frozen_main
        A copy of main with gradients.
    """

    learning_rate: float = 1e-3
    frozen_main: nn.Module = field(kw_only=True, repr=False)
    ROLE: ClassVar[str] = "resizer"

    @classmethod
    def _derive(
        cls, bundle: ModelBundle, main: ModelCard, role: str, downsample: int | None, device: str
    ) -> dict[str, Any]:
        shrink = downsample or DEFAULT_SHRINK
        if main.architecture is None or main.input.fixed:
            raise ModelError(f"no resizer can be trained for {main.name}: it is not a torch model")
        frozen_main = build(main.architecture)
        frozen_main.load_state_dict(load_file(bundle.weights("main")))
        frozen_main.eval().requires_grad_(False)
        for layer in frozen_main.modules():
            if isinstance(layer, CountHead):
                layer.train()  # keeps a small gradient where the count is 0
        architecture = Architecture(name="learned-resizer", params={"shrink": shrink})
        size = main.input.multiple_of * shrink
        shape = {"multiple_of": size, "tile": -(-main.input.tile // size) * size}
        card = derive_card(
            main,
            role,
            architecture,
            task="embedding",
            input=main.input.model_copy(update=shape),
            output=ModelOutput(stride=shrink, halo=halo(architecture), width=3),
        )
        return {"card": card, "windows": WINDOWS, "frozen_main": frozen_main}

    @property
    def _cell_side(self) -> int:
        return int(self.card.stride * self.teacher.stride)

    def _prediction_loss(self, predicted: Tensor, images: Tensor) -> Tensor:
        return density_loss(predicted.float(), self._teacher_density(images), self.windows)

    def _predict(self, model: nn.Module, images: Tensor) -> Tensor:
        """Return main's prediction ``(n, k, rows, columns)`` on downsampled images."""
        small = model(normalise(images, self.card.input)).float()
        predicted: Tensor = self.frozen_main.to(images.device)(small)
        return predicted[:, : self.teacher.card.prediction_channels]

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Return the metrics of main's counts in downsampled validation images."""
        return self._agreement_metrics(model, self.validation)

    def calibrate(self, model: nn.Module) -> dict[str, float]:
        """Return nothing: the counts are those of main, which stays fixed."""
        return {}

    def evaluate(self, model: nn.Module) -> dict[str, Any]:
        """Return the metrics of main's counts in downsampled test images, and plainly resized."""
        plain = copy.deepcopy(self.create_model()).to(next(model.parameters()).device)
        return {
            "description": f"main's counts in images downsampled by {self.card.stride}, against "
            f"those in {len(self.test)} held-out images at full resolution: error of the counts "
            f"over their mean, bias of their sum, correlation on {self.tile} px tiles; the same "
            "for plain resizing",
            **self._agreement_metrics(model, self.test),
            "plain": self._agreement_metrics(plain, self.test),
            "relative_flops": round(self._relative_flops(model), 5),
        }

    def _agreement_metrics(self, model: nn.Module, images: Sequence[Tensor]) -> dict[str, float]:
        side, device = self.tile // self._cell_side, next(model.parameters()).device
        tiles: list[NDArray[Any]] = []
        for full in images:
            h, w = (length // self.tile * self.tile for length in full.shape[1:])
            image = to_float(full[None, :, :h, :w])
            with torch.inference_mode():
                predicted = self._predict(model.eval(), image.to(device))[0].float().cpu()
            maps = torch.stack(
                [part.sum(0) for part in (predicted, self._cached_teacher_density(full, image))]
            )
            sums = F.avg_pool2d(maps, side) * side * side
            tiles.append(sums.flatten(1).T.double().numpy())
        all_tiles, totals = np.concatenate(tiles), np.array([t.sum(0) for t in tiles])
        mean_count = totals[:, 1].mean()
        metrics = {
            "count_error": np.abs(totals[:, 0] - totals[:, 1]).mean() / mean_count,
            "bias": (totals[:, 0].mean() - mean_count) / mean_count,
            "correlation": np.corrcoef(*all_tiles.T)[0, 1] if all_tiles.std(axis=0).all() else 0.0,
        }
        return {name: round(float(value), 4) for name, value in metrics.items()}

    def _relative_flops(self, model: nn.Module) -> float:
        """Return the FLOPs of resizing and of main after that, over those of main."""
        side = self.card.input.tile
        meta_model = copy.deepcopy(model).to("meta")
        flops = count_flops(meta_model, "forward", (1, self.card.input.channel_count, side, side))
        small = side // self.card.stride
        return (flops + self.teacher.flops(small, small)) / self.teacher.flops(side, side)
