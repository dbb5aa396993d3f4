"""Plain vision transformers of timm, with tokens of several sizes and token merging."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hrviewer.models.backbones import create_timm_model
from hrviewer.models.token_merging import MergedTokens
from hrviewer.models.transformer import CELLS, PATCH, TokenNetwork, grouped_attention, size_octave

__all__ = ["TimmViT"]


class TimmViT(TokenNetwork):
    """A plain vision transformer of timm that counts in squares of 16 pixels and more.

    The blocks are timm's. Position embeddings, learned on a grid of one size, are resampled to a
    region by bicubic interpolation, as timm does for larger images; a larger token has the mean of
    those that it covers, a context token that of the nearest. Class and register tokens precede
    each group, and are never merged. A new layer predicts the counts in a token's 4 × 4 cells.

    Nothing is downloaded: weights come from a file, with timm's names after ``vit.``. Position
    embeddings of another grid are interpolated.

    Parameters
    ----------
    name
        timm's name, for example ``vit_small_patch16_224``.
    width
        Number of features of a cell.
    classes, region, variance, unit
        As in `TokenNetwork`.
    **options
        Other arguments of ``timm.create_model``, for example ``depth`` or ``img_size``.

    Raises
    ------
    ModelError
        If timm is missing or has no such model, or the options would download weights.
    ValueError
        If the model is not a plain vision transformer with learned position embeddings.
    """

    def __init__(
        self,
        name: str,
        width: int = 32,
        classes: int = 1,
        region: int = 512,
        variance: bool = False,
        unit: float = 1 / 16,
        **options: Any,
    ) -> None:
        super().__init__(width, classes, region, variance, unit)
        self.vit = _create_plain_vit(name, options)
        self.spread = nn.Linear(self.vit.embed_dim, width * CELLS**2)
        self.register_load_state_dict_pre_hook(_resize_position_embeddings)  # type: ignore[no-untyped-call]

    def run_tokens(
        self,
        tokens: Tensor,
        boxes: Tensor,
        lengths: Sequence[int] | None = None,
        merge: float = 0.0,
    ) -> Tensor:
        """Predict the counts in each token; see `TokenNetwork`."""
        lengths = (len(tokens),) if lengths is None else tuple(lengths)
        merged = self._embed_tokens(tokens, boxes, lengths)
        for block in self.vit.blocks:
            merged = self._run_block(block, merged, merge)
        features = self.spread(self.vit.norm(self._without_prefix(merged.unmerge(), lengths)))
        return self._predict_counts(F.gelu(features).view(len(tokens), -1, CELLS, CELLS), boxes)

    def attention(self, tokens: Tensor, boxes: Tensor, merge: float = 0.0) -> tuple[Tensor, Tensor]:
        """Return the attention between the tokens of one group, and which were merged.

        See `TokenTransformer.attention`; class and register tokens are left out.
        """
        merged = self._embed_tokens(tokens, boxes, (len(tokens),))
        for block in self.vit.blocks[:-1]:
            merged = self._run_block(block, merged, merge)
        last = self.vit.blocks[-1]
        q, k, _ = _project(last, merged)
        first = self.vit.num_prefix_tokens
        weights = merged.attention(q, k, last.attn.scale)[first:, first:]
        return weights, self._run_block(last, merged, merge).owner[first:]

    def _embed_tokens(self, tokens: Tensor, boxes: Tensor, lengths: Sequence[int]) -> MergedTokens:
        """Return the tokens before the first layer, with prefix tokens before each group."""
        vit = self.vit
        embed = vit.patch_embed
        x = embed.norm(embed.proj(tokens).flatten(1)) + self._position_embeddings(boxes, lengths)
        prefix = [part[0] for part in (vit.cls_token, vit.reg_token) if part is not None]
        if prefix:
            first = torch.cat(prefix)
            if not vit.no_embed_class:
                first = first + vit.pos_embed[0, : len(first)]
            x = torch.cat([part for own in x.split(list(lengths)) for part in (first, own)])
        prefix_count = vit.num_prefix_tokens
        return MergedTokens.from_tokens(vit.norm_pre(x), [n + prefix_count for n in lengths])

    def _position_embeddings(self, boxes: Tensor, lengths: Sequence[int]) -> Tensor:
        """Return the position embeddings of tokens in their region, ``(n, dim)``."""
        vit = self.vit
        learned = vit.pos_embed[:, 0 if vit.no_embed_class else vit.num_prefix_tokens :]
        down, across = vit.patch_embed.grid_size
        grid = learned.transpose(1, 2).view(1, -1, down, across)
        n = self.region // PATCH
        finest = F.interpolate(grid, size=(n, n), mode="bicubic", antialias=True)
        sizes = int(math.log2(n)) + 1
        tables = [F.avg_pool2d(finest, 2**i)[0].flatten(1).T for i in range(sizes)]
        starts = torch.tensor(
            list(accumulate((len(table) for table in tables[:-1]), initial=0)), device=boxes.device
        )
        size = size_octave(boxes).round().long().clamp(0, sizes - 1)
        side = 2**size
        middle = (boxes[:, :2] + boxes[:, 2:] / 2 - self._region_origins(boxes, lengths)) / PATCH
        at = (middle / side[:, None]).floor().long().clamp(min=0)
        at = torch.minimum(at, (n // side - 1)[:, None])
        return torch.cat(tables)[starts[size] + at[:, 0] * (n // side) + at[:, 1]]

    def _run_block(self, block: Any, tokens: MergedTokens, merge: float) -> MergedTokens:
        """Apply a block, with token merging between its two halves."""
        q, k, v = _project(block, tokens)
        attended = grouped_attention(q, k, v, tokens.lengths, tokens.bias).flatten(1)
        attended = block.ls1(block.attn.proj(block.attn.norm(attended)))
        tokens = tokens.with_values(tokens.x + attended).merge(
            k.mean(1), merge, self.vit.num_prefix_tokens
        )
        return tokens.with_values(tokens.x + block.ls2(block.mlp(block.norm2(tokens.x))))

    def _without_prefix(self, x: Tensor, lengths: Sequence[int]) -> Tensor:
        """Return the groups without prefix tokens."""
        first = self.vit.num_prefix_tokens
        bounds = accumulate((n + first for n in lengths), initial=0)
        return torch.cat([x[i + first : j] for i, j in pairwise(bounds)])


def _project(block: Any, tokens: MergedTokens) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values, each ``(m, heads, e)``."""
    attn = block.attn
    parts = attn.qkv(block.norm1(tokens.x)).view(len(tokens.x), 3, attn.num_heads, -1)
    q, k, v = parts.unbind(1)
    return attn.q_norm(q), attn.k_norm(k), v


def _resize_position_embeddings(
    network: TimmViT, state: dict[str, Any], prefix: str, *rest: object
) -> None:
    """Resample position embeddings of another grid to this network's."""
    vit, name = network.vit, f"{prefix}vit.pos_embed"
    found = state.get(name)
    if found is None or found.shape == vit.pos_embed.shape:
        return
    from timm.layers import resample_abs_pos_embed

    first = 0 if vit.no_embed_class else vit.num_prefix_tokens
    state[name] = resample_abs_pos_embed(found, vit.patch_embed.grid_size, num_prefix_tokens=first)


def _create_plain_vit(name: str, options: dict[str, Any]) -> Any:
    """Return an untrained transformer of timm; raise `ValueError` if its parts are not plain."""
    vit: Any = create_timm_model(name, {"num_classes": 0} | options)
    from timm.layers import Attention
    from timm.models.vision_transformer import Block, VisionTransformer

    plain = (
        type(vit) is VisionTransformer
        and vit.pos_embed is not None
        and all(
            type(block) is Block and type(block.attn) is Attention and block.attn.gate is None
            for block in vit.blocks
        )
    )
    if not plain:
        raise ValueError(
            f"{name} is not a plain vision transformer with learned position embeddings"
        )
    return vit
