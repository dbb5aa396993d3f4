"""Training of a scout whose uncertainty selects the tiles with the largest errors.

A distilled scout predicts its uncertainty; the tiles that a strategy selects follow from that, but
the scout is not trained for it. Here it is: of a batch's tiles the most uncertain ones are selected
through a perturbed top-k, and the error of the remaining tiles is minimised (Cordonnier et al.,
*Differentiable Patch Selection for Image Recognition*, CVPR 2021).
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
"""Native pixels; side of the tiles that are selected."""
SAMPLES, SIGMA = 200, 0.3
"""Parameters of the perturbed top-k; scores are logarithms of standard deviations."""
ERROR_WEIGHT = 0.5
"""Weight of the remaining error, next to the distillation loss."""


@dataclass(frozen=True)
class TopKScout(DistilledScout):
    """Distillation of ``main``, with an uncertainty that selects the tiles to correct.

    Parameters
    ----------
    card, sources, teacher, stream, validation, test, windows, tile, steps, learning_rate
        As in `DistilledScout`.
    baseline
        The bundle's present scout, for comparison.
    """

    baseline: nn.Module | None = field(default=None, repr=False)

    @classmethod
    def _derive(
        cls, bundle: ModelBundle, main: ModelCard, role: str, downsample: int | None, device: str
    ) -> dict[str, Any]:
        derived = super()._derive(bundle, main, role, downsample, device)
        if role in bundle.roles:
            baseline = build(derived["card"].architecture)
            baseline.load_state_dict(load_file(bundle.weights(role)))
            derived["baseline"] = baseline.eval()
        return derived

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Add the error of the unselected tiles to the distillation loss."""
        (images,) = batch
        predicted = self._predict(model, images).float()
        mean, variance = (
            tile_sums(part, TILE_SIDE // self._cell_side) for part in predicted.chunk(2, 1)
        )
        error = (
            tile_sums(self._teacher_density(images), TILE_SIDE // self._cell_side) - mean
        ).abs()
        return self._prediction_loss(predicted, images) + ERROR_WEIGHT * remaining_error(
            error.detach(), variance
        )

    def evaluate(self, model: nn.Module) -> dict[str, Any]:
        """Return a scout's metrics, and those of the baseline."""
        metrics = super().evaluate(model)
        if self.baseline is not None:
            baseline = super().evaluate(self.baseline)
            metrics["baseline"] = {
                name: baseline[name] for name in baseline.keys() - {"description"}
            }
        return metrics


def remaining_error(error: Tensor, variance: Tensor) -> Tensor:
    """Return the fraction of the errors of tiles ``(m,)`` outside the most uncertain tenth."""
    top_k = PerturbedTopK(max(1, round(SELECTED_FRACTION * len(error))), SAMPLES, SIGMA)
    selected = top_k(0.5 * variance.log()[None]).sum(1)[0]
    remaining: Tensor = (error * (1 - selected)).sum() / error.sum().clamp(min=1e-6)
    return remaining


def tile_sums(maps: Tensor, side: int) -> Tensor:
    """Return the sums of maps ``(n, k, h, w)`` over tiles of `side` cells and over k, ``(m,)``."""
    return F.avg_pool2d(maps.sum(1, keepdim=True), side).flatten() * side * side
