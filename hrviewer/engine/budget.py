"""What a run may spend, in the unit that the person thinks in."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from hrviewer.errors import HrviewerError
from hrviewer.strategies import ModelInfo
from hrviewer.units import format_si

__all__ = ["Budget"]

PREFIXES = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
PATTERN = re.compile(r"^\s*([0-9.]+(?:e[+-]?\d+)?)\s*([KMGTP]?)(FLOPs?|s|patch(?:es)?|%)\s*$", re.I)


@dataclass(frozen=True, slots=True)
class Budget:
    """An amount and its unit, for all roles together."""

    amount: float
    unit: Literal["flops", "seconds", "patches", "share"]

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read ``2TFLOP``, ``30s``, ``500patches`` or ``10%``.

        Raises
        ------
        UserError
            If `text` is none of these.
        """
        match = PATTERN.match(text)
        try:
            number, prefix, unit = match.groups()  # type: ignore[union-attr]
            amount = float(number) * PREFIXES[prefix.upper()]
            if amount <= 0 or (prefix and not unit.lower().startswith("flop")):
                raise ValueError
        except (AttributeError, ValueError, KeyError):
            raise HrviewerError(
                f"a budget reads 2TFLOP, 30s, 500patches or 10%, not {text!r}"
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
        """As a person reads it, rounded: ``1.8 TFLOP``."""
        if self.unit == "flops":
            return format_si(self.amount, "FLOP")
        return str(replace(self, amount=float(f"{self.amount:.3g}")))

    def scaled(self, fraction: float) -> Budget:
        """Return what falls on a part of the region; a share of it stays the same share."""
        return self if self.unit == "share" else replace(self, amount=self.amount * fraction)

    def flops(self, main: ModelInfo, rate: Callable[[], float], full_flops: float) -> float:
        """Return the budget in FLOPs.

        Parameters
        ----------
        main : Role
            A patch is one of its tiles.
        rate : callable
            Measures how many FLOPs a second the device does; asked for seconds only.
        full_flops : float
            FLOPs of looking at every pixel of the region at native scale, without halos; what a
            share is of.
        """
        if self.unit == "flops":
            return self.amount
        if self.unit == "seconds":
            return self.amount * rate()
        if self.unit == "share":
            return self.amount * full_flops
        return self.amount * main.card.input.tile**2 * main.flops_per_pixel()
