"""Intervals of regions from the interval of a run.

A run's interval is of what its inference left uncertain: the places that were not processed, or
that were predicted coarsely. A region holds a share ``f`` of that. The error that all places have
in common is this share of the run's; errors that are independent from place to place add up by
their squares, to the root of the share. A region's half-widths are thus those of the run times
``sqrt(f² + f)``, and no more than the run's. ``python -m benchmarks.regions --coverage`` measures
how often they hold.
"""

from __future__ import annotations

import math
from typing import Any

from pydantic import ValidationError

from hrviewer.models.accuracy import CountError
from hrviewer.runs.estimates import EstimateDict, true_interval

__all__ = ["set_part_intervals", "uncertain_share"]

TINY = 1e-9


def uncertain_share(
    header: dict[str, Any], area: float, coverage: float, value: float, total: float
) -> float:
    """Return the share that a region has of what is uncertain in a run, 0 to 1.

    It is that of the area, or of the amount where that is more: errors are larger where there are
    more objects.

    Parameters
    ----------
    header : dict
        Header of the run.
    area : float
        Area of the region that counts, level-0 pixels.
    coverage : float
        The part of it that was processed.
    value, total : float
        Amounts of the region and of the run.
    """
    covered = header.get("coverage", 100) / 100
    uncertain, uncertain_in_all = (1.0, 1.0) if covered >= 1 else (1 - coverage, 1 - covered)
    if uncertain <= TINY:
        return 0.0
    whole = float(header.get("counting_area") or math.prod(header["region"][2:]))
    share = max(area / whole, value / total if total > 0 else 0.0)
    return min(1.0, share * uncertain / uncertain_in_all)


def set_part_intervals(
    part: EstimateDict, header: dict[str, Any], area: float, coverage: float
) -> None:
    """Set the intervals of a region's estimate, which lies in the part of the image that counts.

    Parameters
    ----------
    part : EstimateDict
        The estimate for the region, with equal ends where inference was exhaustive.
    header, area, coverage
        See `uncertain_share`.
    """
    whole: EstimateDict = header["estimate"]
    additive = whole["kind"] in ("count", "area")
    bounds = 0.0, _largest(whole, area)

    def scaled(value: float, total: float, interval: list[float]) -> list[float]:
        share = uncertain_share(header, area, coverage, value if additive else 0.0, total)
        factor = min(1.0, math.sqrt(share**2 + share))
        if not additive:
            factor = factor / share if share else 0.0
        low, high = value - factor * (total - interval[0]), value + factor * (interval[1] - total)
        if whole["kind"] == "mean":
            least, most = whole.get("range", (-math.inf, math.inf))
        else:
            least, most = bounds
        return [min(max(low, least), value), max(min(high, most), value)]

    if part["exhaustive"]:
        if "per_class_ci95" in whole:
            part["per_class_ci95"] = {name: [v, v] for name, v in part["per_class"].items()}
    else:
        if "per_class_ci95" in whole:
            part["per_class_ci95"] = {
                name: scaled(value, whole["per_class"][name], whole["per_class_ci95"][name])
                for name, value in part["per_class"].items()
            }
        if additive and whole["ci95"] is not None:
            part["ci95"] = scaled(part["value"], whole["value"], whole["ci95"])
        elif not additive:
            best = next((n for n, v in part["per_class"].items() if v == part["value"]), "")
            part["ci95"] = part.get("per_class_ci95", {}).get(best)
    error = _count_error(whole)
    if part["ci95"] is not None and error is not None:
        low, high = part["ci95"]
        part["ci95_truth"] = [*true_interval(part["value"], (low, high), error)]


def _largest(whole: EstimateDict, area: float) -> float:
    """Return the largest amount that a region can have."""
    return {"count": math.inf, "area": area, "probabilities": 1.0}.get(whole["kind"], math.inf)


def _count_error(whole: EstimateDict) -> CountError | None:
    """Return the model's measured error, as far as it was recorded."""
    try:
        return CountError.model_validate(whole["model_error"])
    except (KeyError, ValidationError):
        return None
