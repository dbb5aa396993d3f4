"""Tokens that say the same become one, and are many again at the end.

Bolya et al., *Token Merging: Your ViT but Faster*, ICLR 2023: in every layer, between attention
and what follows, tokens are split into two sets; the most similar pairs across are joined, as the
mean weighted by how many tokens each already stands for. Attention then counts a token as often
as that (its logarithm is added to the logits), so that nothing need be taught anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Merged"]


@dataclass(frozen=True, eq=False)
class Merged:
    """Tokens of several packed inputs, some of them joined.

    Attributes
    ----------
    x : Tensor
        ``(m, d)``, input after input.
    size : Tensor
        How many tokens each stands for, ``(m, 1)``.
    owner : Tensor
        Which of the `m` each of the first tokens became part of, ``(n,)``.
    lengths : tuple of int
        Tokens of each input.
    """

    x: Tensor
    size: Tensor
    owner: Tensor
    lengths: tuple[int, ...]

    @classmethod
    def of(cls, x: Tensor, lengths: Sequence[int]) -> Merged:
        """Return tokens ``(n, d)`` of which none is joined."""
        return cls(x, x.new_ones(len(x), 1), torch.arange(len(x), device=x.device), tuple(lengths))

    @property
    def bias(self) -> Tensor | None:
        """What proportional attention adds to a token's logits, ``(m,)``; None if nothing."""
        return None if len(self.x) == len(self.owner) else self.size[:, 0].log()

    def put(self, x: Tensor) -> Merged:
        """Return the same tokens with other values."""
        return Merged(x, self.size, self.owner, self.lengths)

    def looks(self, q: Tensor, k: Tensor, scale: float) -> Tensor:
        """Return where the first tokens of one input look, ``(n, n)``: the mean of the heads.

        What tokens that are one take, and what is taken of them, they share evenly.

        Parameters
        ----------
        q, k : Tensor
            What the `m` ask for and offer, ``(m, heads, e)``.
        scale : float
            Of their products.
        """
        logits = scale * torch.einsum("ihe,jhe->hij", q, k)
        if self.bias is not None:
            logits = logits + self.bias
        taken: Tensor = logits.softmax(dim=-1).mean(dim=0)[self.owner][:, self.owner]
        return taken / self.size[self.owner, 0]

    def merge(self, alike: Tensor, share: float, kept: int = 0) -> Merged:
        """Join the most similar pairs.

        Parameters
        ----------
        alike : Tensor
            What is compared, ``(m, e)``, by the cosine.
        share : float
            Which part of each input's tokens is joined to others; at most a half.
        kept : int
            How many of each input's tokens, the first, stay as they are.
        """
        if not share:
            return self
        into, lengths, start = [], [], 0
        for i, j in pairwise(accumulate(self.lengths, initial=0)):
            joined, left = _pairs(alike[i + kept : j], int((j - i - kept) * min(share, 0.5)))
            into += [torch.arange(start, start + kept, device=alike.device), joined + start + kept]
            lengths.append(kept + left)
            start += kept + left
        place = torch.cat(into)
        size = self.size.new_zeros(start, 1).index_add(0, place, self.size)
        x = self.x.new_zeros(start, self.x.shape[1]).index_add(0, place, self.x * self.size)
        return Merged(x / size, size, place[self.owner], tuple(lengths))

    def unmerge(self) -> Tensor:
        """Return one vector for each of the first tokens, ``(n, d)``: that of what it became."""
        return self.x if len(self.x) == len(self.owner) else self.x[self.owner]


def _pairs(alike: Tensor, joined: int) -> tuple[Tensor, int]:
    """Return where each token ``(n, e)`` of one input goes, and how many there are then."""
    n = len(alike)
    if not joined:
        return torch.arange(n, device=alike.device), n
    unit = F.normalize(alike, dim=-1)
    near, best = (unit[::2] @ unit[1::2].T).max(dim=-1)
    order = near.argsort(descending=True, stable=True)
    gone, kept = order[:joined], order[joined:].sort().values
    into = alike.new_zeros(n, dtype=torch.long)
    into[2 * kept] = torch.arange(len(kept), device=alike.device)
    into[1::2] = torch.arange(n // 2, device=alike.device) + len(kept)
    into[2 * gone] = best[gone] + len(kept)
    return into, n - joined
