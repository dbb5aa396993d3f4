"""Counts by scale, corrected, on other images: ``python -m benchmarks.scale_curve``.

    python -m benchmarks.scale_curve crowd --images crowd
    python -m benchmarks.scale_curve nuclei --images tissue

The card's curve was measured on images to choose by (`benchmarks.accuracy ... --scales`). This runs
``main`` on images of a block for reports at native scale and at others, and prints one JSON object,
for each scale and for all together:

``counted``
    Count over that at native scale, before the correction, of all images together.
``corrected``
    The same after it.
``error``
    Median of the absolute error of corrected counts of images and their regions, relative.
``holds``
    Share of images and regions whose interval holds the count at native scale.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy import count_regions, parse_scales, parse_sizes, score_counts
from benchmarks.network_maps import NetworkMaps
from hrviewer.models.accuracy import ScaleCurve
from hrviewer.pyramid import open_pyramid

__all__ = ["check_scale", "main"]

Floats = NDArray[np.float64]

FIRST_SEED = 11_600
SIZES = "2048x6"
SCALES = "1.25,1.5,2,2.5,3,4"


def check_scale(curve: ScaleCurve, scale: float, counts: Floats, native: Floats) -> dict[str, Any]:
    """Return the figures of a scale.

    Parameters
    ----------
    curve : ScaleCurve
        The card's curve.
    scale : float
        Level-0 pixels per model pixel.
    counts, native : ndarray, shape (n,)
        Counts of images and regions at this scale, NaN where cells do not fit, and at native scale.
    """
    point = curve.at(scale)
    assert point is not None, f"the curve ends before 1/{scale:g}"
    known = np.isfinite(counts)
    corrected, native = counts[known] / point.gain, native[known]
    scores = score_counts(point, counts[known], native)
    low, high = curve.quantiles
    some = native >= 1
    return {
        "counted": round(float(counts[known].sum() / native.sum()), 3),
        "corrected": round(float(corrected.sum() / native.sum()), 3),
        "error": round(float(np.median(np.abs(corrected / native - 1)[some])), 3),
        "holds": round(float(np.mean((low <= scores) & (scores <= high))), 3),
        "counts": len(scores),
    }


def main(arguments: Iterable[str] | None = None) -> None:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale_curve",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", help="name of an installed model bundle")
    parser.add_argument("--images", metavar="NAME", required=True, help="as in sample:NAME")
    parser.add_argument("--sizes", default=SIZES, help="sides and numbers of synthetic images")
    parser.add_argument("--scales", default=SCALES, help="scales: 1..2,3,4")
    parser.add_argument("--first", type=int, default=FIRST_SEED, help="first seed of the images")
    parser.add_argument("--maps", type=Path, help="folder of outputs; in the cache by default")
    options = parser.parse_args(None if arguments is None else list(arguments))
    scales = parse_scales(options.scales)
    counts: dict[float, list[Floats]] = {scale: [] for scale in [1.0, *scales]}
    with NetworkMaps.open(options.model, options.maps) as maps:
        curve = maps.networks.bundle.card.accuracy.scale_curve_for(options.images)
        if curve is None:
            parser.error(f"the card of {options.model} has no curve for {options.images}")
        for side, seed in parse_sizes(options.sizes, options.first):
            with open_pyramid(f"sample:{options.images}?size={side}&seed={seed}") as pyramid:
                for scale in counts:
                    counts[scale].append(count_regions(maps.of(pyramid, "main", scale), side))
            print(f"{options.images} {side} {seed}", file=sys.stderr)
    native = np.concatenate(counts.pop(1.0))
    found = {
        f"1/{scale:g}": check_scale(curve, scale, np.concatenate(each), native)
        for scale, each in counts.items()
    }
    total = sum(each["counts"] for each in found.values())
    held = sum(each["counts"] * each["holds"] for each in found.values()) / total
    report = {"curve": curve.data, "images": options.sizes, "first_seed": options.first}
    print(json.dumps(report | {"scales": found, "holds": round(held, 3)}, indent=1))


if __name__ == "__main__":
    main()
