"""The lesson of a policy: from afar, where is a closer look worth its price? Taught by reward.

A policy says of each tile of a shrunk picture how likely it is to look there. Tiles are drawn by
what it says; a look earns by how much it corrects the scout's count there and costs a price. What
earned more than the policy's own best choice is made more likely: REINFORCE with a self-critical
baseline, as Uzkent and Ermon, *Learning When and Where to Zoom with Deep Reinforcement Learning*
(CVPR 2020), with a reward that adds up over tiles, as Uzkent, Yeh and Ermon, *Efficient Object
Detection in Large Images Using Deep Reinforcement Learning* (WACV 2020).
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

from hrviewer.errors import HrviewerError
from hrviewer.models.bundle import ModelBundle
from hrviewer.models.card import Architecture, ModelCard, ModelOutput
from hrviewer.models.network import Network
from hrviewer.training.density_task import build, halo, normalise, to_float
from hrviewer.training.distillation import DistilledScout, derive_card, run_scout
from hrviewer.training.task import Batch

__all__ = ["PolicyTask", "reinforce", "reward"]

STRIDE = 16
"""Of its card: shrunk pixels a side of the tile that is looked at or not."""
BANK_SIZE = 150
"""Batches that are drawn; again and again, since asking main is what takes time."""
SAMPLES_PER_IMAGE = 16
"""How often tiles are drawn for a picture, each step."""
EXPLORATION = 0.2
"""How far chances are drawn to the middle, so that nothing is never tried."""
MAX_REWARD = 10.0
"""What a look earns at most, in prices: one that finds a crowd must not drown all the others."""
TARGET_FRACTION = 0.1
"""Part of the tiles that one who knew everything would look at: what sets the price."""


@dataclass(frozen=True)
class PolicyTargets:
    """What is known of pictures.

    Attributes
    ----------
    model_input : Tensor
        What the policy sees, ``(n, 3, h, w)``.
    gain : Tensor
        By how much a look at each tile corrects the count there, ``(n, rows, columns)``.
    uncertainty : Tensor
        The standard deviation that the scout gives for its count there, likewise.
    """

    model_input: Tensor
    gain: Tensor
    uncertainty: Tensor


class BatchIndices(Dataset[Batch]):
    """The seed and the number of what is to be learned from, again and again."""

    def __init__(self, steps: int, seed: int, bank_size: int) -> None:
        self.steps, self.seed, self.bank_size = steps, seed, bank_size

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Batch:
        """Return ``(seed, number)``."""
        return (torch.tensor([self.seed, step % self.bank_size]),)


@dataclass(frozen=True)
class PolicyTask(DistilledScout):
    """Learn where ``main`` is worth a look, given what the scout says.

    Parameters
    ----------
    card, sources, teacher, choose, test, rate
        See `Student`.
    stream
        As a scout's. Of its batches `BANK` are drawn, and learned from many times.
    tile
        Side in native pixels of what is looked at or not.
    scout
        Whose count stands where nobody looks.
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
            raise HrviewerError(
                f"the pack {bundle.name!r} has no scout, whose counts a policy is to better: "
                "teach it first"
            )
        scout = bundle.load("scout", device)
        seen = scout.card  # which is what the policy sees, too, where it is not told another scale
        what = Architecture(name="tile-policy")
        downsample = downsample or int(seen.input.downsample)
        shape = {"multiple_of": STRIDE, "tile": 512, "fixed": False, "downsample": downsample}
        card = derive_card(
            main,
            role,
            what,
            task="saliency",
            input=seen.input.model_copy(update=shape),
            output=ModelOutput(
                stride=STRIDE, halo=halo(what), classes=("process",), activation="sigmoid"
            ),
        )
        return {"card": card, "windows": (), "tile": STRIDE * downsample, "scout": scout}

    def create_model(self) -> nn.Module:
        """Return a network that would look at a few tiles."""
        return build(self.card.architecture)

    def batches(self, steps: int, seed: int) -> Dataset[Batch]:
        """Return numbers: pictures are recalled by them."""
        return BatchIndices(steps, seed, BANK_SIZE)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Make likelier what earned more than the policy's own best choice."""
        seed, number = map(int, batch[0])
        if (seed, number) not in self._batch_targets:
            if seed not in self._streams:  # to make one may take longer than to draw from it
                self._streams[seed] = self.stream(BANK_SIZE, seed)
            (images,) = self._streams[seed][number]
            self._batch_targets[seed, number] = self._measure_targets(images)
        known, place = self._batch_targets[seed, number], batch[0].device
        logits = model(normalise(known.model_input.to(place), self.card.input)).float()[:, 0]
        return reinforce(logits, known.gain.to(place), self._patch_price())

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Return what it earns on the pictures to choose by, and how often it looks."""
        figures = self._metrics(model, self.validation)
        return {name: figures[name] for name in ("selected", "corrected", "reward")}

    def calibrate(self, model: nn.Module) -> dict[str, float]:
        """Set nothing; say the price of a look."""
        return {"price": round(self._patch_price(), 4)}

    def evaluate(self, model: nn.Module) -> dict[str, Any]:
        """Return what it earns on the pictures to test with, beside others that look as often."""
        return {
            "description": f"on tiles of {self.tile} px of {len(self.test)} pictures that were not "
            "learned from: the share that it looks at; what part of the scout's absolute errors "
            "that corrects; the same for as many looks at random, where the scout is least sure, "
            "and where its errors are largest; the reward for each tile, in prices of a look",
            **self._metrics(model, self.test),
            "relative_flops": round(self._relative_flops(model), 5),
        }

    def _measure_targets(self, images: Tensor) -> PolicyTargets:
        """Ask main and the scout about pictures ``(n, 3, h, w)``, from 0 to 1."""
        view = self._model_input(images)
        k = self.teacher.card.prediction_channels
        said, cell = run_scout(self.scout, images)
        cells = self.tile // cell
        tiles = F.avg_pool2d(said, cells) * cells**2
        guess, variance = tiles[:, :k].sum(1), tiles[:, k:].sum(1)
        there = self._teacher_density(images).cpu().sum(1)
        doubt = (variance if said.shape[1] > k else guess).clamp(min=0).sqrt()
        return PolicyTargets(view.cpu(), (there - guess).abs(), doubt)

    def _patch_price(self) -> float:
        """Return what a look costs, in corrected counts: so much that few are worth it."""
        gains = torch.cat([self._targets_of(p).gain.flatten() for p in self.validation])
        return max(float(torch.quantile(gains, 1 - TARGET_FRACTION)), 1e-6)

    def _targets_of(self, picture: Tensor) -> PolicyTargets:
        """Return what is known of a whole picture."""
        if id(picture) not in self._image_targets:
            h, w = (length // self.tile * self.tile for length in picture.shape[1:])
            self._image_targets[id(picture)] = self._measure_targets(
                to_float(picture[None, :, :h, :w])
            )
        return self._image_targets[id(picture)]

    def _metrics(self, model: nn.Module, images: Sequence[Tensor]) -> dict[str, float]:
        place, price = next(model.parameters()).device, self._patch_price()
        looked: list[NDArray[Any]] = []
        gain, doubt = (
            np.concatenate([getattr(self._targets_of(p), name).flatten().numpy() for p in images])
            for name in ("gain", "uncertainty")
        )
        for picture in images:
            view = normalise(self._targets_of(picture).model_input.to(place), self.card.input)
            with torch.inference_mode():
                looked.append((model.eval()(view).float() > 0).flatten().cpu().numpy())
        chosen = np.concatenate(looked)
        n, whole = int(chosen.sum()), float(gain.sum()) or 1.0

        def found(order: NDArray[Any]) -> float:
            return round(float(gain[np.argsort(-order, kind="stable")[:n]].sum()) / whole, 4)

        return {
            "selected": round(n / len(gain), 4),
            "corrected": round(float(gain[chosen].sum()) / whole, 4),
            "corrected_at_random": round(n / len(gain), 4),
            "corrected_by_uncertainty": found(doubt),
            "corrected_by_oracle": found(gain),
            "reward": round(float((gain[chosen] / price - 1).sum()) / len(gain), 4),
        }


def reward(selected: Tensor, gain: Tensor, price: float) -> Tensor:
    """Return what looks earn, tile by tile: what they correct, in prices, less their price.

    Parameters
    ----------
    looks
        1 where is looked and 0 where not, ``(…, rows, columns)``.
    gain
        By how much a look corrects the count there, ``(…, rows, columns)``.
    price
        Of a look, in the unit of `gain`.
    """
    return selected * ((gain / price).clamp(max=MAX_REWARD) - 1)


def reinforce(logits: Tensor, gain: Tensor, price: float) -> Tensor:
    """Return a loss whose gradient is that of the expected reward, with its sign turned.

    Parameters
    ----------
    logits
        What the policy says of each tile, ``(n, rows, columns)``.
    gain, price
        As `reward` takes them.
    """
    chance = torch.sigmoid(logits)
    drawn_by = (1 - EXPLORATION) * chance + EXPLORATION * (1 - chance)
    shape = (SAMPLES_PER_IMAGE, *logits.shape)
    looks = (torch.rand(shape, device=logits.device) < drawn_by.detach()).float()
    best = (logits > 0).float()
    # The reward is a sum over tiles, and each is drawn by itself: what others earn would only
    # add noise to what a tile is credited with.
    advantage = reward(looks, gain, price) - reward(best, gain, price)
    log_chance = torch.where(looks > 0, drawn_by, 1 - drawn_by).clamp(min=1e-6).log()
    return -(advantage.detach() * log_chance).mean()
