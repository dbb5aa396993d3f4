"""Built-in architectures, named by cards: ``{"name": "density-unet", "params": {…}}``.

A safetensors file holds numbers only, so opening one never runs foreign code. The card names one
of these architectures for them.
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
    """Return a padded convolution, batch normalisation (to be folded) and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class DensityUNet(nn.Module):
    """A small fully convolutional counting network: its density sums to the number of objects.

    The encoder goes down to a sixteenth of the input's side, the decoder back up to a quarter,
    adding the encoder's features at each size. There is no global operation: what a pixel of the
    output depends on is bounded by `halo`.

    Parameters
    ----------
    classes
        Number of classes to count, one density channel each.
    widths
        Channels at strides 2, 4, 8 and 16.
    blocks
        Number of convolutions at strides 4, 8 and 16, after the strided one.
    variance
        Whether to predict the uncertainty too: the densities are followed by as many channels of
        variances of the counts in each cell (logarithms internally).
    unit
        Count in a cell that corresponds to 1 in the last layer: about the usual count.
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
        # Radius of the receptive field: that of each convolution, plus the corner of the coarse
        # pixel that is upsampled.
        reach = 2 + 2 + 4 * blocks[0] + 4 + 8 * blocks[1] + 8 + 16 * blocks[2] + 8 + 8 + 4 + 4
        self.halo = -(-reach // 16) * 16
        """Input pixels around a tile with which predictions equal those from the whole image."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the density ``(n, classes, h/4, w/4)`` of images ``(n, 3, h, w)``.

        With `variance` there are twice as many channels.
        """
        x = self.stem(x)
        features = [x := down(x) for down in self.down]
        for skip, lift, up in zip(features[-2::-1], self.lift[::-1], self.up[::-1], strict=True):
            x = up(skip + F.interpolate(lift(x), scale_factor=2.0, mode="nearest"))
        out: Tensor = self.head(x)
        return out

    def rescale(self, counts: float, variances: float = 1.0) -> None:
        """Multiply the predicted densities and variances by constants."""
        self.head.rescale(counts, variances)


def _valid_conv_block(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Sequential:
    """Return an unpadded convolution, batch normalisation (to be folded) and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class DensityScanner(nn.Module):
    """A light counting network for exhaustive inference: about 1.3 kFLOP per pixel.

    Its convolutions are unpadded, so that its output over a large image equals its predictions for
    each window of 56 × 56 pixels alone, every 8 pixels (Lin et al., ScanNet, WACV 2018). A
    prediction covers the central 8 × 8 pixels of its window.

    Parameters
    ----------
    classes
        Number of classes to count, one density channel each.
    widths
        Channels at strides 2, 4 and 8.
    variance, unit
        As in `DensityUNet`.
    logits
        Whether the output is a logit for each class instead of a density.
    """

    margin = halo = 24

    def __init__(
        self,
        classes: int = 1,
        widths: Sequence[int] = (8, 16, 24),
        variance: bool = False,
        unit: float = 1 / 16,
        logits: bool = False,
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
        self.head = (
            nn.Conv2d(eighth, classes, 1) if logits else CountHead(eighth, classes, variance, unit)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the density ``(n, k, (h - 48) / 8, (w - 48) / 8)`` of images ``(n, 3, h, w)``."""
        out: Tensor = self.head(self.body(x))
        return out

    def rescale(self, counts: float, variances: float = 1.0) -> None:
        """Multiply the predicted densities and variances by constants."""
        assert isinstance(self.head, CountHead), "logits have no scale"
        self.head.rescale(counts, variances)


class EmbeddingHead(nn.Module):
    """A counting head on a grid of embeddings: a few hundred operations per embedding.

    Parameters
    ----------
    embedding_dim
        Size of an embedding.
    classes
        Number of classes to count, one density channel each.
    widths
        Channels of the hidden layers; without any it is linear, clipped at 0.
    size
        Kernel size of the first layer, in embeddings; these have context already, so 1 usually
        suffices.
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
        """Return the counts ``(n, k, h, w)`` for embeddings ``(n, d, h, w)``."""
        out: Tensor = self.head(self.body(x))
        return out

    def rescale(self, counts: float, variances: float = 1.0) -> None:
        """Multiply the predicted counts and variances by constants."""
        self.head.rescale(counts, variances)


class EmbeddingClassifier(nn.Module):
    """A linear classifier of each embedding of a grid; its outputs are logits.

    Parameters
    ----------
    embedding_dim, classes
        Size of an embedding, and number of classes.
    """

    halo = 0

    def __init__(self, embedding_dim: int, classes: int) -> None:
        super().__init__()
        self.head = nn.Conv2d(embedding_dim, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits ``(n, k, h, w)`` for embeddings ``(n, d, h, w)``."""
        out: Tensor = self.head(x)
        return out


class AttentionHead(nn.Module):
    """A classifier of whole images by attention over their embeddings.

    Gated attention (Ilse, Tomczak and Welling, *Attention-based Deep Multiple Instance Learning*,
    ICML 2018) before a linear function, which can equally be applied at each place: the prediction
    is the softmax of its average, weighted by the exponentials of the scores
    (`hrviewer.models.attention_pooling`).

    Parameters
    ----------
    embedding_dim, classes
        Size of an embedding, and number of classes.
    width
        Number of hidden features of the attention score.
    """

    halo = 0

    def __init__(self, embedding_dim: int, classes: int, width: int = 8) -> None:
        super().__init__()
        self.head = nn.Conv2d(embedding_dim, classes, 1)
        self.projection = nn.Conv2d(embedding_dim, width, 1)
        self.gate = nn.Conv2d(embedding_dim, width, 1)
        self.score = nn.Conv2d(width, 1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits and a score ``(n, k + 1, h, w)`` for embeddings ``(n, d, h, w)``."""
        score = self.score(self.projection(x).tanh() * self.gate(x).sigmoid())
        return torch.cat((self.head(x), score), dim=1)


class DensityEncoder(nn.Module):
    """The encoder of a `DensityUNet`, with one small embedding per 16 × 16 pixels.

    Its layers are those of `DensityUNet`, so that it can be initialised from a trained one. It ends
    in an embedding whose values have mean 0 and variance 1 over the training data.

    Parameters
    ----------
    embedding_dim
        Size of an embedding.
    classes
        Number of classes that its auxiliary head counts.
    widths, blocks
        As in `DensityUNet`.

    Attributes
    ----------
    guide, picture
        Auxiliary heads for training only: one counts, a linear one reconstructs the pixels at a
        quarter of the size. The embedding keeps only what these need.
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
        """Input pixels around a tile with which embeddings equal those from the whole image."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the embeddings ``(n, embedding_dim, h/16, w/16)`` of images ``(n, 3, h, w)``."""
        x = self.stem(x)
        for down in self.down:
            x = down(x)
        out: Tensor = self.code(x)
        return out

    def rescale(self, counts: float, variances: float = 1.0) -> None:
        """Multiply the counts and variances of its auxiliary head by constants."""
        self.guide.rescale(counts, variances)


class LearnedResizer(nn.Module):
    """Learned downsampling that preserves what the next network needs.

    A plain resize, to which a small residual network adds what would be lost (Talebi and Milanfar,
    *Learning to Resize Images for Computer Vision Tasks*, ICCV 2021). There the network starts at
    full size; here its first layer downsamples, since full resolution would cost as much as the
    network that follows.

    Parameters
    ----------
    shrink
        Downsampling factor per side.
    width, blocks
        Channels and number of blocks of the residual network.
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
        # Initially it equals the plain resize.
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]
        self.halo = shrink * (2 + 2 * blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Downsample images ``(n, 3, h, w)`` to ``(n, 3, h/shrink, w/shrink)``."""
        features = self.first(x)
        for block in self.blocks:
            features = features + block(features)
        # For a factor of 2 this equals the bilinear resize; for larger ones every pixel counts.
        out: Tensor = F.avg_pool2d(x, self.shrink) + self.last(features)
        return out


class TilePolicy(nn.Module):
    """A small policy network that predicts which tiles of a downsampled image to process.

    Parameters
    ----------
    widths
        Channels at strides 2, 4, 8 and 16.
    initial_probability
        Initial probability of processing a tile.
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
"""Architectures by name; each is built from a card's ``params``."""
