"""A counting transformer whose tokens are squares of the image, of several sizes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hrviewer.models.count_head import CountHead
from hrviewer.models.token_merging import MergedTokens

__all__ = [
    "CELLS",
    "PATCH",
    "TokenNetwork",
    "TokenTransformer",
    "extract_squares",
    "grouped_attention",
    "size_octave",
]

PATCH = 16
"""Side to which each square is resampled, in pixels."""
CELLS = 4
"""Rows and columns of a token's predictions."""
STRIDE = PATCH // CELLS
WIDTHS = 24, 40
"""Channels of the convolutions over a square, at strides 2 and 4."""
OCTAVES = 12
"""Octaves of the sinusoidal position features: the shortest period is two patches."""
SIZES = 4
"""Number of token sizes with a separate gain: 16, 32, 64 and 128 px; larger ones use the last."""
MAX_TOKENS = 4096
"""Maximum number of tokens per pass of inference on a whole image."""


class TokenNetwork(nn.Module):
    """Base class of networks that count in squares of several sizes, related by attention.

    Parameters
    ----------
    width
        Number of features of each of a token's 4 × 4 cells.
    classes, variance, unit
        As in `DensityUNet`.
    region
        Side of the regions within which tokens have positions, in pixels.
    """

    halo = 0

    def __init__(self, width: int, classes: int, region: int, variance: bool, unit: float) -> None:
        super().__init__()
        self.region, self.classes = region, classes
        self.head = CountHead(width, classes, variance, unit)
        # Logarithms: initially, a square twice as wide is predicted to hold twice as much.
        self.gains = nn.Parameter(math.log(2) * torch.arange(SIZES))

    def run_tokens(
        self,
        tokens: Tensor,
        boxes: Tensor,
        lengths: Sequence[int] | None = None,
        merge: float = 0.0,
    ) -> Tensor:
        """Predict the counts in each token, ``(n, k, 4, 4)``.

        Parameters
        ----------
        tokens
            ``(n, 3, p, p)``.
        boxes
            ``(n, 4)``: y, x, h, w in the network's pixels.
        lengths
            Number of tokens of each group; a single group by default.
        merge
            Fraction of tokens merged in every layer; see `MergedTokens`.
        """
        raise NotImplementedError

    def forward(self, images: Tensor, side: int = 2 * PATCH) -> Tensor:
        """Return the density ``(n, k, h/4, w/4)`` of images ``(n, 3, h, w)``.

        All tokens have one size, `side`, of which the images' sides are multiples; each region is
        a separate group.
        """
        n, (h, w) = len(images), images.shape[2:]
        rows, columns = h // side, w // side
        tokens = extract_squares(images, side).flatten(0, 2)
        ys, xs = (torch.arange(0, length, side, device=images.device) for length in (h, w))
        corners = torch.cartesian_prod(ys, xs).view(-1, 2)
        boxes = torch.cat((corners, torch.full_like(corners, side)), dim=1).repeat(n, 1)
        down, across = (-(-length // self.region) for length in (h, w))
        image = torch.arange(n, device=images.device).repeat_interleave(rows * columns)
        at = boxes[:, :2] // self.region
        region = (image * down + at[:, 0]) * across + at[:, 1]
        order = region.argsort(stable=True)
        predictions = torch.empty_like(tokens[:, :1, :CELLS, :CELLS]).repeat(
            1, self.classes * (1 + self.head.variance), 1, 1
        )
        start = 0
        for lengths in _group_batches(region.bincount().tolist()):
            part = order[start : (start := start + sum(lengths))]
            predictions[part] = self.run_tokens(tokens[part], boxes[part].float(), lengths).to(
                predictions.dtype
            )
        finer = side // PATCH
        grid = predictions.view(n, rows, columns, -1, CELLS, CELLS).permute(0, 3, 1, 4, 2, 5)
        cells = grid.reshape(n, -1, rows * CELLS, columns * CELLS) / finer**2
        return cells.repeat_interleave(finer, 2).repeat_interleave(finer, 3)

    @torch.no_grad()
    def rescale(self, counts: float | Sequence[float], variances: float = 1.0) -> None:
        """Multiply the densities, of each size or of all, and the variances by constants."""
        factors = torch.as_tensor(counts, dtype=self.gains.dtype, device=self.gains.device)
        self.gains.add_(factors.log())
        # The squared gains apply to the variances.
        self.head.rescale(1.0, variances)

    def _predict_counts(self, cells: Tensor, boxes: Tensor) -> Tensor:
        """Predict the counts in cells from their features, ``(n, width, 4, 4)``."""
        out = self.head(cells)
        size = size_octave(boxes).round().long().clamp(0, SIZES - 1)
        gain = self.gains[size].exp()[:, None, None, None]
        return torch.cat((out[:, : self.classes] * gain, out[:, self.classes :] * gain**2), dim=1)

    def _region_origins(self, boxes: Tensor, lengths: Sequence[int]) -> Tensor:
        """Return the corner of the region of each token's group, ``(n, 2)``."""
        # The smallest token lies in the region; larger ones may be context outside.
        groups = [boxes[i:j] for i, j in pairwise(accumulate(lengths, initial=0))]
        corners = [
            group[group[:, 2].argmin().view(1), :2].expand(len(group), 2) for group in groups
        ]
        return (torch.cat(corners) / self.region).floor() * self.region


class TokenTransformer(TokenNetwork):
    """A small vision transformer that counts in squares of 16, 32, 64 and 128 pixels.

    Every square is downsampled to 16 × 16 pixels. Its content, position and size are shared with
    the other tokens of its group by attention; from that and from its own pixels the counts in
    its 4 × 4 cells are predicted. Groups may be packed one after another: attention stays within
    each.

    Parameters
    ----------
    classes
        Number of classes to count.
    dim, depth, heads
        Width, number and attention heads of the blocks.
    region
        Side of the regions within which tokens have positions, in pixels.
    variance, unit
        As in `DensityUNet`.
    """

    def __init__(
        self,
        classes: int = 1,
        dim: int = 72,
        depth: int = 4,
        heads: int = 3,
        region: int = 512,
        variance: bool = False,
        unit: float = 1 / 16,
    ) -> None:
        half, quarter = WIDTHS
        super().__init__(quarter, classes, region, variance, unit)
        self.dim, self.depth = dim, depth
        self.stem = nn.Sequential(
            *_conv_gelu(3, half, 4, 2),
            *_conv_gelu(half, half),
            *_conv_gelu(half, quarter, 3, 2),
            *_conv_gelu(quarter, quarter),
        )
        self.embed = nn.Linear(quarter * CELLS**2, dim)
        self.place = nn.Sequential(
            nn.Linear(4 * OCTAVES + SIZES + 1, dim), nn.GELU(), nn.Linear(dim, dim)
        )
        self.blocks = nn.ModuleList(_TransformerBlock(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.spread = nn.Linear(dim, quarter * CELLS**2)

    def run_tokens(
        self,
        tokens: Tensor,
        boxes: Tensor,
        lengths: Sequence[int] | None = None,
        merge: float = 0.0,
    ) -> Tensor:
        """Predict the counts in each token; see `TokenNetwork`."""
        lengths = (len(tokens),) if lengths is None else tuple(lengths)
        own = self.stem(tokens)
        merged = self._embed_tokens(own, boxes, lengths)
        for block in self.blocks:
            merged = block(merged, merge)
        update = self.spread(self.norm(merged.unmerge())).view_as(own)
        return self._predict_counts(F.gelu(own + update), boxes)

    def attention(self, tokens: Tensor, boxes: Tensor, merge: float = 0.0) -> tuple[Tensor, Tensor]:
        """Return the attention between the tokens of one group, and which were merged.

        Parameters
        ----------
        tokens, boxes, merge
            As in `run_tokens`.

        Returns
        -------
        weights : Tensor
            ``(n, n)``: attention of token *i* to *j* in the last layer, mean of the heads. Tokens
            merged before share it evenly.
        owner : Tensor
            ``(n,)``: tokens with the same number were merged in the end.
        """
        lengths = (len(tokens),)
        merged = self._embed_tokens(self.stem(tokens), boxes, lengths)
        last: Any = self.blocks[-1]
        for block in self.blocks[:-1]:
            merged = block(merged, merge)
        q, k, _ = last.project(merged)
        weights = merged.attention(q, k, 1 / math.sqrt(q.shape[-1]))
        final: MergedTokens = last(merged, merge)
        return weights, final.owner

    def _embed_tokens(self, own: Tensor, boxes: Tensor, lengths: Sequence[int]) -> MergedTokens:
        """Return the tokens before the first layer, from their pixels and positions."""
        x = self.embed(own.flatten(1)) + self.place(self._position_features(boxes, lengths))
        return MergedTokens.from_tokens(x, lengths)

    def _position_features(self, boxes: Tensor, lengths: Sequence[int]) -> Tensor:
        """Return each token's size and position relative to its group's region, as features."""
        centres = (boxes[:, :2] + boxes[:, 2:] / 2 - self._region_origins(boxes, lengths)) / PATCH
        octaves = torch.arange(OCTAVES, device=boxes.device)
        angles = (centres[:, :, None] * (math.pi * 0.5**octaves)).flatten(1)
        size = size_octave(boxes)[:, None]
        size_weights = (1 - (size - torch.arange(SIZES, device=boxes.device)).abs()).clamp(min=0)
        return torch.cat((angles.sin(), angles.cos(), size_weights, size / SIZES), dim=1)


def _conv_gelu(inputs: int, outputs: int, side: int = 3, step: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, side, step, 1), nn.GELU()]


class _TransformerBlock(nn.Module):
    """Attention and a perceptron, with token merging in between."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.after = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.perceptron = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def project(self, tokens: MergedTokens) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, each ``(m, heads, e)``."""
        m, dim = tokens.x.shape
        parts = self.qkv(self.before(tokens.x)).view(m, 3, self.heads, dim // self.heads)
        q, k, v = parts.unbind(1)
        return q, k, v

    def forward(self, tokens: MergedTokens, merge: float) -> MergedTokens:
        q, k, v = self.project(tokens)
        attended = grouped_attention(q, k, v, tokens.lengths, tokens.bias).flatten(1)
        tokens = tokens.with_values(tokens.x + self.out(attended)).merge(k.mean(1), merge)
        return tokens.with_values(tokens.x + self.perceptron(self.after(tokens.x)))


def grouped_attention(
    q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int], bias: Tensor | None
) -> Tensor:
    """Apply attention within each group of tokens ``(m, heads, e)``."""
    groups, longest = len(lengths), max(lengths)
    if min(lengths) == longest:  # as one batch
        q, k, v = (x.view(groups, longest, *x.shape[1:]).transpose(1, 2) for x in (q, k, v))
        mask = None if bias is None else bias.to(q.dtype).view(groups, 1, 1, longest)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return attended.transpose(1, 2).flatten(0, 1)
    bounds = list(accumulate(lengths, initial=0))
    return torch.cat(
        [
            grouped_attention(q[i:j], k[i:j], v[i:j], (j - i,), None if bias is None else bias[i:j])
            for i, j in pairwise(bounds)
        ]
    )


def extract_squares(images: Tensor, side: int, patch: int = PATCH) -> Tensor:
    """Cut images ``(n, c, h, w)`` into squares, each box-filtered to ``patch × patch``.

    Returns
    -------
    Tensor
        ``(n, rows, columns, c, patch, patch)``.
    """
    small = F.avg_pool2d(images, side // patch)
    cut: Tensor = small.unfold(2, patch, patch).unfold(3, patch, patch)
    return cut.permute(0, 2, 3, 1, 4, 5)


def size_octave(boxes: Tensor) -> Tensor:
    """Return the octave of each token's size: 0 at full resolution, 1 if twice as wide."""
    return (boxes[:, 2] / PATCH).log2()


def _group_batches(lengths: Sequence[int]) -> list[list[int]]:
    """Batch groups of up to `MAX_TOKENS` tokens."""
    batches: list[list[int]] = [[]]
    for n in lengths:
        if batches[-1] and sum(batches[-1]) + n > MAX_TOKENS:
            batches.append([])
        batches[-1].append(n)
    return batches
