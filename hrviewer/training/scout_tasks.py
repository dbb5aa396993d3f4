"""Another lesson of the scout: what it doubts is also to be what a look would correct.

A distilled scout says how wrong it may be; which tiles a strategy then looks at follows from
that, but is not what it was taught. Here it is: of a batch's tiles the ones with most doubt are
chosen through a perturbed top-k, and the error that is left in the others is to become small
(Cordonnier et al., *Differentiable Patch Selection for Image Recognition*, CVPR 2021).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from hrviewer.models.card import Card
from hrviewer.models.pack import Pack
from hrviewer.models.perturbed_topk import PerturbedTopK
from hrviewer.training.density_task import build
from hrviewer.training.distillation import PICKED, Student
from hrviewer.training.task import Batch

__all__ = ["Picker"]

SIDE = 128
"""Side of the tiles between which is chosen, native pixels."""
SAMPLES, SIGMA = 200, 0.3
"""Of the perturbed top-k; scores are logarithms of standard deviations."""
WEIGHT = 0.5
"""Of the error that is left, beside what a distilled scout learns."""


@dataclass(frozen=True)
class Picker(Student):
    """Learn to guess what ``main`` would count, and to doubt where a look would correct most.

    Parameters
    ----------
    card, sources, teacher, stream, choose, test, windows, tile, steps, rate
        See `Student`.
    distilled
        The pack's scout as it was, to compare with.
    """

    distilled: nn.Module | None = field(default=None, repr=False)

    @classmethod
    def _follows(
        cls, networks: Pack, main: Card, role: str, down: int | None, device: str
    ) -> dict[str, Any]:
        own = super()._follows(networks, main, role, down, device)
        if role in networks.roles:
            before = build(own["card"].architecture)
            before.load_state_dict(load_file(networks.weights(role)))
            own["distilled"] = before.eval()
        return own

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """Add to what a distilled scout learns the error that is left beyond its choice."""
        (images,) = batch
        said = self._say(network, images).float()
        mean, variance = (tiles_of(x, SIDE // self._cell) for x in said.chunk(2, 1))
        error = (tiles_of(self._main(images), SIDE // self._cell) - mean).abs()
        return self._missed(said, images) + WEIGHT * left_over(error.detach(), variance)

    def examine(self, network: nn.Module) -> dict[str, Any]:
        """Return a scout's figures, and how the distilled one does."""
        figures = super().examine(network)
        if self.distilled is not None:
            before = super().examine(self.distilled)
            figures["distilled"] = {name: before[name] for name in before.keys() - {"what"}}
        return figures


def left_over(error: Tensor, variance: Tensor) -> Tensor:
    """Return what part of the errors of tiles ``(m,)`` is left beyond the tenth with most doubt."""
    chooser = PerturbedTopK(max(1, round(PICKED * len(error))), SAMPLES, SIGMA)
    chosen = chooser(0.5 * variance.log()[None]).sum(1)[0]
    left: Tensor = (error * (1 - chosen)).sum() / error.sum().clamp(min=1e-6)
    return left


def tiles_of(maps: Tensor, side: int) -> Tensor:
    """Return the sums of maps ``(n, k, h, w)`` over tiles of `side` cells and over k, ``(m,)``."""
    return F.avg_pool2d(maps.sum(1, keepdim=True), side).flatten() * side * side
