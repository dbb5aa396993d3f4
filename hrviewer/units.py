"""Formatting of numbers: SI prefixes, durations, round ends of a scale."""

from __future__ import annotations

import math

__all__ = ["format_duration", "format_si", "format_signed", "nice_ceiling"]

PREFIXES = ("", "k", "M", "G", "T", "P", "E")


def format_si(value: float, unit: str = "", digits: int = 3) -> str:
    """Return ``1.23 TFLOP`` for 1.23e12."""
    if not math.isfinite(value):
        return "–"
    power = 0
    while abs(value) >= 999.5 and power < len(PREFIXES) - 1:
        value, power = value / 1000, power + 1
    return f"{value:.{digits}g} {PREFIXES[power]}{unit}".rstrip()


def format_signed(value: float) -> str:
    """Return ``+1.23 k`` for 1230: a number with its sign."""
    return "+" * (value > 0) + format_si(value)


def format_duration(seconds: float) -> str:
    """Return ``0.4 s``, ``42 s``, ``3 min 05 s`` or ``2 h 10 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    rounded = round(seconds)
    if rounded < 60:
        return f"{rounded} s"
    if rounded < 3600:
        return f"{rounded // 60} min {rounded % 60:02d} s"
    return f"{rounded // 3600} h {rounded % 3600 // 60:02d} min"


def nice_ceiling(value: float) -> float:
    """Return the smallest 1, 2 or 5 times a power of ten that is not below `value`."""
    if not (value > 0 and math.isfinite(value)):
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    for step in (1, 2, 5, 10):
        if value <= step * power * (1 + 1e-9):
            return step * power
    raise AssertionError("a number lies between two powers of ten")
