"""What attention costs as an image grows, by who attends to whom: in closed form.

All tokens of an image among themselves (*quadratic*: with the square of its area), those of each
region among themselves (*windowed*: with its area), and those with ever coarser squares around
their region, to the image's ends (*nested*: with its area, times the logarithm of its side).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from hrviewer.strategies.transformer import REGION

__all__ = ["SIDES", "AttentionCost"]

SIDES = tuple(REGION << i for i in range(9))
"""Of the images: up to 17 gigapixels."""

TOLERANCE = 1e-9


@dataclass(frozen=True)
class AttentionCost:
    """FLOPs of a transformer over a square image, on a uniform grid of its own patches.

    Parameters
    ----------
    patch : int
        Side of a token, in pixels.
    constant, per_token, per_pair : float
        Of a joint input of n tokens: ``constant + per_token · n + per_pair · n²``.
    """

    patch: int
    constant: float
    per_token: float
    per_pair: float

    @classmethod
    def from_counts(cls, counts: Mapping[int, float], patch: int) -> AttentionCost | None:
        """Return the parabola through what was counted of four or more joint inputs.

        None if they lie on none, as where tokens are filled up to whole windows.
        """
        (a, b, c, *_), values = counts, counts
        low, high = ((values[y] - values[x]) / (y - x) for x, y in ((a, b), (b, c)))
        bend = (high - low) / (c - a)
        slope = low - bend * (a + b)
        found = cls(patch, values[a] - slope * a - bend * a**2, slope, bend)
        off = max(abs(found.joint_input(n) / value - 1) for n, value in counts.items())
        return found if off < TOLERANCE else None

    @property
    def by_pattern(self) -> dict[str, Callable[[int], float]]:
        """Who may attend to whom, and what that costs at a side."""
        return {"quadratic": self.quadratic, "windowed": self.windowed, "nested": self.nested}

    def joint_input(self, tokens: float) -> float:
        """Return what one joint input of `tokens` tokens costs."""
        return self.constant + self.per_token * tokens + self.per_pair * tokens**2

    def quadratic(self, side: int) -> float:
        """Return what it costs to let all tokens of an image attend to each other."""
        return self.joint_input((side / self.patch) ** 2)

    def windowed(self, side: int) -> float:
        """Return what it costs to let those of each region attend to each other."""
        return (side / REGION) ** 2 * self.joint_input((REGION / self.patch) ** 2)

    def nested(self, side: int) -> float:
        """Return the same with squares around each region, as `transformer` asks for them.

        `side` is a multiple of `REGION`. There are as many rings as reach the image's ends from
        its corner.
        """
        n = side // REGION
        around = np.zeros((n, n))
        for ring in range(math.ceil(math.log(2 * n - 1, 3) - TOLERANCE)):
            at, step = np.arange(n), 3**ring
            along = 1 + (at >= step) + (at + step < n)
            around += np.outer(along, along) - 1
        tokens, counts = np.unique(around + (REGION // self.patch) ** 2, return_counts=True)
        return float(
            sum(self.joint_input(n) * count for n, count in zip(tokens, counts, strict=True))
        )
