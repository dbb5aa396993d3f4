"""The lesson of a resizer: a smaller picture, in which ``main`` still counts what it counted.

The resizer stands before ``main``, which stays as it is (Talebi and Milanfar, *Learning to Resize
Images for Computer Vision Tasks*, ICCV 2021, teach both; here other strategies use main, too).
Pictures without truth will do: what main counts in the small picture is to be what it counts in
the whole one. It is judged beside the plain resize that it begins as.
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

from hrviewer.errors import HrviewerError
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
"""As `density_loss` takes them, in cells of what main says of the small picture.

Much is added to a count: main stays as it is, and cannot make up for being pulled upwards.
"""


@dataclass(frozen=True)
class ResizerTask(DistilledScout):
    """Learn to make pictures smaller for ``main``.

    Parameters
    ----------
    card, sources, teacher, stream, choose, test, windows, tile, steps, rate
        See `Student`. The stream's sides are multiples of 16 of main's cells, shrunk.
    reader
        Main again, as something that gradients go through.
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
            raise HrviewerError(f"no resizer can be taught before {main.name}: it is not in torch")
        reader = build(main.architecture)
        reader.load_state_dict(load_file(bundle.weights("main")))
        reader.eval().requires_grad_(False)
        for layer in reader.modules():
            if isinstance(layer, CountHead):
                layer.train()  # which keeps a trace of slope where nothing is counted
        what = Architecture(name="learned-resizer", params={"shrink": shrink})
        size = main.input.multiple_of * shrink
        how = {"multiple_of": size, "tile": -(-main.input.tile // size) * size}
        card = derive_card(
            main,
            role,
            what,
            task="embedding",
            input=main.input.model_copy(update=how),
            output=ModelOutput(stride=shrink, halo=halo(what), width=3),
        )
        return {"card": card, "windows": WINDOWS, "frozen_main": reader}

    @property
    def _cell_side(self) -> int:
        return int(self.card.stride * self.teacher.stride)

    def _prediction_loss(self, said: Tensor, images: Tensor) -> Tensor:
        return density_loss(said.float(), self._teacher_density(images), self.windows)

    def _predict(self, model: nn.Module, images: Tensor) -> Tensor:
        """Return what main says ``(n, k, rows, columns)`` of images, made smaller."""
        small = model(normalise(images, self.card.input)).float()
        said: Tensor = self.frozen_main.to(images.device)(small)
        return said[:, : self.teacher.card.prediction_channels]

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Return how well main counts in small pictures to choose by."""
        return self._agreement_metrics(model, self.validation)

    def calibrate(self, model: nn.Module) -> dict[str, float]:
        """Set nothing: what counts is main, which stays as it is."""
        return {}

    def evaluate(self, model: nn.Module) -> dict[str, Any]:
        """Return how well main counts in small pictures to test with, also plainly resized."""
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
        side, place = self.tile // self._cell_side, next(model.parameters()).device
        tiles: list[NDArray[Any]] = []
        for picture in images:
            h, w = (length // self.tile * self.tile for length in picture.shape[1:])
            image = to_float(picture[None, :, :h, :w])
            with torch.inference_mode():
                said = self._predict(model.eval(), image.to(place))[0].float().cpu()
            maps = torch.stack(
                [x.sum(0) for x in (said, self._cached_teacher_density(picture, image))]
            )
            sums = F.avg_pool2d(maps, side) * side * side
            tiles.append(sums.flatten(1).T.double().numpy())
        every, whole = np.concatenate(tiles), np.array([t.sum(0) for t in tiles])
        there = whole[:, 1].mean()
        figures = {
            "count_error": np.abs(whole[:, 0] - whole[:, 1]).mean() / there,
            "bias": (whole[:, 0].mean() - there) / there,
            "correlation": np.corrcoef(*every.T)[0, 1] if every.std(axis=0).all() else 0.0,
        }
        return {name: round(float(value), 4) for name, value in figures.items()}

    def _relative_flops(self, model: nn.Module) -> float:
        """Return the FLOPs of making smaller and of main after that, over those of main."""
        side = self.card.input.tile
        hollow = copy.deepcopy(model).to("meta")
        flops = count_flops(hollow, "forward", (1, self.card.input.channel_count, side, side))
        small = side // self.card.stride
        return (flops + self.teacher.flops(small, small)) / self.teacher.flops(side, side)
