"""Estimates, counts and evaluations as text for terminals, reports and the window."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["format_count", "format_estimate", "format_evaluation", "pluralize"]

MAX_LISTED = 4
"""Classes that are always listed; of more, the largest non-zero ones."""

PLURALS = {
    "axis": "axes",
    "bacterium": "bacteria",
    "child": "children",
    "fish": "fish",
    "foot": "feet",
    "goose": "geese",
    "leaf": "leaves",
    "man": "men",
    "mitochondrion": "mitochondria",
    "mouse": "mice",
    "nucleus": "nuclei",
    "person": "people",
    "sheep": "sheep",
    "woman": "women",
}
"""Irregular plurals of class names."""


def format_estimate(estimate: Mapping[str, Any] | None) -> str:
    """Return an estimate as text, for a label or a terminal.

    Examples
    --------
    >>> nuclei = {"kind": "count", "ci95": None, "per_class": {"nucleus": 2418.1}}
    >>> format_estimate(nuclei | {"per_mm2": 1473.6})
    '2,418 nuclei, 1,474 per mm²'
    """
    if estimate is None:
        return "no estimate"
    if estimate["kind"] == "count":
        parts = [format_amounts(estimate["per_class"], format_count)]
        if estimate["ci95"]:
            low, high = estimate["ci95"]
            parts[0] += f" (95 %: {low:,.0f} – {high:,.0f})"
        if "per_mm2" in estimate:
            parts.append(f"{format_number(estimate['per_mm2'])} per mm²")
        return ", ".join(parts)
    if estimate["kind"] == "area":
        return format_amounts(estimate["fraction"], lambda name, part: f"{name} {part:.1%}")
    return f"{estimate['vote']} {estimate['value']:.1%}"


def format_amounts(amounts: Mapping[str, float], format_amount: Callable[[str, float], str]) -> str:
    """Return the amounts of classes as a list; of more than a few, the largest."""
    shown: Mapping[str, float] = amounts
    if len(amounts) > MAX_LISTED:
        present = sorted(
            (name for name in amounts if amounts[name]), key=lambda name: -amounts[name]
        )
        if not present:
            return f"none of {len(amounts)} classes"
        shown = {name: amounts[name] for name in present[:MAX_LISTED]}
    rest = sum(1 for name, amount in amounts.items() if amount and name not in shown)
    more = [f"{rest} more {pluralize('class', rest)}"] if rest else []
    return ", ".join([*(format_amount(*item) for item in shown.items()), *more])


def format_number(number: float) -> str:
    """Return a count or density: one decimal below ten, whole numbers above."""
    if abs(number) < 9.95 and round(number, 1) % 1:
        return f"{number:.1f}"
    return f"{number:z,.0f}"


def format_count(name: str, count: float) -> str:
    """Return a count of objects: ``1 nucleus``, ``2,418 nuclei``, ``7.5 × class 3``."""
    number = format_number(count)
    if not all(word.isalpha() and len(word) > 2 for word in name.split()):
        return f"{number} × {name}"
    return f"{number} {name if number == '1' else pluralize(name)}"


def pluralize(name: str, count: float = 0) -> str:
    """Return the plural of a class name; the name itself if `count` is 1 or it is a plural.

    Examples
    --------
    >>> pluralize("nucleus"), pluralize("tumour cell"), pluralize("mitosis"), pluralize("bus")
    ('nuclei', 'tumour cells', 'mitoses', 'buses')
    >>> pluralize("cells"), pluralize("nuclei")
    ('cells', 'nuclei')
    """
    first, _, last = name.rpartition(" ")
    key = last.lower()
    plain_s = key.endswith("s") and not key.endswith(("ss", "us", "is"))
    if count == 1 or not last or plain_s or key in PLURALS.values():
        return name
    if key in PLURALS:
        plural = last[0] + PLURALS[key][1:]
    elif key.endswith("sis"):
        plural = last[:-2] + "es"
    elif key.endswith(("s", "x", "z", "ch", "sh")):
        plural = last + "es"
    elif key.endswith("y") and key[-2:-1] not in tuple("aeiou"):
        plural = last[:-1] + "ies"
    else:
        plural = last + "s"
    return f"{first} {plural}" if first else plural


def format_evaluation(evaluation: Mapping[str, Any]) -> str:
    """Return the error of an estimate against ground truth as text."""
    if "dice" in evaluation:
        return "Dice " + ", ".join(f"{name} {d:.3f}" for name, d in evaluation["dice"].items())
    value, error, levels = evaluation["value"], evaluation["error"], evaluation["game"]
    if value is None or error is None or levels is None:
        return "no estimate to evaluate"
    part = f" ({error / value:+.1%})" if value else ""
    grids = " · ".join(f"GAME({level}) {game:,.1f}" for level, game in levels.items())
    return f"{value:,}, error {error:+,.1f}{part}  ·  {grids}"
