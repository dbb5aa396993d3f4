"""Error of a network's counts by count and scale: ``python -m benchmarks.accuracy MODEL``.

    python -m benchmarks.accuracy crowd --images crowd --write
    python -m benchmarks.accuracy nuclei --images tissue --write
    python -m benchmarks.accuracy nuclei --photos DATA_FOLDER --split val --write
    python -m benchmarks.accuracy crowd --images crowd --role scout --write
    python -m benchmarks.accuracy crowd --images crowd --role transformer --write
    python -m benchmarks.accuracy crowd --images crowd --sizes 2048x8 --scales 1..2,2..4/8 --write

Measured on synthetic images with seeds of validation, or on labelled photos, and written into the
card, from which the intervals of estimates are made. With ``--scales``, the counts of downsampled
images are measured against those at native scale. One JSON object is printed; outputs of networks
are kept on disk, so that a stopped measurement is continued by the same command.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.network_maps import NetworkMap, NetworkMaps, sum_blocks, true_counts
from hrviewer.geometry import SCALE_STEPS
from hrviewer.models import installed_bundles
from hrviewer.models.accuracy import (
    CountError,
    Measurement,
    PredictionError,
    ScaleCurve,
    ScalePoint,
)
from hrviewer.models.card import ModelCard, read_json
from hrviewer.pyramid import open_pyramid

__all__ = ["CountPairs", "fit_count_error", "fit_deviation", "main", "write_accuracy"]

Floats = NDArray[np.float64]

FIRST_SEED = 10_000
SIZES = "2048x40,4096x30,8192x12"
"""Synthetic images: sides, and how many of each."""

MIN_REGION = 1024
"""Smallest side of regions of images that are counted, too: a run may be of a region."""

MIN_CONSTANT = 0.3
"""Smallest standard deviation, in objects: a count of zero is not certain either."""

MIN_RELATIVE = 0.06
"""Smallest relative error of a scale: that of the gain itself, from few images."""

TYPICAL_COUNT = 100.0
"""Count by which the errors of scales are compared."""

SLACK = 0.005
"""Error of totals that no model of the errors of cells explains, as a fraction."""

MIN_PAIRS = 40
"""Pairs from which quantiles are measured; with fewer the errors are taken as normal."""

CELLS = {"scout": 64, "scanner": 128}
"""Side of the cells that `zoom` and `scanner` measure, in pixels."""

STAND_INS = "head", "transformer"
"""Roles that predict a whole region, without measurements by ``main``."""

SELECTED = (0.01, 0.03, 0.1, 0.3)
"""Fractions of the cells that are taken as measured."""

SAFE_QUANTILES = 0.01, 0.99
"""Measured on few images, quantiles are uncertain: those of 98 % stand for 95 %."""

PREDICTION_QUANTILES = 0.015, 0.985
"""The same of what stands for ``main``: of its predictions, and of its counts by scale."""


@dataclass(frozen=True)
class CountPairs:
    """Counts of a network and true counts of images and their regions.

    Attributes
    ----------
    predicted, true : ndarray, shape (n,)
        The counts.
    side : ndarray of int, shape (n,)
        Side of the region, level-0 pixels; 0 of a whole photo.
    """

    predicted: Floats
    true: Floats
    side: NDArray[np.int64]


def fit_deviation(predicted: Floats, true: Floats) -> tuple[float, float, float, float]:
    """Return bias, constant, per_object and relative of `CountError`, by maximum likelihood."""
    from scipy.optimize import minimize

    def loss(x: Floats) -> float:
        corrected = np.maximum(predicted, 0) / (1 + x[0])
        variance = MIN_CONSTANT**2 + x[1] ** 2 + x[2] ** 2 * corrected + (x[3] * corrected) ** 2
        return float((np.log(variance) + (true - corrected) ** 2 / variance).sum())

    start = np.array([0.0, 0.3, 0.5, 0.05])
    found = minimize(loss, start, method="Nelder-Mead", options={"maxiter": 8000, "fatol": 1e-6})
    bias, constant, root, relative = found.x
    return float(bias), math.hypot(MIN_CONSTANT, constant), float(root**2), abs(float(relative))


def fit_count_error(pairs: CountPairs, measurement: Measurement) -> CountError:
    """Return the error of counts, with quantiles that hold for each size of regions."""
    bias, constant, per_object, relative = fit_deviation(pairs.predicted, pairs.true)
    figures = measurement.model_dump()
    fitted = CountError(
        **figures,
        bias=round(bias, 4),
        constant=round(constant, 3),
        per_object=round(per_object, 4),
        relative=round(relative, 4),
        counts=(round(float(pairs.true.min()), 1), round(float(pairs.true.max()), 1)),
    )
    corrected = np.maximum(pairs.predicted, 0) / (1 + fitted.bias)
    scores = (pairs.true - corrected) / np.array([*map(fitted.deviation, corrected)])
    low, high = safe_quantiles(scores, pairs.side)
    ends = min(low, fitted.quantiles[0]), max(high, fitted.quantiles[1])
    return fitted.model_copy(update={"quantiles": (round(ends[0], 2), round(ends[1], 2))})


def safe_quantiles(scores: Floats, side: NDArray[np.floating | np.integer]) -> tuple[float, float]:
    """Return the outermost quantiles of the sizes of regions that have enough of them, or none."""
    sizes = [side == each for each in np.unique(side) if (side == each).sum() >= MIN_PAIRS]
    ends = np.array([np.quantile(scores[at], SAFE_QUANTILES) for at in sizes]).reshape(-1, 2)
    low, high = ends[:, 0].min(initial=0.0), ends[:, 1].max(initial=0.0)
    return float(low), float(high)


def fit_scale_point(scale: float, counts: Floats, native: Floats) -> ScalePoint:
    """Return gain and error of counts at a scale, against those at native scale."""
    bias, constant, per_object, relative = fit_deviation(counts, native)
    # A point has no constant: it is added where counts are usual.
    per_object += (constant**2 - MIN_CONSTANT**2) / max(float(np.median(native)), 1.0)
    return ScalePoint(
        scale=scale,
        gain=round(1 + bias, 4),
        per_object=round(per_object, 4),
        relative=round(max(relative, MIN_RELATIVE), 4),
    )


def with_neighbours_errors(points: Sequence[ScalePoint]) -> list[ScalePoint]:
    """Return points with the largest error of themselves and their neighbours.

    Measured on few images, an error may be small by chance.
    """
    smoothed = []
    for i, point in enumerate(points):
        near = points[max(0, i - 1) : i + 2]
        worst = max(near, key=lambda each: each.deviation(TYPICAL_COUNT))
        error = {"per_object": worst.per_object, "relative": worst.relative}
        smoothed.append(point.model_copy(update=error))
    return smoothed


@dataclass(frozen=True)
class Remainders:
    """Sums over the cells that are left where others were measured, one for each selection.

    Attributes
    ----------
    predicted, variance, exact, total : ndarray, shape (n,)
        Predictions of a scout or scanner, their variances, the counts of ``main`` there, and its
        count of the whole image.
    side : ndarray, shape (n,)
        Side of the image or region, level-0 pixels.
    """

    predicted: Floats
    variance: Floats
    exact: Floats
    total: Floats
    side: Floats


def fit_prediction_error(sums: Remainders, measurement: Measurement) -> PredictionError:
    """Return the error of predictions, by maximum likelihood.

    Every size of images and regions has the same weight: of large ones, which show the error that
    all cells of an image share, there are few.
    """
    from scipy.optimize import minimize

    _, size, number = np.unique(sums.side, return_inverse=True, return_counts=True)
    weight = 1 / number[size]
    slack = (SLACK * sums.total) ** 2 + MIN_CONSTANT**2

    def variance(x: Floats) -> Floats:
        corrected = x[0] * sums.predicted
        shared = x[3] ** 2 * np.maximum(corrected, 0) + (x[2] * corrected) ** 2
        return x[1] ** 2 * sums.variance + shared + slack

    def loss(x: Floats) -> float:
        expected = variance(x)
        return float(
            weight @ (np.log(expected) + (sums.exact - x[0] * sums.predicted) ** 2 / expected)
        )

    starts = [
        np.array([1.0, spread, shared, 0.5]) for spread in (0.3, 3.0) for shared in (0.05, 0.3)
    ]
    fits = [minimize(loss, start, method="Nelder-Mead", options={"maxiter": 8000, "maxfev": 8000})
            for start in starts]  # fmt: skip
    best = min(fits, key=lambda fit: float(fit.fun)).x
    scores = (sums.exact - best[0] * sums.predicted) / np.sqrt(variance(best))
    low, high = np.quantile(scores, PREDICTION_QUANTILES, weights=weight, method="inverted_cdf")
    return PredictionError(
        **measurement.model_dump(),
        ratio=round(float(best[0]), 3),
        spread=round(abs(float(best[1])), 3),
        per_object=round(float(best[3] ** 2), 3),
        ratio_deviation=round(abs(float(best[2])), 3),
        # Ratios of cells differ at least as much as those of whole images.
        cell_deviation=round(abs(float(best[2])), 3),
        slack=SLACK,
        quantiles=(round(min(float(low), -1.96), 2), round(max(float(high), 1.96), 2)),
    )


def sum_remainders(maps: NetworkMaps, name: str, sizes: str, role: str) -> Remainders:
    """Sum what is left beyond several selections of cells, as `zoom` and `scanner` select them."""
    rows: list[tuple[float, ...]] = []
    for side, seed in parse_sizes(sizes):
        with open_pyramid(f"sample:{name}?size={side}&seed={seed}") as pyramid:
            coarse, exact = maps.of(pyramid, role), maps.of(pyramid)
        cell = CELLS[role]
        predicted, variance = (
            sum_blocks(plane, cell // coarse.cell).ravel() for plane in coarse.values[:2]
        )
        counts = sum_blocks(exact.values[0], cell // exact.cell).ravel()
        spread = np.sqrt(variance.clip(0))
        order = np.argsort(-(predicted + spread if role == "scout" else spread))
        for selected in SELECTED:
            left = order[int(selected * len(order)) :]
            rows.append((predicted[left].sum(), variance[left].clip(0).sum(), counts[left].sum(),
                         counts.sum(), side))  # fmt: skip
        print(f"{name} {side} {seed}", file=sys.stderr)
    return Remainders(*np.array(rows).T)


def sum_regions(maps: NetworkMaps, name: str, sizes: str, role: str) -> Remainders:
    """Sum the predictions of a role that stands in for ``main``, in images and their regions."""
    parts: list[Floats] = []
    for side, seed in parse_sizes(sizes):
        with open_pyramid(f"sample:{name}?size={side}&seed={seed}") as pyramid:
            found, exact = maps.of(pyramid, role), maps.of(pyramid)
        region = side
        while region >= MIN_REGION:
            predicted, variance = sum_blocks(found.values[:2], region // found.cell).reshape(2, -1)
            counts = sum_blocks(exact.values[0], region // exact.cell).ravel()
            of_region = np.full(len(counts), float(region))
            parts.append(np.array([predicted, variance.clip(0), counts, counts, of_region]))
            region //= 2
        print(f"{name} {side} {seed}: {parts[-1][0].sum():.1f} of {counts.sum():.1f}",
              file=sys.stderr)  # fmt: skip
    return Remainders(*np.concatenate(parts, axis=1))


def parse_sizes(text: str, first: int = FIRST_SEED) -> Iterator[tuple[int, int]]:
    """Yield side and seed of each synthetic image."""
    seed = first
    for part in text.split(","):
        side, _, count = part.partition("x")
        for _ in range(int(count)):
            yield int(side), seed
            seed += 1


def count_images(maps: NetworkMaps, name: str, sizes: str, role: str) -> CountPairs:
    """Count synthetic images and their regions."""
    rows: list[tuple[Floats, Floats, int]] = []
    for side, seed in parse_sizes(sizes):
        with open_pyramid(f"sample:{name}?size={side}&seed={seed}") as pyramid:
            found = maps.of(pyramid, role)
            true = true_counts(pyramid, found.cell)
        predicted = found.values[0]
        region = side
        while region >= MIN_REGION:
            block = max(1, region // found.cell)
            rows.append((sum_blocks(predicted, block), sum_blocks(true, block), region))
            region //= 2
        print(f"{name} {side} {seed}: {predicted.sum():.1f} of {true.sum():.0f}", file=sys.stderr)
    return CountPairs(
        np.concatenate([predicted.ravel() for predicted, _, _ in rows]),
        np.concatenate([true.ravel() for _, true, _ in rows]),
        np.concatenate([np.full(true.size, region) for _, true, region in rows]),
    )


def count_photos(maps: NetworkMaps, folder: Path, split: str, role: str) -> CountPairs:
    """Count the labelled photos that ``index.csv`` lists."""
    with (folder / "index.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == split]
    predicted = []
    for row in rows:
        with open_pyramid(folder / f"{row['name']}.png") as pyramid:
            predicted.append(float(maps.of(pyramid, role).values[0].sum()))
        print(f"{row['name']}: {predicted[-1]:.1f} of {row['nuclei']}", file=sys.stderr)
    true = np.array([float(row["nuclei"]) for row in rows])
    return CountPairs(np.array(predicted), true, np.zeros(len(rows), np.int64))


def parse_scales(text: str) -> list[float]:
    """Return the scales of a curve: ``1..2`` is every sixteenth, ``2..4/8`` every eighth."""
    scales: list[float] = []
    for part in text.split(","):
        ends, _, parts = part.partition("/")
        low, _, high = ends.partition("..")
        n = int(parts or SCALE_STEPS)
        steps = round((float(high or low) - float(low)) * n)
        scales += [float(low) + i / n for i in range(steps + 1)]
    return sorted({*scales} - {1.0})


def measure_curve(
    maps: NetworkMaps, name: str, sizes: str, scales: Sequence[float], measurement: Measurement
) -> ScaleCurve:
    """Return the counts of downsampled images, against those at native scale."""
    counts: dict[float, list[Floats]] = {scale: [] for scale in [1.0, *scales]}
    for side, seed in parse_sizes(sizes):
        with open_pyramid(f"sample:{name}?size={side}&seed={seed}") as pyramid:
            for scale in counts:
                counts[scale].append(count_regions(maps.of(pyramid, "main", scale), side))
        print(f"{name} {side} {seed}", file=sys.stderr)
    native = np.concatenate(counts.pop(1.0))
    points = []
    found = {scale: np.concatenate(each) for scale, each in counts.items()}
    for scale, at_scale in found.items():
        known = np.isfinite(at_scale)
        points.append(fit_scale_point(scale, at_scale[known], native[known]))
    first = ScalePoint(scale=1, gain=1)
    smoothed = with_neighbours_errors(points)
    scores = np.concatenate([score_counts(point, found[point.scale], native) for point in smoothed])
    low, high = np.quantile(scores, PREDICTION_QUANTILES)
    return ScaleCurve(
        **measurement.model_dump(),
        points=(first, *smoothed),
        quantiles=(round(min(float(low), -1.96), 2), round(max(float(high), 1.96), 2)),
    )


def score_counts(point: ScalePoint, counts: Floats, native: Floats) -> Floats:
    """Return how many standard deviations corrected counts are off, where there are any."""
    known = np.isfinite(counts)
    corrected = np.maximum(counts[known], 0) / point.gain
    deviation = np.hypot([point.deviation(count) for count in corrected], MIN_CONSTANT)
    return np.asarray((native[known] - corrected) / deviation)


def count_regions(found: NetworkMap, side: int) -> Floats:
    """Return the count of an image, and those of its regions: NaN where cells do not fit."""
    values, counts = found.values[0], [np.array([found.values[0].sum()])]
    region = side // 2
    while region >= MIN_REGION:
        n = (side // region) ** 2
        fits = region % found.cell == 0
        counts.append(
            sum_blocks(values, region // found.cell).ravel() if fits else np.full(n, np.nan)
        )
        region //= 2
    return np.concatenate(counts)


def write_accuracy(
    folder: Path, role: str, found: CountError | ScaleCurve | PredictionError
) -> None:
    """Write a figure into a role's card in ``bundle.json``, in place of that of the same domain."""
    file = folder / "bundle.json"
    bundle: Any = read_json(file)
    entry = bundle["roles"][role]
    card = ModelCard.from_dict(entry["card"], file)
    section, figures = "prediction_error", found
    if not isinstance(found, PredictionError):
        section = "count_error" if isinstance(found, CountError) else "scale_curve"
        kept = [one for one in getattr(card.accuracy, section) if one.synthetic != found.synthetic]
        figures = (*kept, found)
    accuracy = card.accuracy.model_copy(update={section: figures})
    entry["card"] = card.model_copy(update={"accuracy": accuracy}).model_dump(
        mode="json", exclude_defaults=True
    )
    file.write_text(json.dumps(bundle, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def describe(options: argparse.Namespace, images: int) -> Measurement:
    """Return the origin of the measured figures."""
    if options.photos:
        domain, data = "photographs", f"{images} photos of the split `{options.split}`"
        if options.split == "val":
            data += ", by which trainings were chosen"
        source = f"--photos DATA_FOLDER --split {options.split}"
    else:
        last = FIRST_SEED + images - 1
        domain = f"synthetic images `{options.images}`"
        data = f"sides and numbers of images {options.sizes}, seeds {FIRST_SEED}–{last}"
        source = f"--images {options.images} --sizes {options.sizes}"
        if options.scales:
            source += f" --scales {options.scales}"
    if options.role != "main":
        source += f" --role {options.role}"
    model = shlex.quote(options.model)
    return Measurement(
        domain=domain,
        synthetic=options.images,
        images=images,
        data=data,
        command=f"python -m benchmarks.accuracy {model} {source} --write",
    )


def coverage(pairs: CountPairs, error: CountError) -> dict[str, float]:
    """Return the share of true counts in their intervals, by side of the region."""
    from hrviewer.runs.estimates import true_interval

    held = [
        low <= true <= high
        for (low, high), true in zip(
            (true_interval(count, (count, count), error) for count in pairs.predicted),
            pairs.true,
            strict=True,
        )
    ]
    return {
        str(side): round(float(np.mean(np.array(held)[pairs.side == side])), 3)
        for side in np.unique(pairs.side)
    }


def main(arguments: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", help="name of an installed model bundle")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--images", metavar="NAME", help="synthetic images, as in sample:NAME")
    source.add_argument("--photos", metavar="FOLDER", type=Path, help="photos with index.csv")
    parser.add_argument("--split", default="val", help="split of the photos")
    parser.add_argument("--sizes", default=SIZES, help="sides and numbers of synthetic images")
    parser.add_argument("--scales", default="", help="scales of a curve: 1..2,3,4")
    parser.add_argument(
        "--role", default="main", help="main; scout, scanner, head or transformer, against main"
    )
    parser.add_argument("--maps", type=Path, help="folder of outputs; in the cache by default")
    parser.add_argument("--write", action="store_true", help="write into the card")
    options = parser.parse_args(None if arguments is None else list(arguments))
    found: CountError | ScaleCurve | PredictionError
    report: dict[str, Any] = {}
    with NetworkMaps.open(options.model, options.maps) as maps:
        if options.role in {*CELLS, *STAND_INS}:
            images = len(list(parse_sizes(options.sizes)))
            sum_up = sum_remainders if options.role in CELLS else sum_regions
            sums = sum_up(maps, options.images, options.sizes, options.role)
            found = fit_prediction_error(sums, describe(options, images))
        elif options.scales:
            scales = parse_scales(options.scales)
            images = len(list(parse_sizes(options.sizes)))
            measurement = describe(options, images)
            found = measure_curve(maps, options.images, options.sizes, scales, measurement)
        else:
            if options.photos:
                pairs = count_photos(maps, options.photos, options.split, options.role)
                images = len(pairs.true)
            else:
                pairs = count_images(maps, options.images, options.sizes, options.role)
                images = len(list(parse_sizes(options.sizes)))
            found = fit_count_error(pairs, describe(options, images))
            whole = np.median(np.abs(pairs.true - pairs.predicted) / np.maximum(pairs.true, 1))
            report = {"coverage": coverage(pairs, found), "median_error": round(float(whole), 4)}
    if options.write:
        write_accuracy(installed_bundles()[options.model].folder, options.role, found)
    print(json.dumps(report | found.model_dump(), indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
