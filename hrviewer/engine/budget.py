"""Budgets in FLOPs, seconds, patches or percent of the exhaustive cost."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from hrviewer.errors import BudgetError
from hrviewer.strategies import ModelInfo
from hrviewer.units import format_si

__all__ = ["Budget"]

PREFIXES = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
PATTERN = re.compile(r"^\s*([0-9.]+(?:e[+-]?\d+)?)\s*([KMGTP]?)(FLOPs?|s|patch(?:es)?|%)\s*$", re.I)


@dataclass(frozen=True, slots=True)
class Budget:
    """An amount and its unit, for all roles together.

    >>> Budget.parse("2TFLOP").label
    '2 TFLOP'
    """

    amount: float
    unit: Literal["flops", "seconds", "patches", "share"]

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Parse ``2TFLOP``, ``30s``, ``500patches`` or ``10%``.

        Raises
        ------
        BudgetError
            If `text` is none of these.
        """
        match = PATTERN.match(text)
        try:
            number, prefix, unit = match.groups()  # type: ignore[union-attr]
            amount = float(number) * PREFIXES[prefix.upper()]
            if amount <= 0 or (prefix and not unit.lower().startswith("flop")):
                raise ValueError
        except (AttributeError, ValueError, KeyError):
            raise BudgetError(
                f"{text!r} is not a budget: write it as 2TFLOP, 30s, 500patches or 10%"
            ) from None
        kind = unit.lower()
        if kind == "%":
            return cls(amount / 100, "share")
        if kind.startswith("flop"):
            return cls(amount, "flops")
        return cls(amount, "seconds" if kind == "s" else "patches")

    def __str__(self) -> str:
        if self.unit == "share":
            return f"{100 * self.amount:.12g}%"
        suffix = {"flops": "FLOP", "seconds": "s", "patches": "patches"}[self.unit]
        return f"{self.amount:.12g}{suffix}"

    @property
    def label(self) -> str:
        """Rounded amount with its unit, as ``1.8 TFLOP``."""
        if self.unit == "flops":
            return format_si(self.amount, "FLOP")
        return str(replace(self, amount=float(f"{self.amount:.3g}")))

    def scaled(self, fraction: float) -> Budget:
        """Return the budget for a fraction of the area; a percentage stays the same."""
        return self if self.unit == "share" else replace(self, amount=self.amount * fraction)

    def flops(self, main: ModelInfo, rate: Callable[[], float], full_flops: float) -> float:
        """Return the budget in FLOPs.

        Parameters
        ----------
        main : ModelInfo
            Description of the main network; a patch is one of its tiles.
        rate : callable
            Measures FLOPs per second on the device; called for budgets in seconds only.
        full_flops : float
            FLOPs of inference on every pixel of the region at native scale, without halos: the
            reference of percentages.
        """
        if self.unit == "flops":
            return self.amount
        if self.unit == "seconds":
            return self.amount * rate()
        if self.unit == "share":
            return self.amount * full_flops
        return self.amount * main.card.input.tile**2 * main.flops_per_pixel()
