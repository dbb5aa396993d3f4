"""The lesson of a transformer whose tokens are squares of the image, of several sizes.

As every student it guesses what ``main`` would count. What it learns from is cut into squares at
random: by chance alone, or as a quadtree that follows what is there, so that it meets the
mixtures that a strategy will show it, and their surroundings, where they come with the pictures.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from hrviewer.geometry import Rect, surroundings
from hrviewer.models.loaders.torch import count_flops
from hrviewer.models.transformer import CELLS, PATCH, SIZES, squares
from hrviewer.training.density import floats, normalised
from hrviewer.training.lesson import Batch
from hrviewer.training.losses import density_loss, variance_loss
from hrviewer.training.student import Student

__all__ = ["TokenStudent"]

SIDES = tuple(PATCH << i for i in range(SIZES))
"""Sides of the squares, in pixels."""
JUDGED = 32
"""Side of the squares by which it is judged."""
REGION = 512
"""Side of what its cost is told of."""


@dataclass(frozen=True)
class Cut:
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
class TokenStudent(Student):
    """Learn to guess, square by square, what main would count.

    The stream's batches are images, or images and what is around each (`surround`).
    """

    ROLE: ClassVar[str] = "transformer"

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """Compare the counts in the squares' cells with main's, all sizes alike, and their sum."""
        images, *around = batch
        cuts = self._cut(normalised(images, self.card.input), self._main(images))
        parts = [(cut.tokens, cut.boxes, cut.owner) for cut in cuts]
        if around:
            parts.append(self._context(around[0], images.shape[-1]))
        tokens, boxes, owner = (torch.cat(some) for some in zip(*parts, strict=True))
        order = owner.argsort(stable=True)
        packed = tokens[order].contiguous(memory_format=torch.channels_last)
        lengths = owner.bincount(minlength=len(images)).tolist()
        said = torch.empty_like(order)
        said[order] = torch.arange(len(order), device=order.device)
        found = network.join(packed, boxes[order], lengths)[said].float()  # type: ignore[operator]

        total, start = found.new_zeros(()), 0
        sums = found.new_zeros(2, len(images), found.shape[1] // 2)
        for cut in cuts:
            mean, variance = found[start : (start := start + len(cut.tokens))].chunk(2, 1)
            if not len(mean):
                continue
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

    def calibrate(self, network: nn.Module) -> dict[str, float]:
        """Make the sums of its counts right for each size; then the spread of its errors."""
        gains = {side: self._off(network, self.choose, side)[1] for side in SIDES}
        network.rescale([1 / gain for gain in gains.values()])  # type: ignore[operator]
        spread = self.judge(network)["spread"]
        network.rescale(1.0, spread**2)  # type: ignore[operator]
        said = {f"gain_{side}": round(1 / gain, 4) for side, gain in gains.items()}
        return {**said, "spread_before": spread}

    def examine(self, network: nn.Module) -> dict[str, Any]:
        """Return how well it does on the pictures to test with, by size, and what it costs."""
        found = super().examine(network)
        errors = {side: self._off(network, self.test, side)[0] for side in SIDES}
        found["what"] += (
            f"; all that on a grid of squares of {JUDGED} px. count_error_by_side: on grids of "
            "others. flops_over_mains: of the finest grid"
        )
        return found | {"count_error_by_side": {str(k): round(v, 4) for k, v in errors.items()}}

    def _off(
        self, network: nn.Module, pictures: Sequence[Tensor], side: int
    ) -> tuple[float, float]:
        """Return the error of the pictures' counts over their mean, and their sum over main's."""
        counts = []
        place = next(network.parameters()).device
        for picture in pictures:
            h, w = (length // self.tile * self.tile for length in picture.shape[1:])
            image = floats(picture[None, :, :h, :w])
            with torch.inference_mode():
                mean, _ = self._say(network.eval(), image.to(place), side)[0].chunk(2)
            counts.append((float(mean.sum()), float(self._mains(picture, image).sum())))
        mine, there = np.array(counts).T
        return float(np.abs(mine - there).mean() / there.mean()), float(mine.sum() / there.sum())

    def _cost(self, network: nn.Module) -> float:
        """Return the FLOPs of the finest grid over those of main."""
        hollow = copy.deepcopy(network).to("meta")
        n = (REGION // PATCH) ** 2
        flops = count_flops(hollow, "join", (n, self.card.input.count, PATCH, PATCH), (n, 4))
        return flops / self.teacher.flops(REGION, REGION)

    def _say(self, network: nn.Module, images: Tensor, side: int = JUDGED) -> Tensor:
        said: Tensor = network(normalised(images, self.card.input), side)
        return said

    def _cut(self, images: Tensor, counts: Tensor) -> list[Cut]:
        """Cut pictures ``(n, 3, h, w)``, whose cells hold `counts`, into squares at random."""
        n, (h, w) = len(images), images.shape[2:]
        place = images.device
        sides = [side for side in SIDES if h % side == w % side == 0]
        # Half of them by chance; half where there is more than a threshold, as far as one knows.
        chance = torch.rand(n, 1, 1)
        by_content = (torch.rand(n, 1, 1) < 0.5).to(place)
        threshold = torch.exp(torch.empty(n, 1, 1).uniform_(math.log(0.02), math.log(2)))
        alive = torch.ones(n, h // sides[-1], w // sides[-1], dtype=torch.bool, device=place)
        cuts = []
        for side in reversed(sides):
            finer = side // PATCH
            inside = squares(counts, side // CELLS, CELLS) * finer**2
            guess = inside.sum((3, 4, 5)) * torch.randn(alive.shape).mul(0.5).exp().to(place)
            split = torch.where(
                by_content,
                guess > threshold.to(place),
                (torch.rand(alive.shape) < chance).to(place),
            )
            split = split & alive if side > sides[0] else torch.zeros_like(alive)
            taken = alive & ~split
            owner, rows, columns = taken.nonzero().T
            at = torch.stack((rows, columns, torch.ones_like(rows), torch.ones_like(rows)), 1)
            cuts.append(
                Cut(side, squares(images, side)[taken], (at * side).float(), owner, inside[taken])
            )
            alive = split.repeat_interleave(2, 1).repeat_interleave(2, 2)
        return cuts

    def _context(self, around: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the squares around pictures ``(n, 8 · rings, 3, 16, 16)``: a few rings of them."""
        n, total = around.shape[:2]
        rects = surroundings(Rect(0, 0, side, side), total // 8)
        boxes = torch.tensor([rect.astuple() for rect in rects], device=around.device).float()
        rings = torch.randint(0, total // 8 + 1, (n, 1))
        shown = (torch.arange(total) // 8 < rings).to(around.device)
        shown &= ~around.flatten(2).isnan().any(2)
        owner, which = shown.nonzero().T
        return normalised(around[shown], self.card.input), boxes[which], owner
