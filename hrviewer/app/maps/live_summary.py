"""Summary of the cells in view: one estimate and its intervals, and the line on the canvas."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hrviewer.engine import ViewportCell
from hrviewer.strategies import Aggregation, Estimate, FeatureRequest

__all__ = ["combine_cells", "describe_scales", "wrap_text"]

Floats = NDArray[np.float64]


def combine_cells(
    cells: Sequence[ViewportCell], additive: bool, aggregation: Aggregation = "mean"
) -> Estimate:
    """Return the estimate of cells together, with its 95 % intervals where all of them have one.

    Counts and areas add up, everything else is a mean by area. Errors of cells are independent, so
    that distances from the estimate to each end add up by the root of their squares (the method of
    variance estimates recovery; Zou and Donner, *Statistics in Medicine* 27, 2008); those of limits
    that hold with certainty are not independent, and are added, as is the part of half-widths that
    cells have in common.

    Parameters
    ----------
    cells : sequence of ViewportCell
        Finished cells. Those without an estimate are left out.
    additive : bool
        Whether estimates add up.
    aggregation : {"mean", "majority", "maximum"}
        How the answers for tiles become one, of a model that classifies them.

    Returns
    -------
    Estimate
        `area` is that of the cells with an estimate, level-0 pixels: of their foreground, where
        they have one.
    """
    known = [cell for cell in cells if cell.estimate.values is not None]
    if not known:
        return Estimate(None)
    estimates = [cell.estimate for cell in known]
    areas = np.array([cell.estimate.area or cell.rect.area for cell in known], float)
    weights = np.ones(len(known)) if additive else areas / areas.sum()
    values = np.array([np.asarray(estimate.values, float) for estimate in estimates])
    total = weights @ values
    certain = np.array([estimate.certain for estimate in estimates])
    interval = class_intervals = None
    sums = [estimate.interval for estimate in estimates]
    if additive and all(end is not None for end in sums):
        ends, each = np.array(sums)[:, None], values.sum(axis=1)[:, None]
        common = np.array([estimate.common_error for estimate in estimates])
        interval = tuple(_combine(ends, each, weights, certain, common)[0].tolist())
    by_class = [_class_intervals(estimate) for estimate in estimates]
    if aggregation == "maximum":
        total = values.max(axis=0)
    if all(found is not None for found in by_class):
        ends = np.array(by_class)
        class_intervals = (
            ends.max(axis=0)
            if aggregation == "maximum"
            else _combine(ends, values, weights, certain)
        )
    return Estimate(
        total,
        interval,
        exhaustive=all(cell.estimate.exhaustive for cell in cells),
        class_intervals=class_intervals,
        area=float(areas.sum()),
    )


def _class_intervals(estimate: Estimate) -> Floats | None:
    """Return the interval of each class; of exhaustive inference it is the value itself."""
    if estimate.class_intervals is not None or not estimate.exhaustive:
        return estimate.class_intervals
    values = np.asarray(estimate.values, float)
    return np.stack([values, values], axis=1)


def _combine(
    intervals: Floats,
    values: Floats,
    weights: Floats,
    certain: NDArray[np.bool_],
    common: Floats | float = 0.0,
) -> Floats:
    """Return the intervals ``(k, 2)`` of weighted sums, from those of cells, ``(n, k, 2)``.

    `common` is the part of each cell's half-width that is the same error in all of them.
    """
    distances = (intervals - values[..., None]) * weights[:, None, None]
    shared = np.broadcast_to(np.asarray(common) * weights, weights.shape)
    own = np.maximum(distances**2 - shared[:, None, None] ** 2, 0)[~certain].sum(axis=0)
    random = np.sqrt(own + shared[~certain].sum() ** 2) * (-1, 1)
    return np.asarray((weights @ values)[:, None] + random + distances[certain].sum(axis=0))


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
