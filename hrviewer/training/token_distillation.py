"""The lesson of a transformer whose tokens are squares of the image, of several sizes.

As every student it guesses what ``main`` would count. What it learns from is cut into squares at
random: by chance alone, or as a quadtree that follows what is there, so that it meets the
mixtures that a strategy will show it, and their surroundings, where they come with the pictures.
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
"""Side of the squares by which it is judged."""
REGION = 512
"""Side of the squares whose tokens attend to each other."""
MIN_SPLIT_SIDE = 32
"""Side of the smallest squares that are split."""
SPLIT_THRESHOLD = 0.3
"""How much a square holds, as far as one can guess, that is split where each size's sum is set."""

Tokens = tuple[Tensor, Tensor, Tensor]
"""Squares, their boxes, and whose they are, as `Cut` has them."""


@dataclass(frozen=True)
class TokenGroup:
    """Squares that tile pictures, of one size.

    Attributes
    ----------
    side : int
        In pixels.
    tokens : Tensor
        ``(m, 3, 16, 16)``.
    boxes : Tensor
        ``(m, 4)``: y, x, h, w.
    owner : Tensor
        Whose they are, ``(m,)``.
    counts : Tensor
        What is in them, ``(m, k, 4, 4)``.
    """

    side: int
    tokens: Tensor
    boxes: Tensor
    owner: Tensor
    counts: Tensor


