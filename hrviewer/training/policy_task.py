"""Training task of a policy, which selects the tiles that are worth full resolution.

A policy predicts for each tile the probability of processing it. Tiles are sampled from these
probabilities; a processed tile is rewarded for the correction of the scout's count there, minus a
price. Tiles that earn more than the policy's own best selection become more probable: REINFORCE
with a self-critical baseline, as Uzkent and Ermon, *Learning When and Where to Zoom with Deep
Reinforcement Learning* (CVPR 2020), with a reward that adds up over tiles, as Uzkent, Yeh and
Ermon, *Efficient Object Detection in Large Images Using Deep Reinforcement Learning* (WACV 2020).
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
from torch.utils.data import Dataset

from hrviewer.errors import ModelError
from hrviewer.models.bundle import ModelBundle
from hrviewer.models.card import Architecture, ModelCard, ModelOutput
from hrviewer.models.network import Network
from hrviewer.training.density_task import build, halo, normalise, to_float
from hrviewer.training.distillation import DistilledScout, derive_card, run_scout
from hrviewer.training.task import Batch

__all__ = ["PolicyTask", "reinforce", "reward"]

STRIDE = 16
"""Pixels of the downsampled image per side of a tile."""
BANK_SIZE = 150
"""Batches that are drawn and used repeatedly, since inference with main takes most of the time."""
SAMPLES_PER_IMAGE = 16
"""Samples of tiles per image and step."""
EXPLORATION = 0.2
"""Shrinkage of probabilities towards 0.5, so that every tile is tried."""
MAX_REWARD = 10.0
"""Maximum reward of a tile, in prices: a crowd must not outweigh all other tiles."""
TARGET_FRACTION = 0.1
"""Fraction of the tiles that an oracle would process: it sets the price."""


@dataclass(frozen=True)
class PolicyTargets:
    """Input and rewards of a policy on some images.

    Attributes
    ----------
    model_input : Tensor
        Input of the policy, ``(n, 3, h, w)``.
    gain : Tensor
        Correction of the count by processing each tile, ``(n, rows, columns)``.
    uncertainty : Tensor
        Standard deviation of the scout's count there, likewise.
    """

    model_input: Tensor
    gain: Tensor
    uncertainty: Tensor


class BatchIndices(Dataset[Batch]):
    """Data set of the seed and the number of a batch, repeated."""

    def __init__(self, steps: int, seed: int, bank_size: int) -> None:
        self.steps, self.seed, self.bank_size = steps, seed, bank_size

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Batch:
        """Return ``(seed, number)``."""
        return (torch.tensor([self.seed, step % self.bank_size]),)


@dataclass(frozen=True)
class PolicyTask(DistilledScout):
    """Training of a policy for ``main``, given the scout's prediction.

    Parameters
    ----------
    card, sources, teacher, validation, test, learning_rate
        As in `DistilledScout`.
    stream
        As for a scout. `BANK_SIZE` of its batches are drawn, and used repeatedly.
    tile
        Side of a tile in native pixels.
    scout
        Its count is used in tiles that are not processed.
    """

    steps: int = 600
    scout: Network = field(kw_only=True)
    ROLE: ClassVar[str] = "policy"
    _streams: dict[int, Dataset[Batch]] = field(default_factory=dict, init=False, repr=False)
    _batch_targets: dict[tuple[int, int], PolicyTargets] = field(
        default_factory=dict, init=False, repr=False
    )
    _image_targets: dict[int, PolicyTargets] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def _derive(
        cls, bundle: ModelBundle, main: ModelCard, role: str, downsample: int | None, device: str
    ) -> dict[str, Any]:
        if "scout" not in bundle.roles:
            raise ModelError(
                f"the model bundle {bundle.name!r} has no scout, which a policy needs: train the "
                "scout first"
            )
        scout = bundle.load("scout", device)
        scout_card = scout.card  # the policy gets the same input, unless another scale is given
        architecture = Architecture(name="tile-policy")
        downsample = downsample or int(scout_card.input.downsample)
        shape = {"multiple_of": STRIDE, "tile": 512, "fixed": False, "downsample": downsample}
        card = derive_card(
            main,
            role,
            architecture,
            task="saliency",
            input=scout_card.input.model_copy(update=shape),
            output=ModelOutput(
                stride=STRIDE, halo=halo(architecture), classes=("process",), activation="sigmoid"
            ),
        )
        return {"card": card, "windows": (), "tile": STRIDE * downsample, "scout": scout}

    def create_model(self) -> nn.Module:
        """Return a network with random weights; it would process a few tiles."""
        return build(self.card.architecture)

    def batches(self, steps: int, seed: int) -> Dataset[Batch]:
        """Return indices of batches, whose images are cached."""
        return BatchIndices(steps, seed, BANK_SIZE)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Raise the probability of tiles that earn more than the policy's own best selection."""
        seed, number = map(int, batch[0])
        if (seed, number) not in self._batch_targets:
            if seed not in self._streams:  # a stream may be slow to make
                self._streams[seed] = self.stream(BANK_SIZE, seed)
            (images,) = self._streams[seed][number]
            self._batch_targets[seed, number] = self._measure_targets(images)
        targets, device = self._batch_targets[seed, number], batch[0].device
        logits = model(normalise(targets.model_input.to(device), self.card.input)).float()[:, 0]
        return reinforce(logits, targets.gain.to(device), self._patch_price())

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Return the reward on the validation images, and the fraction of processed tiles."""
        metrics = self._metrics(model, self.validation)
        return {name: metrics[name] for name in ("selected", "corrected", "reward")}

    def calibrate(self, model: nn.Module) -> dict[str, float]:
        """Return the price of a tile; nothing is scaled."""
        return {"price": round(self._patch_price(), 4)}

    def evaluate(self, model: nn.Module) -> dict[str, Any]:
        """Return the metrics on the test images, and those of other selections of as many tiles."""
        return {
            "description": f"on {self.tile} px tiles of {len(self.test)} held-out images: the "
            "fraction of processed tiles; the fraction of the scout's absolute errors that they "
            "correct; the same for as many tiles selected at random, by the scout's uncertainty, "
            "and by its true errors; the reward per tile, in prices of a tile",
            **self._metrics(model, self.test),
            "relative_flops": round(self._relative_flops(model), 5),
        }

    def _measure_targets(self, images: Tensor) -> PolicyTargets:
        """Run main and the scout on images ``(n, 3, h, w)``, from 0 to 1."""
        model_input = self._model_input(images)
        k = self.teacher.card.prediction_channels
        predicted, cell = run_scout(self.scout, images)
        cells = self.tile // cell
        tiles = F.avg_pool2d(predicted, cells) * cells**2
        scout_count, variance = tiles[:, :k].sum(1), tiles[:, k:].sum(1)
        main_count = self._teacher_density(images).cpu().sum(1)
        uncertainty = (variance if predicted.shape[1] > k else scout_count).clamp(min=0).sqrt()
        return PolicyTargets(model_input.cpu(), (main_count - scout_count).abs(), uncertainty)

    def _patch_price(self) -> float:
        """Return the price of processing a tile, in corrected counts: few tiles are worth it."""
        gains = torch.cat([self._targets_of(image).gain.flatten() for image in self.validation])
        return max(float(torch.quantile(gains, 1 - TARGET_FRACTION)), 1e-6)

    def _targets_of(self, image: Tensor) -> PolicyTargets:
        """Return the targets of a whole image."""
        if id(image) not in self._image_targets:
            h, w = (length // self.tile * self.tile for length in image.shape[1:])
            self._image_targets[id(image)] = self._measure_targets(to_float(image[None, :, :h, :w]))
        return self._image_targets[id(image)]

    def _metrics(self, model: nn.Module, images: Sequence[Tensor]) -> dict[str, float]:
        device, price = next(model.parameters()).device, self._patch_price()
        selections: list[NDArray[Any]] = []
        gain, uncertainty = (
            np.concatenate([getattr(self._targets_of(p), name).flatten().numpy() for p in images])
            for name in ("gain", "uncertainty")
        )
        for image in images:
            model_input = normalise(self._targets_of(image).model_input.to(device), self.card.input)
            with torch.inference_mode():
                selections.append((model.eval()(model_input).float() > 0).flatten().cpu().numpy())
        selected = np.concatenate(selections)
        n, total = int(selected.sum()), float(gain.sum()) or 1.0

        def corrected_by(order: NDArray[Any]) -> float:
            return round(float(gain[np.argsort(-order, kind="stable")[:n]].sum()) / total, 4)

        return {
            "selected": round(n / len(gain), 4),
            "corrected": round(float(gain[selected].sum()) / total, 4),
            "corrected_at_random": round(n / len(gain), 4),
            "corrected_by_uncertainty": corrected_by(uncertainty),
            "corrected_by_oracle": corrected_by(gain),
            "reward": round(float((gain[selected] / price - 1).sum()) / len(gain), 4),
        }


def reward(selected: Tensor, gain: Tensor, price: float) -> Tensor:
    """Return the reward of each tile: the correction in prices, minus the price.

    Parameters
    ----------
    selected
        1 for processed tiles and 0 for others, ``(…, rows, columns)``.
    gain
        Correction of the count by processing a tile, ``(…, rows, columns)``.
    price
        Price of a tile, in the unit of `gain`.
    """
    return selected * ((gain / price).clamp(max=MAX_REWARD) - 1)


def reinforce(logits: Tensor, gain: Tensor, price: float) -> Tensor:
    """Return a loss whose gradient is that of the negative expected reward.

    Parameters
    ----------
    logits
        The policy's prediction for each tile, ``(n, rows, columns)``.
    gain, price
        As in `reward`.
    """
    probability = torch.sigmoid(logits)
    sampled_with = (1 - EXPLORATION) * probability + EXPLORATION * (1 - probability)
    shape = (SAMPLES_PER_IMAGE, *logits.shape)
    sample = (torch.rand(shape, device=logits.device) < sampled_with.detach()).float()
    greedy = (logits > 0).float()
    # The reward is a sum over tiles, each sampled independently: the reward of other tiles would
    # only add noise to a tile's credit.
    advantage = reward(sample, gain, price) - reward(greedy, gain, price)
    log_probability = torch.where(sample > 0, sampled_with, 1 - sampled_with).clamp(min=1e-6).log()
    return -(advantage.detach() * log_probability).mean()
