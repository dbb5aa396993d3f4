"""Estimates of a run: what they hold by task, and how they read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from hrviewer.geometry import Rect
from hrviewer.models import ModelCard

__all__ = [
    "CostDict",
    "EstimateDict",
    "EvaluationDict",
    "estimate_to_dict",
    "format_count",
    "format_estimate",
    "format_evaluation",
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


class EstimateDict(TypedDict):
    """The estimate of a run, ``Run.estimate``."""

    kind: Literal["count", "area", "probabilities"]
    value: float
    """Count, area in level-0 pixels, or the probability of the most likely class."""
    ci95: list[float] | None
    """95 % interval of the value; None where the strategy gives none."""
    per_class: dict[str, float]
    per_mm2: NotRequired[float]
    """Density of counts, where the pixel size is known."""
    fraction: NotRequired[dict[str, float]]
    """Area fraction of the region by class, of a segmentation."""
    per_class_mm2: NotRequired[dict[str, float]]
    """Areas in mm² by class, of a segmentation where the pixel size is known."""
    vote: NotRequired[str]
    """The most likely class, of a classification."""


class CostDict(TypedDict):
    """The nominal cost of a run, ``Run.cost``: what it takes without any cache."""

    flops: float
    wall_s: float
    """Seconds in all; those of stages that overlap are not a sum."""
    read_s: float
    """Seconds of reading and decoding pixels."""
    prepare_s: float
    """Seconds of resampling and normalisation."""
    infer_s: float
    """Seconds of inference."""
    post_s: float
    """Seconds of post-processing."""
    bytes_read: int
    """Compressed bytes."""
    pixels_read: int
    peak_rss_bytes: int | None
    """Peak memory of the process."""
    peak_device_bytes: int | None


class EvaluationDict(TypedDict):
    """A run's estimate against ground truth, ``Run.evaluation``."""

    value: int | None
    """Objects in the region, of a count."""
    error: float | None
    """Estimate minus value."""
    game: dict[str, float] | None
    """Grid average mean errors by level; 4^level cells."""
    source: str
    precision: NotRequired[float | None]
    """Average precision of a density's peaks, where the ground truth has boxes."""
    dice: NotRequired[dict[str, float]]
    """By class, of a segmentation."""


def estimate_to_dict(
    card: ModelCard,
    estimate: NDArray[np.float64] | None,
    interval: tuple[float, float] | None,
    region: Rect,
    pixel_size: tuple[float, float] | None,
) -> EstimateDict | None:
    """Return an estimate as it is recorded in a run.

    Parameters
    ----------
    card : ModelCard
        Card of the answering model.
    estimate : ndarray, shape (k,), optional
        Per class: counts, areas in level-0 pixels, or probabilities.
    interval : tuple of float, optional
        95 % interval of the sum.
    region : Rect
        The area that the estimate covers.
    pixel_size : tuple of float, optional
        µm per pixel, ``(y, x)``.

    Returns
    -------
    EstimateDict or None
        None without an estimate, as for embeddings or before the first prediction.
    """
    if estimate is None:
        return None
    names = card.output.classes or [f"class {i}" for i in range(len(estimate))]
    per_class = dict(zip(names, map(float, estimate), strict=False))
    total = float(np.sum(estimate))
    ci95 = None if interval is None else list(map(float, interval))
    mm2 = None if pixel_size is None else pixel_size[0] * pixel_size[1] / 1e6
    if card.task in ("density", "detection"):
        count: EstimateDict = {
            "kind": "count",
            "value": total,
            "ci95": ci95,
            "per_class": per_class,
        }
        if mm2:
            count["per_mm2"] = total / (region.area * mm2)
        return count
    if card.task == "segmentation":
        area: EstimateDict = {
            "kind": "area",
            "value": total,
            "ci95": ci95,
            "per_class": per_class,
            "fraction": {name: value / region.area for name, value in per_class.items()},
        }
        if mm2:
            area["per_class_mm2"] = {name: value * mm2 for name, value in per_class.items()}
        return area
    best = int(np.argmax(estimate))
    return {
        "kind": "probabilities",
        "value": float(estimate[best]),
        "ci95": ci95,
        "per_class": per_class,
        "vote": names[best],
    }


def format_estimate(estimate: Mapping[str, Any] | EstimateDict | None) -> str:
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
    return f"{number:,.0f}"


def format_count(name: str, count: float) -> str:
    """Return a count of objects: ``1 nucleus``, ``2,418 nuclei``, ``7.5 × class 3``."""
    number = format_number(count)
    if not all(word.isalpha() and len(word) > 2 for word in name.split()):
        return f"{number} × {name}"
    return f"{number} {name if number == '1' else pluralize(name)}"


def pluralize(name: str, count: float = 0) -> str:
    """Return the plural of a class name; the name itself if `count` is 1.

    Examples
    --------
    >>> pluralize("nucleus"), pluralize("tumour cell"), pluralize("mitosis"), pluralize("bus")
    ('nuclei', 'tumour cells', 'mitoses', 'buses')
    """
    first, _, last = name.rpartition(" ")
    key = last.lower()
    if count == 1 or not last:
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


def format_evaluation(evaluation: EvaluationDict) -> str:
    """Return the error of an estimate against ground truth as text."""
    if "dice" in evaluation:
        return "Dice " + ", ".join(f"{name} {d:.3f}" for name, d in evaluation["dice"].items())
    value, error, levels = evaluation["value"], evaluation["error"], evaluation["game"]
    if value is None or error is None or levels is None:
        return "no estimate to evaluate"
    part = f" ({error / value:+.1%})" if value else ""
    grids = " · ".join(f"GAME({level}) {game:,.1f}" for level, game in levels.items())
    return f"{value:,}, error {error:+,.1f}{part}  ·  {grids}"
