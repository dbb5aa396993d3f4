"""Networks that weights in safetensors files name: ``{"name": "density-unet", "params": {…}}``.

A safetensors file holds numbers only, so that opening one never runs a stranger's code.
What the numbers are weights *of* is one of these.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hrviewer.models.backbones import timm_backbone
from hrviewer.models.count_head import CountHead
from hrviewer.models.timm_vit import TimmViT
from hrviewer.models.transformer import TokenTransformer

__all__ = [
    "ARCHITECTURES",
    "AttentionHead",
    "DensityEncoder",
    "DensityScanner",
    "DensityUNet",
    "EmbeddingClassifier",
    "EmbeddingHead",
    "LearnedResizer",
    "TilePolicy",
    "TimmViT",
    "TokenTransformer",
]


def _conv_block(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, batch normalisation (to be folded) and ReLU, with the border filled up."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class DensityUNet(nn.Module):
    """A small fully convolutional network that counts: its output sums to the number of things.

    The encoder goes down to a sixteenth of the input's side, the decoder back up to a quarter,
    adding what the encoder saw at each size. There is no global operation: what a pixel of the
    output depends on is bounded by `halo`.

    Parameters
    ----------
    classes
        Kinds of things to count, one channel of density each.
    widths
        Channels at strides 2, 4, 8 and 16.
    blocks
        Convolutions at strides 4, 8 and 16, after the one that shrinks.
    variance
        Whether it also says how sure it is: after the densities come as many channels with the
        variances of the counts in each cell, as logarithms inside.
    unit
        What the last layer's 1 stands for, as a count in a cell: about what is usual there.
    """

    def __init__(
        self,
        classes: int = 1,
        widths: Sequence[int] = (24, 48, 72, 96),
        blocks: Sequence[int] = (1, 2, 2),
        variance: bool = False,
        unit: float = 1 / 16,
    ) -> None:
        super().__init__()
        half, *wide = widths
        self.stem = _conv_block(3, half, 5, stride=2)
        self.down = nn.ModuleList(
            nn.Sequential(_conv_block(a, b, stride=2), *(_conv_block(b, b) for _ in range(n)))
            for (a, b), n in zip(pairwise(widths), blocks, strict=True)
        )
        self.lift = nn.ModuleList(_conv_block(b, a, 1) for a, b in pairwise(wide))
        self.up = nn.ModuleList(_conv_block(a, a) for a in wide[:-1])
        self.head = CountHead(wide[0], classes, variance, unit)
        # How far an output pixel sees: what each convolution reaches, and the corner of the coarse
        # pixel that it is read from on the way up.
        reach = 2 + 2 + 4 * blocks[0] + 4 + 8 * blocks[1] + 8 + 16 * blocks[2] + 8 + 8 + 4 + 4
        self.halo = -(-reach // 16) * 16
        """Input pixels around a tile with which it comes out as it would from the whole image."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the density ``(n, classes, h/4, w/4)`` of images ``(n, 3, h, w)``.

        With `variance` there are twice as many channels.
        """
        x = self.stem(x)
        seen = [x := down(x) for down in self.down]
        for skip, lift, up in zip(seen[-2::-1], self.lift[::-1], self.up[::-1], strict=True):
            x = up(skip + F.interpolate(lift(x), scale_factor=2.0, mode="nearest"))
        out: Tensor = self.head(x)
        return out

    def rescale(self, counts: float, variances: float = 1.0) -> None:
        """Multiply the densities, and the variances, that it gives by constants."""
        self.head.rescale(counts, variances)


def _valid_conv_block(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Sequential:
    """Convolution without padding, batch normalisation (to be folded) and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class DensityScanner(nn.Module):
    """A light network that counts, to be run over every pixel: some 1.3 kFLOP each.

    Its convolutions are valid ones, so that its output over a large picture is exactly what it
    says of each window of 56 × 56 pixels by itself, every 8 pixels (Lin et al., ScanNet, WACV
    2018). An output speaks of the 8 × 8 pixels in the middle of its window.

    Parameters
    ----------
    classes
        Kinds of things to count, one channel of density each.
    widths
        Channels at strides 2, 4 and 8.
    variance, unit
        As in `DensityUNet`.
    """

    margin = halo = 24

    def __init__(
        self,
        classes: int = 1,
        widths: Sequence[int] = (8, 16, 24),
        variance: bool = False,
        unit: float = 1 / 16,
    ) -> None:
        super().__init__()
        half, quarter, eighth = widths
        self.body = nn.Sequential(
            _valid_conv_block(3, half, 6, 2),
            _valid_conv_block(half, quarter, 4, 2),
            _valid_conv_block(quarter, quarter, 3),
            _valid_conv_block(quarter, eighth, 2, 2),
            _valid_conv_block(eighth, eighth, 3),
            _valid_conv_block(eighth, eighth, 3),
        )
        self.head = CountHead(eighth, classes, variance, unit)

    def forward(self, x: Tensor) -> Tensor:
        """Return the density ``(n, k, (h - 48) / 8, (w - 48) / 8)`` of images ``(n, 3, h, w)``."""
        out: Tensor = self.head(self.body(x))
        return out

    def rescale(self, counts: float, variances: float = 1.0) -> None:
        """Multiply the densities, and the variances, that it gives by constants."""
        self.head.rescale(counts, variances)


