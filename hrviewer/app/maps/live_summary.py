"""Summary of the cells in view: one estimate and its interval, and the line on the canvas."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hrviewer.engine import ViewportCell
from hrviewer.strategies import FeatureRequest

__all__ = ["combine_cells", "describe_scales", "wrap_text"]


def combine_cells(
    cells: Sequence[ViewportCell], additive: bool
) -> tuple[NDArray[np.float64] | None, tuple[float, float] | None]:
    """Return the estimate of cells together, and its 95 % interval where all of them have one.

    Counts and areas add up, everything else is a mean by area. Half-widths add up by the root of
    their squares, since errors of cells are independent, except for what cells have in common.
    """
    known = [cell for cell in cells if cell.estimate.values is not None]
    if not known:
        return None, None
    values = np.array([np.asarray(cell.estimate.values, float) for cell in known])
    if additive:
        total: NDArray[np.float64] = values.sum(axis=0)
    else:
        total = np.average(values, axis=0, weights=[cell.rect.area for cell in known])
    intervals = [cell.estimate.interval for cell in known]
    if not additive or any(interval is None for interval in intervals):
        return total, None
    common = [cell.estimate.common_error for cell in known]
    halves = [
        math.sqrt(max(0.0, ((high - low) / 2) ** 2 - shared**2))
        for (low, high), shared in zip(filter(None, intervals), common, strict=True)
    ]
    middle = sum((high + low) / 2 for low, high in filter(None, intervals))
    half = math.hypot(*halves, sum(common))
    return total, (middle - half, middle + half)


def describe_scales(cells: Sequence[ViewportCell], native: float) -> str:
    """Return the scales at which the main model ran on cells: ``at 1/3.25``."""
    scales = [
        result.patch.scale / native
        for cell in cells
        for request, results in cell.results
        if not isinstance(request, FeatureRequest) and request.role == "main"
        for result in results
    ]
    if not scales:
        return ""
    low, high = (
        "full resolution" if scale <= 1 else f"1/{scale:.4g}"
        for scale in (min(scales), max(scales))
    )
    return f"at {low}" if low == high else f"at {low} to {high}"


def wrap_text(text: str, width: int) -> str:
    """Break a line between its parts, where it would be longer than `width` characters."""
    lines: list[str] = []
    for part in text.split(" · "):
        if lines and len(lines[-1]) + len(part) + 3 <= width:
            lines[-1] += f" · {part}"
        else:
            lines.append(part)
    return "\n".join(lines)
