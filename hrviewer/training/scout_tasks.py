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

from hrviewer.models.bundle import ModelBundle
from hrviewer.models.card import ModelCard
from hrviewer.models.perturbed_topk import PerturbedTopK
from hrviewer.training.density_task import build
from hrviewer.training.distillation import SELECTED_FRACTION, DistilledScout
from hrviewer.training.task import Batch

__all__ = ["TopKScout"]

TILE_SIDE = 128
"""Side of the tiles between which is chosen, native pixels."""
SAMPLES, SIGMA = 200, 0.3
"""Of the perturbed top-k; scores are logarithms of standard deviations."""
ERROR_WEIGHT = 0.5
"""Of the error that is left, beside what a distilled scout learns."""


@dataclass(frozen=True)
class TopKScout(DistilledScout):
    """Learn to guess what ``main`` would count, and to doubt where a look would correct most.

    Parameters
    ----------
    card, sources, teacher, stream, choose, test, windows, tile, steps, rate
        See `Student`.
    distilled
        The pack's scout as it was, to compare with.
    """

    baseline: nn.Module | None = field(default=None, repr=False)

    @classmethod
    def _derive(
        cls, bundle: ModelBundle, main: ModelCard, role: str, downsample: int | None, device: str
    ) -> dict[str, Any]:
        own = super()._derive(bundle, main, role, downsample, device)
        if role in bundle.roles:
            before = build(own["card"].architecture)
            before.load_state_dict(load_file(bundle.weights(role)))
            own["baseline"] = before.eval()
        return own

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Add to what a distilled scout learns the error that is left beyond its choice."""
        (images,) = batch
        said = self._predict(model, images).float()
        mean, variance = (tile_sums(x, TILE_SIDE // self._cell_side) for x in said.chunk(2, 1))
        error = (
            tile_sums(self._teacher_density(images), TILE_SIDE // self._cell_side) - mean
        ).abs()
        return self._prediction_loss(said, images) + ERROR_WEIGHT * remaining_error(
            error.detach(), variance
        )

    def evaluate(self, model: nn.Module) -> dict[str, Any]:
        """Return a scout's figures, and how the distilled one does."""
        figures = super().evaluate(model)
        if self.baseline is not None:
            before = super().evaluate(self.baseline)
            figures["baseline"] = {name: before[name] for name in before.keys() - {"description"}}
        return figures


def remaining_error(error: Tensor, variance: Tensor) -> Tensor:
    """Return what part of the errors of tiles ``(m,)`` is left beyond the tenth with most doubt."""
    chooser = PerturbedTopK(max(1, round(SELECTED_FRACTION * len(error))), SAMPLES, SIGMA)
    chosen = chooser(0.5 * variance.log()[None]).sum(1)[0]
    left: Tensor = (error * (1 - chosen)).sum() / error.sum().clamp(min=1e-6)
    return left


def tile_sums(maps: Tensor, side: int) -> Tensor:
    """Return the sums of maps ``(n, k, h, w)`` over tiles of `side` cells and over k, ``(m,)``."""
    return F.avg_pool2d(maps.sum(1, keepdim=True), side).flatten() * side * side
