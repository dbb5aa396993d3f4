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

from hrviewer.errors import UserError
from hrviewer.models.card import Architecture, Card, Output
from hrviewer.models.count_head import Counts
from hrviewer.models.loaders.torch import count_flops
from hrviewer.models.pack import Pack
from hrviewer.training.density_task import build, floats, halo, normalised
from hrviewer.training.distillation import Student, derived
from hrviewer.training.losses import density_loss

__all__ = ["Resizer"]

SHRINK = 2
WINDOWS = ((1, 1.0, 0.2), (4, 0.5, 1.0), (16, 0.3, 4.0))
"""As `density_loss` takes them, in cells of what main says of the small picture.

Much is added to a count: main stays as it is, and cannot make up for being pulled upwards.
"""


@dataclass(frozen=True)
class Resizer(Student):
    """Learn to make pictures smaller for ``main``.

    Parameters
    ----------
    card, sources, teacher, stream, choose, test, windows, tile, steps, rate
        See `Student`. The stream's sides are multiples of 16 of main's cells, shrunk.
    reader
        Main again, as something that gradients go through.
    """

    rate: float = 1e-3
    reader: nn.Module = field(kw_only=True, repr=False)
    ROLE: ClassVar[str] = "resizer"

    @classmethod
    def _follows(
        cls, networks: Pack, main: Card, role: str, down: int | None, device: str
    ) -> dict[str, Any]:
        shrink = down or SHRINK
        if main.architecture is None or main.input.fixed:
            raise UserError(f"no resizer can be taught before {main.name}: it is not in torch")
        reader = build(main.architecture)
        reader.load_state_dict(load_file(networks.weights("main")))
        reader.eval().requires_grad_(False)
        for layer in reader.modules():
            if isinstance(layer, Counts):
                layer.train()  # which keeps a trace of slope where nothing is counted
        what = Architecture(name="learned-resizer", params={"shrink": shrink})
        size = main.input.multiple_of * shrink
        how = {"multiple_of": size, "tile": -(-main.input.tile // size) * size}
        card = derived(
            main,
            role,
            what,
            task="embedding",
            input=main.input.model_copy(update=how),
            output=Output(stride=shrink, halo=halo(what), width=3),
        )
        return {"card": card, "windows": WINDOWS, "reader": reader}

    @property
    def _cell(self) -> int:
        return int(self.card.stride * self.teacher.stride)

    def _missed(self, said: Tensor, images: Tensor) -> Tensor:
        return density_loss(said.float(), self._main(images), self.windows)

    def _say(self, network: nn.Module, images: Tensor) -> Tensor:
        """Return what main says ``(n, k, rows, columns)`` of images, made smaller."""
        small = network(normalised(images, self.card.input)).float()
        said: Tensor = self.reader.to(images.device)(small)
        return said[:, : self.teacher.card.answers]

    def judge(self, network: nn.Module) -> dict[str, float]:
        """Return how well main counts in small pictures to choose by."""
        return self._agreement(network, self.choose)

    def calibrate(self, network: nn.Module) -> dict[str, float]:
        """Set nothing: what counts is main, which stays as it is."""
        return {}

    def examine(self, network: nn.Module) -> dict[str, Any]:
        """Return how well main counts in small pictures to test with, also plainly resized."""
        plain = copy.deepcopy(self.begin()).to(next(network.parameters()).device)
        return {
            "what": f"what main counts in pictures made smaller by {self.card.stride}, against "
            f"what it counts in {len(self.test)} whole ones that were not learned from: error of "
            f"the counts over their mean, bias of their sum, correlation on tiles of {self.tile} "
            "px; the same of pictures resized plainly",
            **self._agreement(network, self.test),
            "plain": self._agreement(plain, self.test),
            "flops_over_mains": round(self._cost(network), 5),
        }

    def _agreement(self, network: nn.Module, pictures: Sequence[Tensor]) -> dict[str, float]:
        side, place = self.tile // self._cell, next(network.parameters()).device
        tiles: list[NDArray[Any]] = []
        for picture in pictures:
            h, w = (length // self.tile * self.tile for length in picture.shape[1:])
            image = floats(picture[None, :, :h, :w])
            with torch.inference_mode():
                said = self._say(network.eval(), image.to(place))[0].float().cpu()
            maps = torch.stack([x.sum(0) for x in (said, self._mains(picture, image))])
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

    def _cost(self, network: nn.Module) -> float:
        """Return the FLOPs of making smaller and of main after that, over those of main."""
        side = self.card.input.tile
        hollow = copy.deepcopy(network).to("meta")
        flops = count_flops(hollow, "forward", (1, self.card.input.count, side, side))
        small = side // self.card.stride
        return (flops + self.teacher.flops(small, small)) / self.teacher.flops(side, side)