class EmbeddingHead(nn.Module):
    """What reads a grid of codes, and counts: a few hundred operations for each code.

    Parameters
    ----------
    codes
        Numbers in a code.
    classes
        Kinds of things to count, one channel of density each.
    widths
        Channels of the layers between; without any it is linear, but for what is below 0.
    size
        Side, in codes, of what its first layer looks at; codes see around themselves, so 1 will
        mostly do.
    variance, unit
        As in `DensityUNet`.
    """

    def __init__(
        self,
        embedding_dim: int,
        classes: int = 1,
        widths: Sequence[int] = (64, 64),
        size: int = 1,
        variance: bool = False,
        unit: float = 1.0,
    ) -> None:
        super().__init__()
        channels = (embedding_dim, *widths)
        sizes = (size, *[1] * len(widths))
        self.body = nn.Sequential(
            *(_conv_block(a, b, k) for (a, b), k in zip(pairwise(channels), sizes, strict=False))
        )
        self.head = CountHead(channels[-1], classes, variance, unit)
        self.halo = size // 2 if widths else 0

    def forward(self, x: Tensor) -> Tensor:
        """Return the counts ``(n, k, h, w)`` of what codes ``(n, d, h, w)`` stand for."""
        out: Tensor = self.head(self.body(x))
        return out

    def rescale(self, counts: float, variances: float = 1.0) -> None:
        """Multiply the counts, and the variances, that it gives by constants."""
        self.head.rescale(counts, variances)


