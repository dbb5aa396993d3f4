"""Estimates of a run: what they hold by task, and how they read."""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from hrviewer.formatting import format_count, format_estimate, format_evaluation, pluralize
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
