"""Networks that need no weights: the built-in roles, for where a pack has no scout.

Each takes RGB of 0–255 and gives one channel of saliency. What a pixel costs is stated, in
elementary operations, and counted as FLOPs like any network's.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import cache

import numpy as np

from hrviewer.errors import UserError
from hrviewer.models.card import Card, Input, Output
from hrviewer.models.network import Floats, Network

__all__ = ["BUILTINS", "builtin"]

_VERSION = 1
"""Raised whenever an answer changes: it is these networks' only weight."""


class _Classical(Network):
    """A saliency computed with NumPy and SciPy.

    Attributes
    ----------
    per_pixel
        Operations for one input pixel.
    """

    title: str
    stride_: int = 1
    halo_: int = 0
    per_pixel: float

    def __init__(self, name: str) -> None:
        card = Card(
            name=name,
            title=self.title,
            task="saliency",
            input=Input(channels="rgb", tile=512, multiple_of=self.stride_),
            output=Output(stride=self.stride_, halo=self.halo_, classes=("saliency",)),
            licence="BSD-3-Clause",
        )
        super().__init__(card, f"{name} {_VERSION}", f"numpy {np.__version__}", "cpu")
        self.elastic = self.stride_ == 1

    def _run(self, batch: Floats) -> Sequence[Floats]:
        return [np.asarray(self.look(batch)[:, None], np.float32)]

    def _count(self, h: int, w: int) -> float:
        return self.per_pixel * h * w

    @abstractmethod
    def look(self, rgb: Floats) -> Floats:
        """Return ``(n, h / stride, w / stride)`` for RGB ``(n, 3, h, w)``."""


class Thumbnail(_Classical):
    """The grey level itself, 0–255: three multiplications and two additions a pixel."""

    title = "How bright it is"
    per_pixel = 5.0

    def look(self, rgb: Floats) -> Floats:
        """Return ITU-R 601 luma."""
        return _gray(rgb)


class Gradient(_Classical):
    """How steep the grey level is at a Gaussian scale of 1 px, in grey levels per pixel.

    Luma (5), two derivatives by two passes of nine taps each (72), their length (4), the mean (1).
    """

    title = "How much detail there is"
    stride_ = 4
    halo_ = 4  # the Gaussian is cut off at four sigma
    per_pixel = 82.0

    def look(self, rgb: Floats) -> Floats:
        """Return the mean length of the gradient on blocks of 4 × 4."""
        from scipy.ndimage import gaussian_filter  # slow to import, and every command loads this

        gray = _gray(rgb)
        dy, dx = (
            gaussian_filter(gray, (0, 1, 1), order=order, mode="reflect", truncate=4)
            for order in ((0, 1, 0), (0, 0, 1))
        )
        return _pool(np.hypot(dy, dx), self.stride_)


class Entropy(_Classical):
    """Shannon entropy of the 256 grey levels in a block of 16 × 16, in bits: 0 to 8.

    Luma (5), the histogram (1), and p·log p of 256 levels over 256 pixels (3).
    """

    title = "How varied it is"
    stride_ = 16
    per_pixel = 9.0

    def look(self, rgb: Floats) -> Floats:
        """Return the entropy of each block."""
        s = self.stride_
        gray = np.clip(np.rint(_gray(rgb)), 0, 255).astype(np.int64)
        n, h, w = gray.shape
        blocks = gray.reshape(n, h // s, s, w // s, s).swapaxes(2, 3).reshape(-1, s * s)
        first = 256 * np.arange(len(blocks))[:, None]
        counts = np.bincount((blocks + first).ravel(), minlength=256 * len(blocks))
        p = counts.reshape(-1, 256) / (s * s)
        bits = -(p * np.log2(p, out=np.zeros_like(p), where=p > 0)).sum(axis=1) + 0.0
        return np.asarray(bits.reshape(n, h // s, w // s), np.float32)


class Foreground(_Classical):
    """How surely it is tissue, or not background: 0 to 1.

    Either the optical density (mean of −log10 of the transmitted light) is above 0.15, or the
    saturation (of HSV) above 0.07; each softly. Three logarithms and their mean (9), the
    saturation (6), two logistic curves and their union (10), the mean over the block (1).
    """

    title = "Where there is tissue, or anything but background"
    stride_ = 4
    per_pixel = 26.0

    def look(self, rgb: Floats) -> Floats:
        """Return the mean probability on blocks of 4 × 4."""
        x = np.clip(rgb, 1, 255)
        density = -np.log10(x / 255).mean(axis=1)
        high = x.max(axis=1)
        saturation = (high - x.min(axis=1)) / high
        light = _below(density, 0.15, 0.02) * _below(saturation, 0.07, 0.01)
        return _pool(1 - light, self.stride_)


def _gray(rgb: Floats) -> Floats:
    r, g, b = np.moveaxis(rgb, 1, 0)
    return np.asarray((r * 19595 + g * 38470 + b * 7471) / 65536, np.float32)


def _pool(x: Floats, s: int) -> Floats:
    n, h, w = x.shape
    return np.asarray(x.reshape(n, h // s, s, w // s, s).mean(axis=(2, 4)), np.float32)


def _below(x: Floats, middle: float, width: float) -> Floats:
    """A logistic curve, written with tanh so that it cannot overflow."""
    return np.asarray((1 - np.tanh((x - middle) / (2 * width))) / 2, np.float32)


_CLASSES: dict[str, type[_Classical]] = {
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
        raise UserError(f"no role {role!r} is built in: choose {', '.join(_CLASSES)}")
    return _CLASSES[role](role)
