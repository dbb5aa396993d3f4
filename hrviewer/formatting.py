"""Estimates, counts and evaluations as text for terminals, reports and the window."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from hrviewer.units import AREA_UNITS

__all__ = [
    "NO_ESTIMATE",
    "EstimateText",
    "describe_estimate",
    "format_count",
    "format_estimate",
    "format_evaluation",
    "format_number",
    "format_part",
    "format_range",
    "pluralize",
]

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


@dataclass(frozen=True, slots=True)
class EstimateText:
    """The parts of an estimate's line, each empty where there is nothing to report.

    Attributes
    ----------
    amount
        Value and unit: ``"2,418 nuclei"``.
    density
        ``"1,474 per mm²"``.
    certainty
        ``"exhaustive"``, if the model ran everywhere; ``"rough"`` without an interval.
    model_interval
        Range of what exhaustive inference with this model would give.
    true_interval
        Range of the true value.
    coverage
        Part of the region that the estimate is made from.
    extent
        What it is an estimate of, while a run or Live goes on: ``"so far"``, ``"in view"``.
    """

    amount: str
    density: str = ""
    certainty: str = ""
    model_interval: str = ""
    true_interval: str = ""
    coverage: str = ""
    extent: str = ""

    @property
    def intervals(self) -> str:
        """The intervals, and what each covers."""
        parts = [text for text in (self.model_interval, self.true_interval) if text]
        return f"95 % {pluralize('interval', len(parts))}: {', '.join(parts)}" if parts else ""

    @property
    def details(self) -> str:
        """Everything but the amount; the density after the intervals, which are of the amount."""
        parts = (self.certainty, self.intervals, self.density, self.coverage, self.extent)
        return "; ".join(text for text in parts if text)

    def __str__(self) -> str:
        amount = f"{self.amount} ({self.certainty})" if self.certainty else self.amount
        amount += f", {self.density}" if self.density else ""
        parts = (amount, self.intervals, self.coverage, self.extent)
        return "; ".join(text for text in parts if text)


NO_ESTIMATE = EstimateText("")
"""Nothing to report."""


def describe_estimate(estimate: Mapping[str, Any] | None) -> EstimateText:
    """Return the parts of an estimate's line.

    Parameters
    ----------
    estimate
        ``Run.estimate``.

    Examples
    --------
    >>> people = {"kind": "count", "value": 12.4, "per_class": {"person": 12.4}}
    >>> text = describe_estimate(people | {"ci95": [10.2, 13.1], "ci95_truth": [7.9, 16.3]})
    >>> text.amount, text.model_interval
    ('12 people', '10 – 14 for exhaustive inference')
    """
    if estimate is None:
        return EstimateText("no estimate")
    coverage = estimate.get("coverage")
    covered = "" if coverage is None or coverage >= 1 else f"{format_part(coverage)} of the region"
    if "area" in estimate:
        covered = "; ".join(filter(None, ["of the foreground", covered]))
    exhaustive = bool(estimate.get("exhaustive"))
    certainty = "exhaustive" if exhaustive else ""
    interval, true_interval = estimate.get("ci95"), estimate.get("ci95_truth")
    format_ends: Callable[[Sequence[float]], str]
    if estimate["kind"] == "probabilities":
        votes = {estimate["vote"]: estimate["value"]} if "vote" in estimate else None
        amount = format_amounts(
            votes or estimate["per_class"], lambda name, part: f"{name} {part:.1%}"
        )
        if "aggregation" in estimate:
            before, after = {"majority": ("", " of tiles"), "maximum": ("maximum ", "")}[
                estimate["aggregation"]
            ]
            amount = before + amount + after
        format_ends = partial(format_percentages, unit=100.0)
    elif estimate["kind"] == "mean":
        units = estimate["units"]
        amount = "mean " + format_amounts(
            estimate["per_class"], lambda name, mean: f"{name} {mean:.4g} {units[name]}".rstrip()
        )
        format_ends = format_plain_range
    elif estimate["kind"] == "area":
        amount = format_amounts(estimate["fraction"], lambda name, part: f"{name} {part:.1%}")
        unit = sum(estimate["fraction"].values()) / estimate["value"] if estimate["value"] else 0.0
        format_ends = partial(format_percentages, unit=100 * unit)
        if len(estimate["fraction"]) > 1:  # the sum over classes is known
            ranges = "" if exhaustive else format_class_ranges(estimate, 100 * unit)
            certainty = certainty or ("" if ranges else "rough")
            return EstimateText(amount, "", certainty, ranges, coverage=covered)
    else:
        amount = format_amounts(estimate["per_class"], format_count)
        format_ends = partial(format_range, value=estimate["value"])
    model = (
        "" if exhaustive or not interval else f"{format_ends(interval)} for exhaustive inference"
    )
    truth = f"{format_ends(true_interval)} for the true {estimate['kind']}" if true_interval else ""
    if exhaustive and not truth and estimate["kind"] not in ("probabilities", "mean"):
        certainty += f"; rough as a true {estimate['kind']}"
    per_area = [(f"per_{key}", unit) for key, (unit, _) in AREA_UNITS.items()]
    density = next(
        (f"{format_number(estimate[key])} per {unit}" for key, unit in per_area if key in estimate),
        "",
    )
    if density and estimate["kind"] == "count" and len(estimate["per_class"]) > 1:
        density = describe_class_density(estimate, density)
    if density and "density_of" in estimate:
        density += f" of {estimate['density_of']}"
    rough = "" if exhaustive or model or truth else "rough"
    return EstimateText(amount, density, certainty or rough, model, truth, covered)


def describe_class_density(estimate: Mapping[str, Any], density: str) -> str:
    """Return the density of the class with most objects, and that of all.

    Examples
    --------
    >>> found = {"value": 14.0, "per_class": {"boat": 13.0, "car": 1.0}, "per_ha": 2.8}
    >>> describe_class_density(found, "2.8 per ha")
    '2.6 boats per ha, all classes 2.8 per ha'
    """
    name, count = max(estimate["per_class"].items(), key=lambda item: item[1])
    if not count or count == estimate["value"]:
        return density
    key = next(f"per_{key}" for key in AREA_UNITS if f"per_{key}" in estimate)
    unit = AREA_UNITS[key.removeprefix("per_")][0]
    own = format_number(estimate[key] * count / estimate["value"])
    return f"{own} {pluralize(name, own == '1')} per {unit}, all classes {density}"


def format_estimate(estimate: Mapping[str, Any] | None) -> str:
    """Return an estimate as text, for a label or a terminal.

    Examples
    --------
    >>> nuclei = {"kind": "count", "value": 2418.1, "per_class": {"nucleus": 2418.1}}
    >>> format_estimate(nuclei | {"per_mm2": 1473.6})
    '2,418 nuclei (rough), 1,474 per mm²'
    >>> format_estimate(nuclei | {"ci95": [2301.4, 2535.2], "ci95_truth": [2188.0, 2651.5]})
    '2,418 nuclei; 95 % intervals: 2,301 – 2,536 for exhaustive inference, 2,188 – 2,652 for the \
true count'
    """
    return str(describe_estimate(estimate))


def format_plain_range(ends: Sequence[float]) -> str:
    """Return an interval of quantities as text, to four digits."""
    return f"{ends[0]:.4g} – {ends[1]:.4g}"


def format_range(ends: Sequence[float], value: float) -> str:
    """Return an interval as text, rounded outward: it holds the value as `format_number` shows it.

    Examples
    --------
    >>> format_range([0.62, 1.24], 0.81), format_range([98.7, 130.2], 112.6)
    ('0.6 – 1.3', '98 – 131')
    """
    places = 1 if abs(value) < 9.95 else 0
    unit = 10.0**-places
    # Binary fractions: 0.3 / 0.1 is less than 3.
    low = math.floor(min(ends[0], value) / unit + 1e-9) * unit
    high = math.ceil(max(ends[1], value) / unit - 1e-9) * unit
    return " – ".join(f"{end:z,.{places if round(end, places) % 1 else 0}f}" for end in (low, high))


def format_percentages(ends: Sequence[float], unit: float) -> str:
    """Return an interval of an area in per cent, rounded outward; `unit` per cent are one pixel."""
    low, high = math.floor(ends[0] * unit * 10 + 1e-9), math.ceil(ends[1] * unit * 10 - 1e-9)
    return f"{low / 10:.1f} – {high / 10:.1f} %"


def format_class_ranges(estimate: Mapping[str, Any], unit: float) -> str:
    """Return the interval of each listed class in per cent, empty without any."""
    ranges = estimate.get("per_class_ci95")
    if not ranges:
        return ""
    amounts = estimate["per_class"]
    shown = (
        sorted(amounts, key=lambda name: -amounts[name]) if len(amounts) > MAX_LISTED else amounts
    )
    listed = [f"{name} {format_percentages(ranges[name], unit)}" for name in [*shown][:MAX_LISTED]]
    return f"{', '.join(listed)} for exhaustive inference"


def format_part(part: float) -> str:
    """Return a part of the whole in per cent, rounded down: only the whole is 100 %."""
    percent = 100 * part
    return f"{math.floor(percent):.0f} %" if percent >= 10 else f"{percent:.2g} %"


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
    if "label" in evaluation:
        return f"{evaluation['label']}: {'wrong' if evaluation['error'] else 'right'}"
    if "class_error" in evaluation:
        errors = evaluation["class_error"].items()
        return "error " + ", ".join(f"{name} {error:+.3g}" for name, error in errors)
    value, error, levels = evaluation["value"], evaluation["error"], evaluation["game"]
    if value is None or error is None:
        return "no estimate to evaluate"
    part = f" ({error / value:+.1%})" if value else ""
    grids = " · ".join(f"GAME({level}) {game:,.1f}" for level, game in (levels or {}).items())
    text = f"{value:,}, error {error:+,.1f}{part}" + (f"  ·  {grids}" if grids else "")
    if "average_precision" in evaluation:
        found = evaluation["average_precision"]
        kind = "mask AP" if evaluation.get("average_precision_of") == "outlines" else "AP"
        text += f" · {kind} {found['ap']:.3f}, AP50 {found['ap50']:.3f}"
    return text
