"""Estimates of a run: what they hold by task, and how they read."""

from __future__ import annotations

import math
from typing import Any, Literal, NotRequired, TypedDict, cast

import numpy as np
from numpy.typing import NDArray

from hrviewer.formatting import (
    EstimateText,
    describe_estimate,
    format_count,
    format_estimate,
    format_evaluation,
    format_number,
    pluralize,
)
from hrviewer.geometry import Rect
from hrviewer.models import ModelCard
from hrviewer.models.accuracy import CountError
from hrviewer.strategies import Aggregation
from hrviewer.units import AREA_UNITS, area_unit

__all__ = [
    "CostDict",
    "EstimateDict",
    "EstimateText",
    "EvaluationDict",
    "describe_estimate",
    "estimate_of_part",
    "estimate_to_dict",
    "format_count",
    "format_estimate",
    "format_evaluation",
    "map_sum_notes",
    "pluralize",
    "true_interval",
    "with_area",
]

Interval = tuple[float, float]

MAP_ROUNDING = 1e-3
"""Relative difference of a map's sum from the estimate that is due to the map's precision."""


class EstimateDict(TypedDict):
    """The estimate of a run, ``Run.estimate``."""

    kind: Literal["count", "area", "probabilities", "mean"]
    value: float
    """Count, area in level-0 pixels, probability of the most likely class, or the mean of the first
    quantity of a regression."""
    ci95: list[float] | None
    """95 % interval of what exhaustive inference with this model would give.

    Its ends are equal if inference was exhaustive, or if the value is the area of all classes of a
    segmentation, which is known; None where the strategy gives none.
    """
    ci95_truth: list[float] | None
    """95 % interval of the true value: `ci95`, widened by the model's measured error.

    None without `ci95`, or if the model's card has no measured error for this kind of image.
    """
    model_error: NotRequired[dict[str, Any]]
    """The model's measured error that `ci95_truth` allows for, as `CountError` has it."""
    exhaustive: bool
    """Whether the model ran on every pixel of the region, at its native scale."""
    per_class: dict[str, float]
    per_class_ci95: NotRequired[dict[str, list[float]]]
    """95 % interval of each class's area or probability, or of each mean, as `ci95`.

    Of a part that was not drawn at random they hold for every possible rest. Absent where the
    strategy gives none.
    """
    area: NotRequired[float]
    """Area in level-0 pixels that shares or means are of, where that is not all that the region
    has data in: its foreground."""
    coverage: NotRequired[float]
    """Part of the region that the estimate is made from, where that is not all of it."""
    map_sum: NotRequired[float]
    """Sum of the map `output` over the region, of counts. It differs from the value if that was
    corrected or scaled to the region, or counts objects once that several patches predicted."""
    per_mm2: NotRequired[float]
    per_ha: NotRequired[float]
    per_km2: NotRequired[float]
    """Density of counts, where the pixel size is known, in the unit that suits it."""
    density_of: NotRequired[str]
    """What densities are of, ``tissue``, where that is not the whole region."""
    fraction: NotRequired[dict[str, float]]
    """Area fraction of the region by class, of a segmentation: of several classes they sum to 1."""
    per_class_mm2: NotRequired[dict[str, float]]
    per_class_ha: NotRequired[dict[str, float]]
    per_class_km2: NotRequired[dict[str, float]]
    """Areas by class, of a segmentation where the pixel size is known, in the same unit."""
    exclusive: NotRequired[bool]
    """Whether classes exclude one another, of probabilities."""
    vote: NotRequired[str]
    """The most likely class, of a classification; with several labels, and of maxima, there is
    none."""
    aggregation: NotRequired[Literal["majority", "maximum"]]
    """How the answers for tiles became one, if not by the mean: `per_class` are the shares of
    tiles of each class, or the highest probabilities of any tile."""
    units: NotRequired[dict[str, str]]
    """Units of the quantities of a regression."""
    range: NotRequired[list[float]]
    """Least and largest value of the quantities of a regression, where its card gives them."""


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

    value: float | None
    """Objects in the region, of a count; first quantity, of a regression."""
    error: float | None
    """Estimate minus value; of a class of the whole image 1 if it is wrong, else 0; of several
    labels the mean absolute difference."""
    game: dict[str, float] | None
    """Grid average mean errors by level; 4^level cells."""
    source: str
    precision: NotRequired[float | None]
    """Average precision of a density's peaks, where the ground truth has boxes."""
    average_precision: NotRequired[dict[str, float]]
    """COCO's of objects: ``ap``, ``ap50`` and ``ap75``, where the ground truth has boxes."""
    average_precision_of: NotRequired[Literal["boxes", "outlines"]]
    """What was compared: outlines where both the ground truth and the objects have any."""
    dice: NotRequired[dict[str, float]]
    """By class, of a segmentation or a classification."""
    label: NotRequired[str]
    """Class of the image as a whole."""
    class_error: NotRequired[dict[str, float]]
    """Estimate minus value by label or quantity, of the image as a whole."""


