"""Cost of attention by image size and attention pattern, in closed form.

All tokens of an image attend to each other (*quadratic*: cost grows with the square of the area),
those of each region (*windowed*: with the area), or those of each region and ever coarser squares
around it, to the ends of the image (*nested*: with the area times the logarithm of the side).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from hrviewer.strategies.transformer import REGION

__all__ = ["SIDES", "AttentionCost"]

SIDES = tuple(REGION << i for i in range(9))
"""Sides of the images: up to 17 gigapixels."""

TOLERANCE = 1e-9


@dataclass(frozen=True)
class AttentionCost:
    """FLOPs of a transformer on a square image, on a uniform grid of its patches.

    Parameters
    ----------
    patch : int
        Side of a token, in pixels.
    constant, per_token, per_pair : float
        Coefficients for a joint input of n tokens: ``constant + per_token · n + per_pair · n²``.
    """

    patch: int
    constant: float
    per_token: float
    per_pair: float

    @classmethod
    def from_counts(cls, counts: Mapping[int, float], patch: int) -> AttentionCost | None:
        """Return the parabola through the FLOPs of four or more joint inputs.

        None if they lie on no parabola, as where tokens are padded to whole windows.
        """
        (a, b, c, *_), values = counts, counts
        low, high = ((values[y] - values[x]) / (y - x) for x, y in ((a, b), (b, c)))
        curvature = (high - low) / (c - a)
        slope = low - curvature * (a + b)
        cost = cls(patch, values[a] - slope * a - curvature * a**2, slope, curvature)
        deviation = max(abs(cost.joint_input(n) / value - 1) for n, value in counts.items())
        return cost if deviation < TOLERANCE else None

    @property
    def by_pattern(self) -> dict[str, Callable[[int], float]]:
        """The cost at a side, by attention pattern."""
        return {"quadratic": self.quadratic, "windowed": self.windowed, "nested": self.nested}

    def joint_input(self, tokens: float) -> float:
        """Return what one joint input of `tokens` tokens costs."""
        return self.constant + self.per_token * tokens + self.per_pair * tokens**2

    def quadratic(self, side: int) -> float:
        """Return the FLOPs where all tokens of an image attend to each other."""
        return self.joint_input((side / self.patch) ** 2)

    def windowed(self, side: int) -> float:
        """Return the FLOPs where the tokens of each region attend to each other."""
        return (side / REGION) ** 2 * self.joint_input((REGION / self.patch) ** 2)

    def nested(self, side: int) -> float:
        """Return the same with squares around each region, as in the strategy `transformer`.

        `side` is a multiple of `REGION`. The rings reach from one corner of the image to the other.
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
