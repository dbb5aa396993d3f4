"""Training tasks of roles for segmentation and classification: a scanner and a scout.

A scanner predicts the same classes as ``main`` at a tenth of the FLOPs or less. A scout predicts
how far each place deviates from the mean of the training images: draws proportional to that have
the least variance (Hansen and Hurwitz, *On the Theory of Sampling from Finite Populations*, 1943).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from hrviewer.models.bundle import ModelBundle
from hrviewer.models.card import Architecture, ModelCard, ModelOutput
from hrviewer.training.density_task import halo, to_float
from hrviewer.training.distillation import DISTILLATION_SPECS, DistilledScout, derive_card

__all__ = ["ShareScanner", "ShareScout"]

FLOOR = 0.1
"""Least importance, over the mean, of the draws by which a scout is evaluated."""


@dataclass(frozen=True)
class ShareScanner(DistilledScout):
    """Training of a scanner that predicts the classes of ``main`` from every pixel.

    Parameters
    ----------
    card, sources, teacher, stream, validation, test, windows, tile, steps, learning_rate
        As in `DistilledScout`. Where the teacher's prediction is NaN there is no loss.
    """

    ROLE: ClassVar[str] = "scanner"

    @classmethod
    def _derive(
        cls, bundle: ModelBundle, main: ModelCard, role: str, downsample: int | None, device: str
    ) -> dict[str, Any]:
        spec = DISTILLATION_SPECS["scanner"]
        architecture = Architecture(
            name=spec.architecture, params={"classes": len(main.classes), "logits": True}
        )
        card = derive_card(
            main,
            role,
            architecture,
            input=main.input.model_copy(
                update={"multiple_of": spec.multiple_of, "tile": spec.tile, "fixed": False}
            ),
            output=ModelOutput(
                stride=spec.stride,
                halo=halo(architecture),
                margin=halo(architecture),
                classes=main.classes,
                activation="softmax" if main.exclusive else "sigmoid",
            ),
        )
        return {"card": card, "windows": ()}

    def _prediction_loss(self, predicted: Tensor, images: Tensor) -> Tensor:
        """Return the cross-entropy where the teacher's prediction is known."""
        target = self._teacher_density(images)
        known = ~target.isnan().any(1)
        logits = predicted.float().movedim(1, -1)[known]
        target = target.movedim(1, -1)[known].clamp(0, 1)
        if self.card.output.activation == "softmax":
            return F.cross_entropy(logits, target / target.sum(1, keepdim=True).clamp(min=1e-6))
        return F.binary_cross_entropy_with_logits(logits, target)

    def _teacher_density(self, images: Tensor) -> Tensor:
        """Return the teacher's mean prediction in each of the network's cells; NaN is unknown."""
        return super()._teacher_density(images) / (self._cell_side // self.teacher.stride) ** 2

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Return the metrics on the validation images."""
        return self._share_metrics(model, self.validation)

    def calibrate(self, model: nn.Module) -> dict[str, float]:
        """Nothing: a run corrects the shares by measured places."""
        return {}

    def evaluate(self, model: nn.Module) -> dict[str, Any]:
        """Return the metrics on the test images, and the relative cost."""
        return {
            "description": f"against main, on {self.tile} px tiles of {len(self.test)} held-out "
            "images: mean error of the shares of classes, correlation of the tiles' shares",
            **self._share_metrics(model, self.test),
            "relative_flops": round(self._relative_flops(model), 5),
        }

    def _share_metrics(self, model: nn.Module, images: Sequence[Tensor]) -> dict[str, float]:
        own, expected = (
            np.concatenate(parts)
            for parts in zip(*(self._tile_shares(model, image) for image in images), strict=True)
        )
        # Differences between places, class by class: their levels are no merit.
        a, b = (shares - shares.mean(axis=0) for shares in (own, expected))
        scale = np.sqrt((a**2).sum() * (b**2).sum())
        return {
            "share_error": round(float(np.abs(own - expected).mean()), 4),
            "correlation": round(float((a * b).sum() / max(scale, 1e-12)), 4),
        }

    def _tile_shares(
        self, model: nn.Module, full: Tensor
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the shares of each known tile, ``(n, k)``: predicted, and the teacher's."""
        image = to_float(full[None])
        with torch.inference_mode():
            device = next(model.parameters()).device
            predicted = self._predict(model.eval(), image.to(device)).float().cpu()
        exclusive = self.card.output.activation == "softmax"
        shares = predicted.softmax(1) if exclusive else predicted.sigmoid()
        side = self.tile // self._cell_side
        both = [F.avg_pool2d(x, side) for x in (shares, self._teacher_density(image))]
        own, expected = (x[0].flatten(1).T.double().numpy() for x in both)
        known = ~np.isnan(expected).any(axis=1)
        return own[known], expected[known]


@dataclass(frozen=True)
class ShareScout(ShareScanner):
    """Training of a scout that predicts where the shares of ``main`` deviate from their mean.

    Parameters
    ----------
    card, sources, teacher, stream, validation, test, windows, tile, steps, learning_rate
        As in `DistilledScout`.
    mean
        Mean shares of the training images, ``(k,)``.
    """

    mean: Tensor = field(default_factory=lambda: torch.zeros(1), kw_only=True)
    ROLE: ClassVar[str] = "scout"

    @classmethod
    def _derive(
        cls, bundle: ModelBundle, main: ModelCard, role: str, downsample: int | None, device: str
    ) -> dict[str, Any]:
        spec = DISTILLATION_SPECS["scout"]
        architecture = Architecture(
            name=spec.architecture, params={**spec.params, "classes": 1, "variance": False}
        )
        card = derive_card(
            main,
            role,
            architecture,
            task="saliency",
            input=main.input.model_copy(
                update={
                    "multiple_of": spec.multiple_of,
                    "tile": spec.tile,
                    "fixed": False,
                    "downsample": float(downsample or spec.downsample),
                }
            ),
            output=ModelOutput(stride=spec.stride, halo=halo(architecture)),
        )
        return {"card": card, "windows": ()}

    def _prediction_loss(self, predicted: Tensor, images: Tensor) -> Tensor:
        """Return the squared error of the deviation where it is known."""
        target = self._deviation(self._teacher_density(images))
        known = ~target.isnan()
        return F.mse_loss(predicted.float()[:, 0][known], target[known])

    def _deviation(self, shares: Tensor) -> Tensor:
        """Return the distance of shares ``(n, k, h, w)`` from their mean, ``(n, h, w)``."""
        return (shares - self.mean.to(shares).view(1, -1, 1, 1)).pow(2).sum(1).sqrt()

    def evaluate(self, model: nn.Module) -> dict[str, Any]:
        """Return the metrics on the test images, and the relative cost."""
        metrics = super().evaluate(model)
        metrics["description"] = (
            f"against main, on {self.tile} px tiles of {len(self.test)} held-out images: "
            "correlation with the distance of the tiles' shares from their mean; variance of draws "
            "proportional to the prediction over that of uniform ones"
        )
        return metrics

    def _share_metrics(self, model: nn.Module, images: Sequence[Tensor]) -> dict[str, float]:
        score, distance = (
            np.concatenate(parts)
            for parts in zip(*(self._scores(model, image) for image in images), strict=True)
        )
        p = np.maximum(score, FLOOR * max(float(score.mean()), 1e-9))
        p /= p.sum()
        squares = distance**2
        uniform = max(float(len(p) * squares.sum()), 1e-12)
        return {
            "correlation": round(_correlation(score, distance), 4),
            "relative_variance": round(float((squares / p).sum()) / uniform, 4),
        }

    def _scores(
        self, model: nn.Module, full: Tensor
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the score of each known tile, and the distance of its shares, ``(n,)``."""
        image = to_float(full[None])
        with torch.inference_mode():
            device = next(model.parameters()).device
            score = self._predict(model.eval(), image.to(device)).float().cpu()[0, 0]
        side = self.tile // self._cell_side
        shares = F.avg_pool2d(self._teacher_density(image), side)
        distance = self._deviation(shares)[0].flatten().double().numpy()
        own = F.avg_pool2d(score[None], side).flatten().double().numpy()
        known = ~np.isnan(distance)
        return own[known], distance[known]


def _correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    if min(a.std(), b.std()) == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])
