"""Token merging: similar tokens become one inside a transformer, and are restored at the end.

Bolya et al., *Token Merging: Your ViT but Faster*, ICLR 2023: in every layer, between attention
and what follows, tokens are split into two sets; the most similar pairs across them are merged into
their mean, weighted by how many tokens each already represents. Attention then counts a token
that many times (the logarithm is added to the logits), so no retraining is needed.
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
    """Tokens of several packed inputs, some of them merged.

    Attributes
    ----------
    x : Tensor
        Values, ``(m, d)``, input after input.
    size : Tensor
        Number of original tokens that each represents, ``(m, 1)``.
    owner : Tensor
        Index among the `m` of the token that each original token became part of, ``(n,)``.
    lengths : tuple of int
        Number of tokens of each input.
    """

    x: Tensor
    size: Tensor
    owner: Tensor
    lengths: tuple[int, ...]

    @classmethod
    def from_tokens(cls, x: Tensor, lengths: Sequence[int]) -> MergedTokens:
        """Return tokens ``(n, d)``, none of them merged yet."""
        return cls(x, x.new_ones(len(x), 1), torch.arange(len(x), device=x.device), tuple(lengths))

    @property
    def bias(self) -> Tensor | None:
        """Bias of a token's logits in proportional attention, ``(m,)``; None if all are 0."""
        return None if len(self.x) == len(self.owner) else self.size[:, 0].log()

    def with_values(self, x: Tensor) -> MergedTokens:
        """Return the same tokens with new values."""
        return MergedTokens(x, self.size, self.owner, self.lengths)

    def attention(self, q: Tensor, k: Tensor, scale: float) -> Tensor:
        """Return the mean attention of the heads between one input's original tokens, ``(n, n)``.

        Merged tokens share their attention evenly, both given and received.

        Parameters
        ----------
        q, k : Tensor
            Queries and keys of the `m` tokens, ``(m, heads, e)``.
        scale : float
            Factor of their products.
        """
        logits = scale * torch.einsum("ihe,jhe->hij", q, k)
        if self.bias is not None:
            logits = logits + self.bias
        weights: Tensor = logits.softmax(dim=-1).mean(dim=0)[self.owner][:, self.owner]
        return weights / self.size[self.owner, 0]

    def merge(self, keys: Tensor, ratio: float, protected: int = 0) -> MergedTokens:
        """Merge the most similar pairs.

        Parameters
        ----------
        keys : Tensor
            Features compared by cosine similarity, ``(m, e)``.
        ratio : float
            Fraction of each input's tokens that is merged into others; at most 0.5.
        protected : int
            Number of tokens at the start of each input that are never merged.
        """
        if not ratio:
            return self
        index, lengths, start = [], [], 0
        for i, j in pairwise(accumulate(self.lengths, initial=0)):
            target, count = _match_pairs(
                keys[i + protected : j], int((j - i - protected) * min(ratio, 0.5))
            )
            index += [
                torch.arange(start, start + protected, device=keys.device),
                target + start + protected,
            ]
            lengths.append(protected + count)
            start += protected + count
        place = torch.cat(index)
        size = self.size.new_zeros(start, 1).index_add(0, place, self.size)
        x = self.x.new_zeros(start, self.x.shape[1]).index_add(0, place, self.x * self.size)
        return MergedTokens(x / size, size, place[self.owner], tuple(lengths))

    def unmerge(self) -> Tensor:
        """Return one vector per original token, ``(n, d)``: that of the token it became part of."""
        return self.x if len(self.x) == len(self.owner) else self.x[self.owner]


def _match_pairs(keys: Tensor, merges: int) -> tuple[Tensor, int]:
    """Return the new index of each token ``(n, e)`` of one input, and the number of tokens left."""
    n = len(keys)
    if not merges:
        return torch.arange(n, device=keys.device), n
    unit = F.normalize(keys, dim=-1)
    similarity, best = (unit[::2] @ unit[1::2].T).max(dim=-1)
    order = similarity.argsort(descending=True, stable=True)
    merged, kept = order[:merges], order[merges:].sort().values
    index = keys.new_zeros(n, dtype=torch.long)
    index[2 * kept] = torch.arange(len(kept), device=keys.device)
    index[1::2] = torch.arange(n // 2, device=keys.device) + len(kept)
    index[2 * merged] = best[merged] + len(kept)
    return index, n - merges
