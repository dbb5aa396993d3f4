"""Networks that need no weights: the built-in roles, for where a pack has no scout.

Each takes RGB of 0–255 and gives one channel of saliency. What a pixel costs is stated, in
elementary operations, and counted as FLOPs like any network's.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import cache

import numpy as np

from hrviewer.errors import HrviewerError
from hrviewer.models.card import ModelCard, ModelInput, ModelOutput
from hrviewer.models.network import Floats, Network

__all__ = ["BUILTINS", "builtin"]

_VERSION = 1
"""Raised whenever an answer changes: it is these networks' only weight."""


class _BuiltinSaliency(Network):
    """A saliency computed with NumPy and SciPy.

    Attributes
    ----------
    per_pixel
        Operations for one input pixel.
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
    """The grey level itself, 0–255: three multiplications and two additions a pixel."""

    title = "How bright it is"
    flops_per_pixel = 5.0

    def saliency(self, rgb: Floats) -> Floats:
        """Return ITU-R 601 luma."""
        return _gray(rgb)


class Gradient(_BuiltinSaliency):
    """How steep the grey level is at a Gaussian scale of 1 px, in grey levels per pixel.

    Luma (5), two derivatives by two passes of nine taps each (72), their length (4), the mean (1).
    """

    title = "How much detail there is"
    output_stride = 4
    output_halo = 4  # the Gaussian is cut off at four sigma
    flops_per_pixel = 82.0

    def saliency(self, rgb: Floats) -> Floats:
        """Return the mean length of the gradient on blocks of 4 × 4."""
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

    title = "How varied it is"
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

    title = "Where there is tissue, or anything but background"
    output_stride = 4
    flops_per_pixel = 26.0

    def saliency(self, rgb: Floats) -> Floats:
        """Return the mean probability on blocks of 4 × 4."""
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
    """A logistic curve, written with tanh so that it cannot overflow."""
    return np.asarray((1 - np.tanh((x - middle) / (2 * width))) / 2, np.float32)


_CLASSES: dict[str, type[_BuiltinSaliency]] = {
    "@thumbnail": Thumbnail,
    "@gradient": Gradient,
    "@entropy": Entropy,
    "@foreground": Foreground,
}
BUILTINS: dict[str, str] = {role: kind.title for role, kind in _CLASSES.items()}
"""The built-in roles, each with a line for a person."""


@cache
def builtin(role: str) -> Network:
    """Return a built-in role's network; `UserError` where there is none of that name."""
    if role not in _CLASSES:
        raise HrviewerError(f"no role {role!r} is built in: choose {', '.join(_CLASSES)}")
    return _CLASSES[role](role)