class EmbeddingClassifier(nn.Module):
    """What says of each code of which class its place is: a linear function, in logits.

    Parameters
    ----------
    codes, classes
        Numbers in a code, and classes to tell apart.
    """

    halo = 0

    def __init__(self, embedding_dim: int, classes: int) -> None:
        super().__init__()
        self.head = nn.Conv2d(embedding_dim, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits ``(n, k, h, w)`` of codes ``(n, d, h, w)``."""
        out: Tensor = self.head(x)
        return out


class AttentionHead(nn.Module):
    """What says of a whole image of which class it is, and which places tell.

    Gated attention (Ilse, Tomczak and Welling, *Attention-based Deep Multiple Instance Learning*,
    ICML 2018) before a linear function, which may as well be asked at each place: the answer is
    the softmax of the average of what it says, weighted by the exponentials of the scores
    (`hrviewer.models.attention_pooling`).

    Parameters
    ----------
    codes, classes
        Numbers in a code, and classes to tell apart.
    width
        Numbers that a place's score is made of.
    """

    halo = 0

    def __init__(self, embedding_dim: int, classes: int, width: int = 8) -> None:
        super().__init__()
        self.head = nn.Conv2d(embedding_dim, classes, 1)
        self.projection = nn.Conv2d(embedding_dim, width, 1)
        self.gate = nn.Conv2d(embedding_dim, width, 1)
        self.score = nn.Conv2d(width, 1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits and a score ``(n, k + 1, h, w)`` of codes ``(n, d, h, w)``."""
        score = self.score(self.projection(x).tanh() * self.gate(x).sigmoid())
        return torch.cat((self.head(x), score), dim=1)


class DensityEncoder(nn.Module):
    """What a `DensityUNet` sees on its way down, in a few numbers for every 16 × 16 pixels.

    It goes down as `DensityUNet` does, so that it may begin with what such a network has learned,
    and ends in a code whose numbers have mean 0 and variance 1 over what it learned from.

    Parameters
    ----------
    codes
        Numbers in a code.
    classes
        Kinds of things that its own head counts.
    widths, blocks
        As in `DensityUNet`.

    Attributes
    ----------
    guide, picture
        What it is taught with, and no part of the answer: a head that counts, and a linear one
        that says what the pixels look like at a quarter of the size. What matters to neither is
        left out of the code.
    """

    def __init__(
        self,
        embedding_dim: int = 24,
        classes: int = 1,
        widths: Sequence[int] = (24, 48, 72, 48),
        blocks: Sequence[int] = (1, 2, 1),
    ) -> None:
        super().__init__()
        self.stem = _conv_block(3, widths[0], 5, stride=2)
        self.down = nn.ModuleList(
            nn.Sequential(_conv_block(a, b, stride=2), *(_conv_block(b, b) for _ in range(n)))
            for (a, b), n in zip(pairwise(widths), blocks, strict=True)
        )
        self.code = nn.Sequential(
            nn.Conv2d(widths[-1], embedding_dim, 1, bias=False),
            nn.BatchNorm2d(embedding_dim, affine=False),
        )
        self.guide = EmbeddingHead(embedding_dim, classes, variance=True)
        self.picture = nn.Conv2d(embedding_dim, 3 * 4 * 4, 1)
        reach = 2 + 2 + 4 * blocks[0] + 4 + 8 * blocks[1] + 8 + 16 * blocks[2]
        self.halo = -(-reach // 16) * 16
        """Input pixels around a tile with which its codes come out as from the whole image."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the codes ``(n, codes, h/16, w/16)`` of images ``(n, 3, h, w)``."""
        x = self.stem(x)
        for down in self.down:
            x = down(x)
        out: Tensor = self.code(x)
        return out

    def rescale(self, counts: float, variances: float = 1.0) -> None:
        """Multiply the counts, and the variances, that its own head gives by constants."""
        self.guide.rescale(counts, variances)


class LearnedResizer(nn.Module):
    """What makes a picture smaller so that a network still sees in it what it looks for.

    A plain resize, to which a small residual network adds what that would lose (Talebi and
    Milanfar, *Learning to Resize Images for Computer Vision Tasks*, ICCV 2021). There the network
    starts at full size; here its first layer shrinks at once, for every pixel would cost as much
    as the network it stands before.

    Parameters
    ----------
    shrink
        By how much sides become smaller.
    width, blocks
        Channels, and residual blocks, of the network beside.
    """

    def __init__(self, shrink: int = 2, width: int = 16, blocks: int = 1) -> None:
        super().__init__()
        self.shrink = shrink
        self.first = _conv_block(3, width, 2 * shrink + 1, stride=shrink)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                _conv_block(width, width),
                nn.Conv2d(width, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
            )
            for _ in range(blocks)
        )
        self.last = nn.Conv2d(width, 3, 3, padding=1)
        # It begins as the plain resize.
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]
        self.halo = shrink * (2 + 2 * blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Return pictures ``(n, 3, h/shrink, w/shrink)`` of pictures ``(n, 3, h, w)``."""
        seen = self.first(x)
        for block in self.blocks:
            seen = seen + block(seen)
        # Of a shrink of 2 this is the bilinear resize; of more it leaves out no pixel.
        out: Tensor = F.avg_pool2d(x, self.shrink) + self.last(seen)
        return out


class TilePolicy(nn.Module):
    """A small network that says of each tile of a shrunk picture whether to look closer.

    Parameters
    ----------
    widths
        Channels at strides 2, 4, 8 and 16.
    chance
        How likely it is, before it has learned anything, to look at a tile.
    """

    halo = 32

    def __init__(
        self, widths: Sequence[int] = (16, 32, 48, 64), initial_probability: float = 0.2
    ) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _conv_block(3, widths[0], 5, stride=2),
            *(_conv_block(a, b, stride=2) for a, b in pairwise(widths)),
            _conv_block(widths[-1], widths[-1]),
        )
        self.head = nn.Conv2d(widths[-1], 1, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.constant_(self.head.bias, math.log(initial_probability / (1 - initial_probability)))  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(n, 1, h/16, w/16)`` of images ``(n, 3, h, w)``."""
        out: Tensor = self.head(self.body(x))
        return out


ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "attention-head": AttentionHead,
    "embedding-classifier": EmbeddingClassifier,
    "embedding-head": EmbeddingHead,
    "density-encoder": DensityEncoder,
    "density-scanner": DensityScanner,
    "density-unet": DensityUNet,
    "learned-resizer": LearnedResizer,
    "tile-policy": TilePolicy,
    "timm": timm_backbone,
    "timm-vit": TimmViT,
    "token-transformer": TokenTransformer,
}
"""What builds each architecture from a card's ``params``."""
