"""What the predictions of result maps are, from a run's estimate, and how those of a patch read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hrviewer.engine import PatchRow
from hrviewer.io.run_maps import is_exclusive
from hrviewer.runs.estimates import EstimateDict

__all__ = ["describe_prediction", "quantities_of"]

MAX_LISTED = 4
"""Classes that are listed for a patch."""


def describe_prediction(
    row: PatchRow, classes: Sequence[str], task: str, units: Sequence[str] = ()
) -> list[str]:
    """Return the predictions of a patch by class, the largest first; empty for one class.

    Parameters
    ----------
    row : PatchRow
        The patch.
    classes, task, units
        As `ResultMaps` has them.
    """
    values = np.asarray(row.values, float)
    if len(values) != len(classes) or len(values) < 2 or not np.isfinite(values).all():
        return []
    order = range(len(values)) if task == "mean" else np.argsort(-values, kind="stable")
    area = float(row.h * row.w) if task == "area" else 1.0
    shown = []
    for i in [*order][:MAX_LISTED]:
        value = values[i] / area
        text = f"{value:.1%}" if task in ("area", "probabilities") else f"{value:.4g}"
        shown.append(f"{classes[i]} {text} {units[i] if i < len(units) else ''}".rstrip())
    return shown


def quantities_of(estimate: EstimateDict | None) -> dict[str, Any]:
    """Return what `ResultMaps` needs to know of the predictions."""
    if estimate is None:
        return {}
    if estimate["kind"] != "mean":
        return {"task": estimate["kind"], "exclusive": is_exclusive(estimate)}
    limits = estimate.get("range")
    return {
        "task": "mean",
        "units": list(estimate["units"].values()),
        "limits": None if limits is None else (limits[0], limits[1]),
    }