def estimate_to_dict(
    card: ModelCard,
    estimate: NDArray[np.float64] | None,
    interval: Interval | None,
    region: Rect,
    pixel_size: tuple[float, float] | None,
    *,
    exhaustive: bool = False,
    synthetic: str | None = None,
    data_area: float | None = None,
    main: ModelCard | None = None,
    class_intervals: NDArray[np.float64] | None = None,
    area: float | None = None,
    aggregation: Aggregation = "mean",
) -> EstimateDict | None:
    """Return an estimate as it is recorded in a run.

    Parameters
    ----------
    card : ModelCard
        Card of the answering model.
    estimate : ndarray, shape (k,), optional
        Per class: counts, areas in level-0 pixels, or probabilities.
    interval : tuple of float, optional
        95 % interval of the sum that exhaustive inference with this model would give, of counts
        and of the area of a single class.
    region : Rect
        The area that the estimate covers.
    pixel_size : tuple of float, optional
        µm per pixel, ``(y, x)``.
    exhaustive : bool
        Whether inference was exhaustive.
    synthetic : str, optional
        Name of the synthetic image, as in ``sample:NAME``: the model's error depends on it.
    data_area : float, optional
        The part of the region that counts and has data, level-0 pixels; all by default. Only
        this area counts for densities, fractions and mean probabilities.
    main : ModelCard, optional
        Card of ``main``, if another model may answer. Where that has its task and classes,
        exhaustive inference is that with ``main``, whose error `ci95_truth` allows for.
    class_intervals : ndarray, shape (k, 2), optional
        95 % interval of each class, of shares and means.
    area : float, optional
        Area that shares and means are of, where that is a part of the region.
    aggregation : {"mean", "majority", "maximum"}
        How the answers for tiles became one, of a model that classifies them.

    Returns
    -------
    EstimateDict or None
        None without an estimate, as for embeddings or before the first prediction.
    """
    if estimate is None:
        return None
    whole = float(region.area)
    counted = whole if data_area is None else data_area
    if area is not None:
        counted = min(counted, area)
    exclusive = card.exclusive and aggregation != "maximum"
    if counted < whole and exclusive and float(np.sum(estimate)) > 0:
        # Places without data count as 0.
        factor = (1.0 if card.averaged else counted) / float(np.sum(estimate))
    elif 0 < counted < whole and area is None and card.averaged and not card.output.attention:
        factor = 1.0 if aggregation == "maximum" else whole / counted
    else:
        factor = 1.0
    estimate = estimate * factor
    class_intervals = None if class_intervals is None else class_intervals * factor
    names = card.output.classes or [f"class {i}" for i in range(len(estimate))]
    per_class = dict(zip(names, map(float, estimate), strict=False))
    total = float(np.sum(estimate))
    more: dict[str, Any] = {} if area is None else {"area": area}
    if card.has_shares and exhaustive:
        class_intervals = np.stack([estimate, estimate], axis=1)
    if class_intervals is not None:
        more["per_class_ci95"] = {
            name: [min(float(low), value), max(float(high), value)]
            for (name, value), (low, high) in zip(per_class.items(), class_intervals, strict=True)
        }
    if not card.counts and card.task != "segmentation":
        best = 0 if card.task == "regression" else int(np.argmax(estimate))
        mean: EstimateDict = {
            "kind": "mean" if card.task == "regression" else "probabilities",
            "value": float(estimate[best]),
            "ci95": more.get("per_class_ci95", {}).get(names[best]),
            "ci95_truth": None,
            "exhaustive": exhaustive,
            "per_class": per_class,
        }
        if card.task == "regression":
            mean["units"] = {name: card.unit(i) for i, name in enumerate(per_class)}
            if card.output.range is not None:
                mean["range"] = [*card.output.range]
        else:
            mean["exclusive"] = card.task != "multi-label"
            if mean["exclusive"] and aggregation != "maximum":
                mean["vote"] = names[best]
        if aggregation != "mean":
            mean["aggregation"] = aggregation
        return cast(EstimateDict, mean | more)
    if exhaustive or (card.exclusive and class_intervals is not None):
        interval = total, total
    # A confidence sequence may exclude the last estimate.
    ends = None if interval is None else (min(interval[0], total), max(interval[1], total))
    if card.task == "segmentation":
        areas: EstimateDict = {
            "kind": "area",
            "value": total,
            "ci95": None if ends is None else [*ends],
            "ci95_truth": None,
            "exhaustive": exhaustive,
            "per_class": per_class,
        }
        return with_area(cast(EstimateDict, areas | more), counted, pixel_size)
    stands_in = main is not None and (main.task, main.classes) == (card.task, card.classes)
    error = (main if main and stands_in else card).accuracy.count_error_for(synthetic)
    count: EstimateDict = {
        "kind": "count",
        "value": total,
        "ci95": None if ends is None else [*ends],
        "ci95_truth": (
            None if ends is None or error is None else [*true_interval(total, ends, error)]
        ),
        "exhaustive": exhaustive,
        "per_class": per_class,
    }
    if error is not None and ends is not None:
        count["model_error"] = error.model_dump(mode="json")
    return with_area(count, counted, pixel_size)


