"""Training task of a transformer whose tokens are squares of the image, of several sizes.

Like all distilled networks it predicts the counts of ``main``. Its training images are cut into
squares at random: by chance alone, or as a quadtree that follows the content, so that it gets the
mixtures that a strategy sends, and their context, if the images have any.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hrviewer.geometry import Rect, context_rings
from hrviewer.models.bundle import ModelBundle
from hrviewer.models.card import ModelCard
from hrviewer.models.loaders.torch import count_flops
from hrviewer.models.network import Network
from hrviewer.models.transformer import CELLS, PATCH, SIZES, extract_squares
from hrviewer.training.density_task import normalise, to_float
from hrviewer.training.distillation import DistilledScout, run_scout
from hrviewer.training.losses import density_loss, variance_loss
from hrviewer.training.task import Batch

__all__ = ["TransformerTask"]

SIDES = tuple(PATCH << i for i in range(SIZES))
"""Sides of the squares, in pixels."""
EVALUATION_SIDE = 32
"""Pixels; side of the squares on which it is evaluated."""
REGION = 512
"""Pixels; side of the squares whose tokens attend to each other."""
MIN_SPLIT_SIDE = 32
"""Pixels; side of the smallest squares that are split."""
SPLIT_THRESHOLD = 0.3
"""Estimated count above which a square is split when the gain of each size is set."""

Tokens = tuple[Tensor, Tensor, Tensor]
"""Squares, their boxes, and the index of their image, as in `TokenGroup`."""


@dataclass(frozen=True)
class TokenGroup:
    """Squares of one size, cut from images.

    Attributes
    ----------
    side : int
        Side in pixels.
    tokens : Tensor
        ``(m, 3, 16, 16)``.
    boxes : Tensor
        ``(m, 4)``: y, x, h, w.
    owner : Tensor
        Index of their image, ``(m,)``.
    counts : Tensor
        Counts of main in them, ``(m, k, 4, 4)``.
    """

    side: int
    tokens: Tensor
    boxes: Tensor
    owner: Tensor
    counts: Tensor


@dataclass(frozen=True)
class TransformerTask(DistilledScout):
    """Training of a transformer, which predicts the counts of main in squares of several sizes.

    The stream's batches are images, or images and their context (`context_patches`). If the bundle
    has a scout, squares are split by its prediction, as by a strategy.
    """

    scout: Network | None = field(default=None, kw_only=True)
    ROLE: ClassVar[str] = "transformer"

    @classmethod
    def _derive(
        cls, bundle: ModelBundle, main: ModelCard, role: str, downsample: int | None, device: str
    ) -> dict[str, Any]:
        scout = bundle.load("scout", device) if "scout" in bundle.roles else None
        return {**super()._derive(bundle, main, role, downsample, device), "scout": scout}

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Compare the counts in the squares' cells, all sizes alike, and their sum with main's."""
        images, *context_images = batch
        counts = self._teacher_density(images)
        content = self._estimate_content(images, counts)
        groups = self._make_tokens(normalise(images, self.card.input), counts, content)
        context = (
            [self._context_tokens(context_images[0], images.shape[-1])] if context_images else []
        )
        total, sums = images.new_zeros(()), images.new_zeros(2, len(images), len(self.card.classes))
        for group, predicted in zip(groups, _run_tokens(model, groups, context), strict=True):
            if not len(predicted):
                continue
            mean, variance = predicted.chunk(2, 1)
            # Smaller squares have smaller counts.
            share = group.side / SIDES[-1]
            windows = [(n, weight, constant * share) for n, weight, constant in self.windows]
            loss = density_loss(mean, group.counts, windows)
            loss = loss + 0.1 * variance_loss(mean, variance, group.counts, (1, 2, 4))
            total = total + loss / len(groups)
            both = torch.stack((mean, group.counts)).sum((3, 4))
            sums = sums.index_add(1, group.owner, both)
        own, expected = sums[..., None, None]
        loss_value: Tensor = total + 0.02 * density_loss(own, expected, ((1, 1.0, 1.0),))
        return loss_value

    def calibrate(self, model: nn.Module) -> dict[str, float]:
        """Scale the counts of each size to main's, then the variance to the errors.

        Each size is scaled where it is used: small squares on objects, large ones elsewhere.
        """
        gains = self._gains(model)
        model.rescale(gains)  # type: ignore[operator]
        spread = self.validate(model)["spread"]
        model.rescale(1.0, spread**2)  # type: ignore[operator]
        factors = {f"gain_{side}": round(gain, 4) for side, gain in zip(SIDES, gains, strict=True)}
        return {**factors, "error_spread_before": spread}

    def evaluate(self, model: nn.Module) -> dict[str, Any]:
        """Return the metrics on the test images, also by size, and the relative cost."""
        metrics = super().evaluate(model)
        errors = {side: self._count_error(model, self.test, side) for side in SIDES}
        metrics["description"] += (
            f"; tokens of {EVALUATION_SIDE} px. count_error_by_side: for the other token sizes. "
            "relative_flops: for the finest grid"
        )
        return metrics | {"count_error_by_side": {str(k): round(v, 4) for k, v in errors.items()}}

    def _count_error(self, model: nn.Module, images: Sequence[Tensor], side: int) -> float:
        """Return the error of the images' counts on a grid of one size, over their mean."""
        counts = []
        device = next(model.parameters()).device
        for full in images:
            h, w = (length // self.tile * self.tile for length in full.shape[1:])
            image = to_float(full[None, :, :h, :w])
            with torch.inference_mode():
                mean, _ = self._predict(model.eval(), image.to(device), side)[0].chunk(2)
            counts.append(
                (float(mean.sum()), float(self._cached_teacher_density(full, image).sum()))
            )
        own, expected = np.array(counts).T
        return float(np.abs(own - expected).mean() / expected.mean())

    def _gains(self, model: nn.Module) -> list[float]:
        """Return main's sums over the network's, for squares of each size where those are used.

        One object is added to both, so that the gain of an unused size is about 1.
        """
        device = next(model.parameters()).device
        sums = torch.ones(len(SIDES), 2)
        for full in self.validation:
            h, w = (length // self.tile * self.tile for length in full.shape[1:])
            image = to_float(full[None, :, :h, :w])
            side = min(REGION, h, w)
            regions = extract_squares(image, side, side).flatten(0, 2)
            main_density = self._cached_teacher_density(full, image)[None]
            counts = extract_squares(main_density, side // CELLS, side // CELLS).flatten(0, 2)
            for part, part_counts in zip(
                torch.split(regions, 8), torch.split(counts, 8), strict=True
            ):
                content = self._estimate_content(part, part_counts).to(device)
                images = normalise(part.to(device), self.card.input)
                groups = self._make_tokens(images, part_counts.to(device), content, SPLIT_THRESHOLD)
                with torch.inference_mode():
                    predictions = _run_tokens(model.eval(), groups)
                for group, predicted in zip(groups, predictions, strict=True):
                    both = torch.stack([predicted.chunk(2, 1)[0].sum(), group.counts.sum()])
                    sums[SIDES.index(group.side)] += both.cpu()
        own, main = sums.T
        gains: list[float] = (main / own).tolist()
        return gains

    def _relative_flops(self, model: nn.Module) -> float:
        """Return the FLOPs of the finest grid over those of main."""
        meta_model = copy.deepcopy(model).to("meta")
        n = (REGION // PATCH) ** 2
        flops = count_flops(
            meta_model, "run_tokens", (n, self.card.input.channel_count, PATCH, PATCH), (n, 4)
        )
        return flops / self.teacher.flops(REGION, REGION)

    def _predict(self, model: nn.Module, images: Tensor, side: int = EVALUATION_SIDE) -> Tensor:
        predicted: Tensor = model(normalise(images, self.card.input), side)
        return predicted

    def _estimate_content(self, images: Tensor, counts: Tensor) -> Tensor:
        """Return estimated counts in squares of `MIN_SPLIT_SIDE` pixels, ``(n, rows, columns)``."""
        if self.scout is None:  # main's counts, with the error of an estimate
            cell, density = (
                CELLS,
                counts * torch.randn(counts.shape).mul(0.5).exp().to(counts.device),
            )
        else:
            density, cell = run_scout(self.scout, images)
        cells = MIN_SPLIT_SIDE // cell
        k = self.teacher.card.prediction_channels
        content: Tensor = F.avg_pool2d(density[:, :k].sum(1).clamp(min=0), cells) * cells**2
        return content.to(images.device)

    def _make_tokens(
        self, images: Tensor, counts: Tensor, content: Tensor, above: float | None = None
    ) -> list[TokenGroup]:
        """Cut images ``(n, 3, h, w)``, whose cells hold `counts`, into squares.

        Squares with an estimated content of more than `above` are split; random ones by default.
        """
        n, (h, w) = len(images), images.shape[2:]
        device = images.device
        sides = [side for side in SIDES if h % side == w % side == 0]
        # Half of the images are split at random, half where the content exceeds a threshold.
        probability = torch.rand(n, 1, 1)
        by_content = (torch.rand(n, 1, 1) < 0.5).to(device)
        threshold = torch.exp(torch.empty(n, 1, 1).uniform_(math.log(0.02), math.log(2)))
        if above is not None:
            by_content, threshold = by_content.fill_(True), threshold.fill_(above)
        uncut = torch.ones(n, h // sides[-1], w // sides[-1], dtype=torch.bool, device=device)
        groups = []
        for side in reversed(sides):
            finer = side // PATCH
            cell_counts = extract_squares(counts, side // CELLS, CELLS) * finer**2
            split = torch.zeros_like(uncut)
            if side > sides[0]:
                cells = side // MIN_SPLIT_SIDE
                large = F.avg_pool2d(content, cells) * cells**2 > threshold.to(device)
                random_split = (torch.rand(uncut.shape) < probability).to(device)
                split = uncut & torch.where(by_content, large, random_split)
            kept = uncut & ~split
            owner, rows, columns = kept.nonzero().T
            at = torch.stack((rows, columns, torch.ones_like(rows), torch.ones_like(rows)), 1)
            groups.append(
                TokenGroup(
                    side,
                    extract_squares(images, side)[kept],
                    (at * side).float(),
                    owner,
                    cell_counts[kept],
                )
            )
            uncut = split.repeat_interleave(2, 1).repeat_interleave(2, 2)
        return groups

    def _context_tokens(self, context_images: Tensor, side: int) -> Tokens:
        """Return the tokens of context ``(n, 8 · rings, 3, 16, 16)``: a random number of rings."""
        n, total = context_images.shape[:2]
        rects = context_rings(Rect(0, 0, side, side), total // 8)
        boxes = torch.tensor(
            [rect.astuple() for rect in rects], device=context_images.device
        ).float()
        rings = torch.randint(0, total // 8 + 1, (n, 1))
        used = (torch.arange(total) // 8 < rings).to(context_images.device)
        used &= ~context_images.flatten(2).isnan().any(2)
        owner, index = used.nonzero().T
        return normalise(context_images[used], self.card.input), boxes[index], owner


def _run_tokens(
    model: nn.Module, groups: Sequence[TokenGroup], context: Sequence[Tokens] = ()
) -> tuple[Tensor, ...]:
    """Return the predictions for squares among each other, ``(m, 2k, 4, 4)`` of each group."""
    parts = [(group.tokens, group.boxes, group.owner) for group in groups] + list(context)
    tokens, boxes, owner = (torch.cat(values) for values in zip(*parts, strict=True))
    order = owner.argsort(stable=True)
    packed = tokens[order].contiguous(memory_format=torch.channels_last)
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(len(order), device=order.device)
    lengths = owner.bincount().tolist()
    predicted = model.run_tokens(packed, boxes[order], lengths)[inverse].float()  # type: ignore[operator]
    split: tuple[Tensor, ...] = torch.split(predicted, [len(part[0]) for part in parts])
    return split[: len(groups)]
