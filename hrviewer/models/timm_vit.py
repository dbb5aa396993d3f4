"""Plain vision transformers of timm, whose tokens may have any size and be merged."""

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

    Its blocks are timm's own. Its positions, learned on a grid of one size, are stretched over a
    region by bicubic interpolation, as timm does for larger images; a larger token has the mean
    of those that it covers, one of the context that of the nearest. Class and register tokens
    come before each group, and are never merged. A new layer tells what a token's 4 × 4 cells
    hold.

    Nothing is downloaded: weights come from a file, with timm's names behind ``vit.``. Positions
    of another grid in it are interpolated.

    Parameters
    ----------
    name
        As timm has it, ``vit_small_patch16_224``.
    width
        Channels of what is known of a cell.
    classes, region, variance, unit
        As in `TokenNetwork`.
    options
        What else timm's own function takes, as ``depth`` or ``img_size``.

    Raises
    ------
    UserError
        If timm is missing or has no such model, or would be told to fetch weights.
    ValueError
        If that is no plain vision transformer with positions of its own.
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
        """Return how much each token holds; see `TokenNetwork`."""
        lengths = (len(tokens),) if lengths is None else tuple(lengths)
        joined = self._embed_tokens(tokens, boxes, lengths)
        for block in self.vit.blocks:
            joined = self._run_block(block, joined, merge)
        told = self.spread(self.vit.norm(self._without_prefix(joined.unmerge(), lengths)))
        return self._predict_counts(F.gelu(told).view(len(tokens), -1, CELLS, CELLS), boxes)

    def attention(self, tokens: Tensor, boxes: Tensor, merge: float = 0.0) -> tuple[Tensor, Tensor]:
        """Return where each token of one group looks in the last layer, and what became one.

        See `TokenTransformer.attend`; what is taken from class and register tokens is left out.
        """
        joined = self._embed_tokens(tokens, boxes, (len(tokens),))
        for block in self.vit.blocks[:-1]:
            joined = self._run_block(block, joined, merge)
        last = self.vit.blocks[-1]
        q, k, _ = _project(last, joined)
        first = self.vit.num_prefix_tokens
        taken = joined.attention(q, k, last.attn.scale)[first:, first:]
        return taken, self._run_block(last, joined, merge).owner[first:]

    def _embed_tokens(self, tokens: Tensor, boxes: Tensor, lengths: Sequence[int]) -> MergedTokens:
        """Return tokens before the first layer, those of the class before each group's own."""
        vit = self.vit
        embed = vit.patch_embed
        x = embed.norm(embed.proj(tokens).flatten(1)) + self._position_embeddings(boxes, lengths)
        before = [part[0] for part in (vit.cls_token, vit.reg_token) if part is not None]
        if before:
            first = torch.cat(before)
            if not vit.no_embed_class:
                first = first + vit.pos_embed[0, : len(first)]
            x = torch.cat([part for own in x.split(list(lengths)) for part in (first, own)])
        more = vit.num_prefix_tokens
        return MergedTokens.from_tokens(vit.norm_pre(x), [n + more for n in lengths])

    def _position_embeddings(self, boxes: Tensor, lengths: Sequence[int]) -> Tensor:
        """Return what tells tokens where they lie in their region, ``(n, dim)``."""
        vit = self.vit
        known = vit.pos_embed[:, 0 if vit.no_embed_class else vit.num_prefix_tokens :]
        down, across = vit.patch_embed.grid_size
        grid = known.transpose(1, 2).view(1, -1, down, across)
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
        """Return what becomes of tokens in a block, with merging between its two halves."""
        q, k, v = _project(block, tokens)
        seen = grouped_attention(q, k, v, tokens.lengths, tokens.bias).flatten(1)
        seen = block.ls1(block.attn.proj(block.attn.norm(seen)))
        tokens = tokens.with_values(tokens.x + seen).merge(
            k.mean(1), merge, self.vit.num_prefix_tokens
        )
        return tokens.with_values(tokens.x + block.ls2(block.mlp(block.norm2(tokens.x))))

    def _without_prefix(self, x: Tensor, lengths: Sequence[int]) -> Tensor:
        """Return groups without the tokens of the class."""
        first = self.vit.num_prefix_tokens
        bounds = accumulate((n + first for n in lengths), initial=0)
        return torch.cat([x[i + first : j] for i, j in pairwise(bounds)])


def _project(block: Any, tokens: MergedTokens) -> tuple[Tensor, Tensor, Tensor]:
    """Return what tokens ask for, offer and tell, each ``(m, heads, e)``."""
    attn = block.attn
    parts = attn.qkv(block.norm1(tokens.x)).view(len(tokens.x), 3, attn.num_heads, -1)
    q, k, v = parts.unbind(1)
    return attn.q_norm(q), attn.k_norm(k), v


def _resize_position_embeddings(
    network: TimmViT, state: dict[str, Any], prefix: str, *rest: object
) -> None:
    """Stretch positions of another grid to this network's."""
    vit, name = network.vit, f"{prefix}vit.pos_embed"
    found = state.get(name)
    if found is None or found.shape == vit.pos_embed.shape:
        return
    from timm.layers import resample_abs_pos_embed

    first = 0 if vit.no_embed_class else vit.num_prefix_tokens
    state[name] = resample_abs_pos_embed(found, vit.patch_embed.grid_size, num_prefix_tokens=first)


def _create_plain_vit(name: str, options: dict[str, Any]) -> Any:
    """Return timm's transformer, untaught; ValueError if it has other parts than these."""
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
        raise ValueError(f"{name} is no plain vision transformer with positions of its own")
    return vit
