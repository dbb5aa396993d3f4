"""What a run may spend, in the unit that the person thinks in."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from hrviewer.errors import UserError
from hrviewer.strategies import Role

__all__ = ["Budget"]

PREFIXES = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
FORM = re.compile(r"^\s*([0-9.]+(?:e[+-]?\d+)?)\s*([KMGTP]?)(FLOPs?|s|patch(?:es)?)\s*$", re.I)


@dataclass(frozen=True, slots=True)
class Budget:
    """An amount and its unit, for all roles together."""

    amount: float
    unit: Literal["flops", "seconds", "patches"]

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read ``2TFLOP``, ``30s`` or ``500patches``.

        Raises
        ------
        UserError
            If `text` is none of these.
        """
        match = FORM.match(text)
        try:
            number, prefix, unit = match.groups()  # type: ignore[union-attr]
            amount = float(number) * PREFIXES[prefix.upper()]
            if amount <= 0 or (prefix and not unit.lower().startswith("flop")):
                raise ValueError
        except (AttributeError, ValueError, KeyError):
            raise UserError(f"a budget reads 2TFLOP, 30s or 500patches, not {text!r}") from None
        kind = unit.lower()
        if kind.startswith("flop"):
            return cls(amount, "flops")
        return cls(amount, "seconds" if kind == "s" else "patches")

    def __str__(self) -> str:
        suffix = {"flops": "FLOP", "seconds": "s", "patches": "patches"}[self.unit]
        return f"{self.amount:.12g}{suffix}"

    def flops(self, main: Role, rate: Callable[[], float]) -> float:
        """Return the budget in FLOPs.

        Parameters
        ----------
        main : Role
            A patch is one of its tiles.
        rate : callable
            Measures how many FLOPs a second the device does; asked for seconds only.
        """
        if self.unit == "flops":
            return self.amount
        if self.unit == "seconds":
            return self.amount * rate()
        return self.amount * main.card.input.tile**2 * main.flops_per_pixel()
