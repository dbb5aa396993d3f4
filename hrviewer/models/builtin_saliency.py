"""Built-in saliency: models without weights, used where a bundle has no scout.

Each takes RGB of 0–255 and predicts one channel of saliency. Its cost per pixel is stated in
elementary operations, and counted as FLOPs like any network's.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import cache

import numpy as np

from hrviewer.errors import ModelError
from hrviewer.models.card import ModelCard, ModelInput, ModelOutput
from hrviewer.models.network import Floats, Network

__all__ = ["BUILTINS", "Foreground", "builtin"]

_VERSION = 1
"""Incremented whenever a prediction changes: it stands for the weights in the digest."""


class _BuiltinSaliency(Network):
    """Saliency computed with NumPy and SciPy.

    Attributes
    ----------
    per_pixel
        Operations per input pixel.
    """

    title: str
    output_stride: int = 1
    output_halo: int = 0
    flops_per_pixel: float

    def __init__(self, name: str) -> None:
        card = ModelCard(
            name=name,
            title=self.title,
            task="saliency",
            input=ModelInput(channels="rgb", tile=512, multiple_of=self.output_stride),
            output=ModelOutput(
                stride=self.output_stride, halo=self.output_halo, classes=("saliency",)
            ),
            licence="BSD-3-Clause",
        )
        super().__init__(card, f"{name} {_VERSION}", f"numpy {np.__version__}", "cpu")
        self.accepts_any_size = self.output_stride == 1

    def _run(self, batch: Floats) -> Sequence[Floats]:
        return [np.asarray(self.saliency(batch)[:, None], np.float32)]

    def _count(self, h: int, w: int) -> float:
        return self.flops_per_pixel * h * w

    @abstractmethod
    def saliency(self, rgb: Floats) -> Floats:
        """Return ``(n, h / stride, w / stride)`` for RGB ``(n, 3, h, w)``."""


class Thumbnail(_BuiltinSaliency):
    """Grey level, 0–255: three multiplications and two additions per pixel."""

    title = "Brightness"
    flops_per_pixel = 5.0

    def saliency(self, rgb: Floats) -> Floats:
        """Return ITU-R 601 luma."""
        return _gray(rgb)


class Gradient(_BuiltinSaliency):
    """Gradient magnitude of the grey level at a Gaussian scale of 1 px, in grey levels per pixel.

    Luma (5), two derivatives by two passes of nine taps each (72), their length (4), the mean (1).
    """

    title = "Amount of detail (gradient)"
    output_stride = 4
    output_halo = 4  # the Gaussian is cut off at four sigma
    flops_per_pixel = 82.0

    def saliency(self, rgb: Floats) -> Floats:
        """Return the mean gradient magnitude of blocks of 4 × 4."""
        from scipy.ndimage import gaussian_filter  # slow to import, and every command loads this

        gray = _gray(rgb)
        dy, dx = (
            gaussian_filter(gray, (0, 1, 1), order=order, mode="reflect", truncate=4)
            for order in ((0, 1, 0), (0, 0, 1))
        )
        return _block_mean(np.hypot(dy, dx), self.output_stride)


class Entropy(_BuiltinSaliency):
    """Shannon entropy of the 256 grey levels in a block of 16 × 16, in bits: 0 to 8.

    Luma (5), the histogram (1), and p·log p of 256 levels over 256 pixels (3).
    """

    title = "Variety of grey levels (entropy)"
    output_stride = 16
    flops_per_pixel = 9.0

    def saliency(self, rgb: Floats) -> Floats:
        """Return the entropy of each block."""
        s = self.output_stride
        gray = np.clip(np.rint(_gray(rgb)), 0, 255).astype(np.int64)
        n, h, w = gray.shape
        blocks = gray.reshape(n, h // s, s, w // s, s).swapaxes(2, 3).reshape(-1, s * s)
        first = 256 * np.arange(len(blocks))[:, None]
        counts = np.bincount((blocks + first).ravel(), minlength=256 * len(blocks))
        p = counts.reshape(-1, 256) / (s * s)
        bits = -(p * np.log2(p, out=np.zeros_like(p), where=p > 0)).sum(axis=1) + 0.0
        return np.asarray(bits.reshape(n, h // s, w // s), np.float32)


class Foreground(_BuiltinSaliency):
    """How surely it is tissue, or not background: 0 to 1.

    Either the optical density (mean of −log10 of the transmitted light) is above 0.15, or the
    saturation (of HSV) above 0.07; each softly. Three logarithms and their mean (9), the
    saturation (6), two logistic curves and their union (10), the mean over the block (1).
    """

    title = "Tissue, or other foreground"
    output_stride = 4
    flops_per_pixel = 26.0

    def saliency(self, rgb: Floats) -> Floats:
        """Return the mean probability of blocks of 4 × 4."""
        x = np.clip(rgb, 1, 255)
        density = -np.log10(x / 255).mean(axis=1)
        high = x.max(axis=1)
        saturation = (high - x.min(axis=1)) / high
        light = _logistic_below(density, 0.15, 0.02) * _logistic_below(saturation, 0.07, 0.01)
        return _block_mean(1 - light, self.output_stride)


def _gray(rgb: Floats) -> Floats:
    r, g, b = np.moveaxis(rgb, 1, 0)
    return np.asarray((r * 19595 + g * 38470 + b * 7471) / 65536, np.float32)


def _block_mean(x: Floats, s: int) -> Floats:
    n, h, w = x.shape
    return np.asarray(x.reshape(n, h // s, s, w // s, s).mean(axis=(2, 4)), np.float32)


def _logistic_below(x: Floats, middle: float, width: float) -> Floats:
    """Return a falling logistic curve, written with tanh so that it cannot overflow."""
    return np.asarray((1 - np.tanh((x - middle) / (2 * width))) / 2, np.float32)


_CLASSES: dict[str, type[_BuiltinSaliency]] = {
    "@thumbnail": Thumbnail,
    "@gradient": Gradient,
    "@entropy": Entropy,
    "@foreground": Foreground,
}
BUILTINS: dict[str, str] = {role: kind.title for role, kind in _CLASSES.items()}
"""The built-in roles, each with a title."""


@cache
def builtin(role: str) -> Network:
    """Return the network of a built-in role; raise `ModelError` for an unknown name."""
    if role not in _CLASSES:
        raise ModelError(f"there is no built-in role {role!r}: choose one of {', '.join(_CLASSES)}")
    return _CLASSES[role](role)
