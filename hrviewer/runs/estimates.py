"""What an answer means, in the units of its task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.geometry import Rect
from hrviewer.models import ModelCard

__all__ = ["estimate_to_dict", "format_estimate", "format_evaluation"]


MAX_LISTED = 4
"""Classes that are all told, whatever there is of them."""


def estimate_to_dict(
    card: ModelCard,
    estimate: NDArray[np.float64] | None,
    interval: tuple[float, float] | None,
    region: Rect,
    pixel_size: tuple[float, float] | None,
) -> dict[str, Any] | None:
    """Return an estimate as it is written into a run.

    Parameters
    ----------
    card : Card
        The network that answered.
    estimate : ndarray, shape (k,), optional
        Per class: counts, areas in level-0 pixels, or probabilities.
    interval : tuple of float, optional
        95 % interval of the sum.
    region : Rect
        What it speaks of.
    pixel_size : tuple of float, optional
        µm per pixel, ``(y, x)``.

    Returns
    -------
    dict or None
        ``kind``, ``value``, ``ci95``, ``per_class`` and, by task, densities, areas and fractions;
        None where there is nothing to say (embeddings, nothing seen).
    """
    if estimate is None:
        return None
    names = card.output.classes or [f"class {i}" for i in range(len(estimate))]
    per_class = dict(zip(names, map(float, estimate), strict=False))
    total = float(np.sum(estimate))
    ci95 = None if interval is None else list(map(float, interval))
    mm2 = None if pixel_size is None else pixel_size[0] * pixel_size[1] / 1e6
    if card.task in ("density", "detection"):
        found: dict[str, Any] = {
            "kind": "count",
            "value": total,
            "ci95": ci95,
            "per_class": per_class,
        }
        if mm2:
            found["per_mm2"] = total / (region.area * mm2)
        return found
    if card.task == "segmentation":
        found = {
            "kind": "area",
            "value": total,
            "ci95": ci95,
            "per_class": per_class,
            "fraction": {name: value / region.area for name, value in per_class.items()},
        }
        if mm2:
            found["per_class_mm2"] = {name: value * mm2 for name, value in per_class.items()}
        return found
    best = int(np.argmax(estimate))
    return {
        "kind": "probabilities",
        "value": float(estimate[best]),
        "ci95": ci95,
        "per_class": per_class,
        "vote": names[best],
    }


def format_estimate(estimate: dict[str, Any] | None) -> str:
    """Return an estimate in words, for a label or a terminal."""
    if estimate is None:
        return "no answer"
    interval = estimate["ci95"]
    spread = f"  (95 %: {interval[0]:,.0f} – {interval[1]:,.0f})" if interval else ""
    if estimate["kind"] == "count":
        what = format_amounts(
            estimate["per_class"], lambda name, n: f"{n:,.{int(n % 1 > 0)}f} × {name}"
        )
        density = f"  ·  {estimate['per_mm2']:,.0f} / mm²" if "per_mm2" in estimate else ""
        return f"{what}{spread}{density}"
    if estimate["kind"] == "area":
        return format_amounts(estimate["fraction"], lambda name, part: f"{name} {part:.1%}")
    return f"{estimate['vote']} {estimate['value']:.1%}"


def format_amounts(amounts: dict[str, float], format_amount: Callable[[str, float], str]) -> str:
    """Say every amount; of more than a few the largest that there are."""
    shown = amounts
    if len(amounts) > MAX_LISTED:
        there = sorted((name for name in amounts if amounts[name]), key=lambda name: -amounts[name])
        if not there:
            return f"none of {len(amounts)} classes"
        shown = {name: amounts[name] for name in there[:MAX_LISTED]}
    rest = sum(1 for name, amount in amounts.items() if amount and name not in shown)
    return ", ".join(
        [format_amount(*item) for item in shown.items()]
    ) + f", {rest} more classes" * bool(rest)


def format_evaluation(evaluation: dict[str, Any]) -> str:
    """Return in words how far an answer is from the truth."""
    if "dice" in evaluation:
        return "Dice " + ", ".join(
            f"{name} {dice:.3f}" for name, dice in evaluation["dice"].items()
        )
    value, error, game = evaluation["value"], evaluation["error"], evaluation["game"]
    part = f" ({error / value:+.1%})" if value else ""
    grids = " · ".join(f"GAME({level}) {off:,.1f}" for level, off in game.items())
    return f"{value:,}, error {error:+,.1f}{part}  ·  {grids}"