@dataclass(frozen=True)
class TransformerTask(DistilledScout):
    """Learn to guess, square by square, what main would count.

    The stream's batches are images, or images and what is around each (`surround`). Squares are
    cut by what the pack's scout guesses, as a strategy cuts them, where there is one.
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
        """Compare the counts in the squares' cells with main's, all sizes alike, and their sum."""
        images, *around = batch
        counts = self._teacher_density(images)
        guess = self._estimate_content(images, counts)
        cuts = self._make_tokens(normalise(images, self.card.input), counts, guess)
        context = [self._context_tokens(around[0], images.shape[-1])] if around else []
        total, sums = images.new_zeros(()), images.new_zeros(2, len(images), len(self.card.classes))
        for cut, said in zip(cuts, _run_tokens(model, cuts, context), strict=True):
            if not len(said):
                continue
            mean, variance = said.chunk(2, 1)
            # The smaller the square, the less is much.
            share = cut.side / SIDES[-1]
            windows = [(n, weight, little * share) for n, weight, little in self.windows]
            loss = density_loss(mean, cut.counts, windows)
            loss = loss + 0.1 * variance_loss(mean, variance, cut.counts, (1, 2, 4))
            total = total + loss / len(cuts)
            both = torch.stack((mean, cut.counts)).sum((3, 4))
            sums = sums.index_add(1, cut.owner, both)
        mine, there = sums[..., None, None]
        whole: Tensor = total + 0.02 * density_loss(mine, there, ((1, 1.0, 1.0),))
        return whole

    def calibrate(self, model: nn.Module) -> dict[str, float]:
        """Make the sums of its counts right for each size; then the spread of its errors.

        Each size where it is used: small squares where there is something, large ones elsewhere.
        """
        gains = self._gains(model)
        model.rescale(gains)  # type: ignore[operator]
        spread = self.validate(model)["spread"]
        model.rescale(1.0, spread**2)  # type: ignore[operator]
        said = {f"gain_{s}": round(gain, 4) for s, gain in zip(SIDES, gains, strict=True)}
        return {**said, "error_spread_before": spread}

    def evaluate(self, model: nn.Module) -> dict[str, Any]:
        """Return how well it does on the pictures to test with, by size, and what it costs."""
        found = super().evaluate(model)
        errors = {side: self._count_error(model, self.test, side) for side in SIDES}
        found["description"] += (
            f"; tokens of {EVALUATION_SIDE} px. count_error_by_side: for the other token sizes. "
            "relative_flops: for the finest grid"
        )
        return found | {"count_error_by_side": {str(k): round(v, 4) for k, v in errors.items()}}

    def _count_error(self, model: nn.Module, images: Sequence[Tensor], side: int) -> float:
        """Return the error of the pictures' counts on a grid of one size, over their mean."""
        counts = []
        place = next(model.parameters()).device
        for picture in images:
            h, w = (length // self.tile * self.tile for length in picture.shape[1:])
            image = to_float(picture[None, :, :h, :w])
            with torch.inference_mode():
                mean, _ = self._predict(model.eval(), image.to(place), side)[0].chunk(2)
            counts.append(
                (float(mean.sum()), float(self._cached_teacher_density(picture, image).sum()))
            )
        mine, there = np.array(counts).T
        return float(np.abs(mine - there).mean() / there.mean())

    def _gains(self, model: nn.Module) -> list[float]:
        """Return main's sums over its own, for squares of each size where those are used.

        One object more on both sides: where there is nothing, nothing is learned.
        """
        place = next(model.parameters()).device
        sums = torch.ones(len(SIDES), 2)
        for picture in self.validation:
            h, w = (length // self.tile * self.tile for length in picture.shape[1:])
            image = to_float(picture[None, :, :h, :w])
            side = min(REGION, h, w)
            regions = extract_squares(image, side, side).flatten(0, 2)
            there = self._cached_teacher_density(picture, image)[None]
            counts = extract_squares(there, side // CELLS, side // CELLS).flatten(0, 2)
            for some, inside in zip(torch.split(regions, 8), torch.split(counts, 8), strict=True):
                guess = self._estimate_content(some, inside).to(place)
                images = normalise(some.to(place), self.card.input)
                cuts = self._make_tokens(images, inside.to(place), guess, SPLIT_THRESHOLD)
                with torch.inference_mode():
                    found = _run_tokens(model.eval(), cuts)
                for cut, said in zip(cuts, found, strict=True):
                    both = torch.stack([said.chunk(2, 1)[0].sum(), cut.counts.sum()])
                    sums[SIDES.index(cut.side)] += both.cpu()
        mine, main = sums.T
        gains: list[float] = (main / mine).tolist()
        return gains

    def _relative_flops(self, model: nn.Module) -> float:
        """Return the FLOPs of the finest grid over those of main."""
        hollow = copy.deepcopy(model).to("meta")
        n = (REGION // PATCH) ** 2
        flops = count_flops(
            hollow, "run_tokens", (n, self.card.input.channel_count, PATCH, PATCH), (n, 4)
        )
        return flops / self.teacher.flops(REGION, REGION)

    def _predict(self, model: nn.Module, images: Tensor, side: int = EVALUATION_SIDE) -> Tensor:
        said: Tensor = model(normalise(images, self.card.input), side)
        return said

    def _estimate_content(self, images: Tensor, counts: Tensor) -> Tensor:
        """Return what is known of images' squares of `BASE` pixels, ``(n, rows, columns)``."""
        if self.scout is None:  # main's counts, and how far off such a guess may be
            cell, said = CELLS, counts * torch.randn(counts.shape).mul(0.5).exp().to(counts.device)
        else:
            said, cell = run_scout(self.scout, images)
        cells = MIN_SPLIT_SIDE // cell
        k = self.teacher.card.prediction_channels
        known: Tensor = F.avg_pool2d(said[:, :k].sum(1).clamp(min=0), cells) * cells**2
        return known.to(images.device)

    def _make_tokens(
        self, images: Tensor, counts: Tensor, guess: Tensor, above: float | None = None
    ) -> list[TokenGroup]:
        """Cut pictures ``(n, 3, h, w)``, whose cells hold `counts`, into squares.

        What holds more than `above` is split, as far as one can guess; at random by default.
        """
        n, (h, w) = len(images), images.shape[2:]
        place = images.device
        sides = [side for side in SIDES if h % side == w % side == 0]
        # Half of them by chance; half where there is more than a threshold.
        chance = torch.rand(n, 1, 1)
        by_content = (torch.rand(n, 1, 1) < 0.5).to(place)
        threshold = torch.exp(torch.empty(n, 1, 1).uniform_(math.log(0.02), math.log(2)))
        if above is not None:
            by_content, threshold = by_content.fill_(True), threshold.fill_(above)
        alive = torch.ones(n, h // sides[-1], w // sides[-1], dtype=torch.bool, device=place)
        cuts = []
        for side in reversed(sides):
            finer = side // PATCH
            inside = extract_squares(counts, side // CELLS, CELLS) * finer**2
            split = torch.zeros_like(alive)
            if side > sides[0]:
                cells = side // MIN_SPLIT_SIDE
                much = F.avg_pool2d(guess, cells) * cells**2 > threshold.to(place)
                lucky = (torch.rand(alive.shape) < chance).to(place)
                split = alive & torch.where(by_content, much, lucky)
            taken = alive & ~split
            owner, rows, columns = taken.nonzero().T
            at = torch.stack((rows, columns, torch.ones_like(rows), torch.ones_like(rows)), 1)
            cuts.append(
                TokenGroup(
                    side,
                    extract_squares(images, side)[taken],
                    (at * side).float(),
                    owner,
                    inside[taken],
                )
            )
            alive = split.repeat_interleave(2, 1).repeat_interleave(2, 2)
        return cuts

    def _context_tokens(self, around: Tensor, side: int) -> Tokens:
        """Return the squares around pictures ``(n, 8 · rings, 3, 16, 16)``: a few rings of them."""
        n, total = around.shape[:2]
        rects = context_rings(Rect(0, 0, side, side), total // 8)
        boxes = torch.tensor([rect.astuple() for rect in rects], device=around.device).float()
        rings = torch.randint(0, total // 8 + 1, (n, 1))
        shown = (torch.arange(total) // 8 < rings).to(around.device)
        shown &= ~around.flatten(2).isnan().any(2)
        owner, which = shown.nonzero().T
        return normalise(around[shown], self.card.input), boxes[which], owner


def _run_tokens(
    model: nn.Module, cuts: Sequence[TokenGroup], context: Sequence[Tokens] = ()
) -> tuple[Tensor, ...]:
    """Return what a network says of squares among each other, ``(m, 2k, 4, 4)`` of each cut."""
    parts = [(cut.tokens, cut.boxes, cut.owner) for cut in cuts] + list(context)
    tokens, boxes, owner = (torch.cat(some) for some in zip(*parts, strict=True))
    order = owner.argsort(stable=True)
    packed = tokens[order].contiguous(memory_format=torch.channels_last)
    said = torch.empty_like(order)
    said[order] = torch.arange(len(order), device=order.device)
    lengths = owner.bincount().tolist()
    found = model.run_tokens(packed, boxes[order], lengths)[said].float()  # type: ignore[operator]
    split: tuple[Tensor, ...] = torch.split(found, [len(part[0]) for part in parts])
    return split[: len(cuts)]