def with_area(
    estimate: EstimateDict, area: float, pixel_size: tuple[float, float] | None
) -> EstimateDict:
    """Return a count with its density, or areas by class with their fractions and units.

    Parameters
    ----------
    estimate : EstimateDict
        Of the kind ``count`` or ``area``.
    area : float
        The area with data that it covers, level-0 pixels.
    pixel_size : tuple of float, optional
        µm per pixel, ``(y, x)``.
    """
    per_class = estimate["per_class"]
    more: dict[str, Any] = {}
    if estimate["kind"] == "area":
        more["fraction"] = {
            name: value / area if area else 0.0 for name, value in per_class.items()
        }
    if pixel_size is not None:
        unit = area_unit(pixel_size)
        pixel = math.prod(pixel_size) / AREA_UNITS[unit][1]
        if estimate["kind"] == "area":
            more[f"per_class_{unit}"] = {name: value * pixel for name, value in per_class.items()}
        else:
            more[f"per_{unit}"] = estimate["value"] / (area * pixel) if area else 0.0
    return cast(EstimateDict, estimate | more)


def estimate_of_part(
    whole: EstimateDict,
    values: NDArray[np.float64],
    area: float,
    pixel_size: tuple[float, float] | None,
    *,
    exhaustive: bool,
) -> EstimateDict:
    """Return the estimate for a part of a run's region.

    Parameters
    ----------
    whole : EstimateDict
        The run's estimate, whose kind and classes the part has.
    values : ndarray, shape (k,)
        Per class: counts, areas in level-0 pixels, probabilities or means of the part.
    area : float
        The part's area with data, level-0 pixels.
    pixel_size : tuple of float, optional
        µm per pixel, ``(y, x)``.
    exhaustive : bool
        Whether inference was exhaustive there.
    """
    per_class = dict(zip(whole["per_class"], map(float, values), strict=False))
    best = next(iter(per_class))
    if whole["kind"] == "probabilities":
        best = max(per_class, key=lambda name: per_class[name])
    additive = whole["kind"] in ("count", "area")
    value = math.fsum(per_class.values()) if additive else per_class[best]
    part: EstimateDict = {
        "kind": whole["kind"],
        "value": value,
        "ci95": [value, value] if exhaustive else None,
        "ci95_truth": None,
        "exhaustive": exhaustive,
        "per_class": per_class,
    }
    if additive:
        return with_area(part, area, pixel_size)
    if "vote" in whole:
        part["vote"] = best
    for key in ("units", "range", "exclusive"):
        if key in whole:
            part[key] = whole[key]
    return part


def true_interval(count: float, interval: Interval, error: CountError) -> Interval:
    """Return the 95 % interval of the true count.

    The error of the estimate and that of the model are independent: distances to the ends add up
    by their squares. If the model is biased, the interval is shifted, but still holds the estimate.

    Parameters
    ----------
    count : float
        The estimate.
    interval : tuple of float
        95 % interval of what exhaustive inference would give; it holds the estimate.
    error : CountError
        Measured error of the model.

    Examples
    --------
    >>> figures = {"domain": "a test", "images": 9, "data": "", "command": ""}
    >>> error = CountError(relative=0.1, quantiles=(-2, 2), counts=(0, 500), **figures)
    >>> true_interval(100.0, (85.0, 115.0), error)
    (75.0, 125.0)
    """
    corrected = max(count, 0.0) / (1 + error.bias)
    deviation = error.deviation(corrected)
    low = corrected - math.hypot(count - interval[0], error.quantiles[0] * deviation)
    high = corrected + math.hypot(interval[1] - count, error.quantiles[1] * deviation)
    return max(min(low, count), 0.0), max(high, count)


def map_sum_notes(estimate: EstimateDict | None) -> list[str]:
    """Return a note if the map's sum is not the estimate, by more than rounding.

    Examples
    --------
    >>> map_sum_notes({"map_sum": 12.2, "value": 40.6})
    ['the map of the output and its exports add up to 12, not to the estimate, 41']
    """
    if estimate is None or "map_sum" not in estimate:
        return []
    if math.isclose(estimate["map_sum"], estimate["value"], rel_tol=MAP_ROUNDING):
        return []
    on_map, value = format_number(estimate["map_sum"]), format_number(estimate["value"])
    if on_map == value:
        return []
    return [
        f"the map of the output and its exports add up to {on_map}, not to the estimate, {value}"
    ]
