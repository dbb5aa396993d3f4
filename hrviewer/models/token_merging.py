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

__all__ = ["MergedTokens"]


@dataclass(frozen=True, eq=False)
class MergedTokens:
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
    def from_tokens(cls, x: Tensor, lengths: Sequence[int]) -> MergedTokens:
        """Return tokens ``(n, d)`` of which none is joined."""
        return cls(x, x.new_ones(len(x), 1), torch.arange(len(x), device=x.device), tuple(lengths))

    @property
    def bias(self) -> Tensor | None:
        """What proportional attention adds to a token's logits, ``(m,)``; None if nothing."""
        return None if len(self.x) == len(self.owner) else self.size[:, 0].log()

    def with_values(self, x: Tensor) -> MergedTokens:
        """Return the same tokens with other values."""
        return MergedTokens(x, self.size, self.owner, self.lengths)

    def attention(self, q: Tensor, k: Tensor, scale: float) -> Tensor:
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

    def merge(self, keys: Tensor, ratio: float, protected: int = 0) -> MergedTokens:
        """Join the most similar pairs.

        Parameters
        ----------
        keys : Tensor
            What is compared, ``(m, e)``, by the cosine.
        ratio : float
            Which part of each input's tokens is joined to others; at most a half.
        protected : int
            How many of each input's tokens, the first, stay as they are.
        """
        if not ratio:
            return self
        into, lengths, start = [], [], 0
        for i, j in pairwise(accumulate(self.lengths, initial=0)):
            joined, left = _match_pairs(
                keys[i + protected : j], int((j - i - protected) * min(ratio, 0.5))
            )
            into += [
                torch.arange(start, start + protected, device=keys.device),
                joined + start + protected,
            ]
            lengths.append(protected + left)
            start += protected + left
        place = torch.cat(into)
        size = self.size.new_zeros(start, 1).index_add(0, place, self.size)
        x = self.x.new_zeros(start, self.x.shape[1]).index_add(0, place, self.x * self.size)
        return MergedTokens(x / size, size, place[self.owner], tuple(lengths))

    def unmerge(self) -> Tensor:
        """Return one vector for each of the first tokens, ``(n, d)``: that of what it became."""
        return self.x if len(self.x) == len(self.owner) else self.x[self.owner]


def _match_pairs(keys: Tensor, merges: int) -> tuple[Tensor, int]:
    """Return where each token ``(n, e)`` of one input goes, and how many there are then."""
    n = len(keys)
    if not merges:
        return torch.arange(n, device=keys.device), n
    unit = F.normalize(keys, dim=-1)
    near, best = (unit[::2] @ unit[1::2].T).max(dim=-1)
    order = near.argsort(descending=True, stable=True)
    gone, kept = order[:merges], order[merges:].sort().values
    into = keys.new_zeros(n, dtype=torch.long)
    into[2 * kept] = torch.arange(len(kept), device=keys.device)
    into[1::2] = torch.arange(n // 2, device=keys.device) + len(kept)
    into[2 * gone] = best[gone] + len(kept)
    return into, n - merges
