"""Coverage of the intervals of random tile samples: ``python -m benchmarks.tile_samples``.

One JSON object is printed. No inference is run: the objects of synthetic images, counted per tile,
stand for the predictions of all tiles, and a part of the tiles is drawn as `patches` draws them
under a budget. An interval should hold the count of all tiles in 95 % of the cases.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from hrviewer.pyramid import open_pyramid
from hrviewer.strategies.estimation.stratified import StratifiedEstimator, stratified_order

Floats = np.ndarray[Any, np.dtype[np.float64]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tile_samples", description=__doc__)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--tile", type=int, default=256)
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--first-seed", type=int, default=10100)
    parser.add_argument("--parts", type=float, nargs="*", default=[0.1, 0.2, 0.4])
    parser.add_argument("--draws", type=int, default=10, help="samples of each image")
    options = parser.parse_args(arguments)
    images = [
        counts_per_tile(options.size, options.tile, options.first_seed + i)
        for i in range(options.images)
    ]
    found = {f"{part:g}": measure(images, part, options.draws) for part in options.parts}
    print(json.dumps(vars(options) | {"by_part": found}, indent=1))


def counts_per_tile(size: int, tile: int, seed: int) -> Floats:
    """Return the objects of a synthetic image in each tile, ``(rows, columns)``."""
    with open_pyramid(f"sample:crowd?size={size}&seed={seed}") as pyramid:
        truth = pyramid.ground_truth(pyramid.rect)
    if truth is None:
        raise ValueError("a synthetic image has ground truth")
    edges = np.arange(0, size + tile, tile)
    return np.histogram2d(truth.points[:, 0], truth.points[:, 1], bins=(edges, edges))[0]


def measure(images: Sequence[Floats], part: float, draws: int) -> dict[str, float | None]:
    """Return the share of samples with an interval, and of those that hold the whole count."""
    widths, held, total = [], [], 0
    for counts in images:
        positions = np.argwhere(np.ones(counts.shape, bool))
        values = counts.ravel()[:, None]
        n = round(part * len(values))
        for seed in range(draws):
            drawn = stratified_order(positions, n, np.random.default_rng(seed))
            some = drawn.order[:n]
            sample = StratifiedEstimator(values[some], some, np.ones(len(values)), drawn.stratum)
            interval, total = sample.total_interval(), total + 1
            if interval is not None:
                held.append(interval[0] <= counts.sum() <= interval[1])
                widths.append((interval[1] - interval[0]) / 2 / counts.sum())
    return {
        "given": round(len(held) / total, 3),
        "covered": round(float(np.mean(held)), 3) if held else None,
        "median_half_width": round(float(np.median(widths)), 3) if widths else None,
    }


if __name__ == "__main__":
    main()
