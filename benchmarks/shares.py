"""Shares of classes under settings of ``zoom``: ``python -m benchmarks.shares IMAGE``.

    python -m benchmarks.shares CMU-1-Small-Region.svs --region 0,0,1344,1344

The tiny networks of `benchmarks.class_models` run with every setting and seed. One JSON object is
printed: for each network the least and largest sum of the shares over all runs, how many of the
intervals of single classes hold what exhaustive inference gives, the median and largest error of a
share, and the median half-width of the intervals.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import hrviewer
from benchmarks.class_models import write_models

SETTINGS = (
    "", "method=threshold", "method=sampling", "method=quadtree", "share=0", "share=0.9", "tile=64",
    "k=8",
)  # fmt: skip
"""Parameters of zoom; the first are its defaults. Those that a model refuses are left out."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shares", description=__doc__)
    parser.add_argument("image")
    parser.add_argument("--region", help="y,x,h,w; the whole image by default")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budget", help="of each run; the strategy's by default")
    options = parser.parse_args(arguments)
    region = None if options.region is None else tuple(map(int, options.region.split(",")))
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, path in write_models(Path(folder)).items():
            with hrviewer.load(path, device="cpu") as model:
                found[name] = measure(
                    options.image, model, region, options.seeds, options.budget, Path(folder) / name
                )
    print(json.dumps(vars(options) | {"by_model": found}, indent=1))


def measure(
    image: str, model: Any, region: Any, seeds: int, budget: str | None, folder: Path
) -> dict[str, Any]:
    """Return the sums, errors and intervals of a model's shares."""
    folder.mkdir()

    def shares(strategy: str, out: str, **settings: Any) -> Any:
        done = model.run(
            image, strategy, region=region, out=folder / out, progress=False, **settings
        )
        return done.estimate

    whole = shares("patches", "whole.run.zarr")
    of_region = sum(whole["per_class"].values())
    runs = [
        (setting, shares("zoom", f"{i}-{seed}.run.zarr", seed=seed, budget=budget, **params))
        for i, setting in enumerate(SETTINGS)
        if (params := parse(setting, model)) is not None
        for seed in range(seeds)
    ]
    sums = [sum(estimate["per_class"].values()) / of_region for _, estimate in runs]
    ends = [
        (ends, name)
        for _, estimate in runs
        for name, ends in estimate.get("per_class_ci95", {}).items()
    ]
    slack = 1e-6 * of_region
    held = [low - slack <= whole["per_class"][n] <= high + slack for (low, high), n in ends]
    errors = [
        abs(estimate["per_class"][name] - value) / of_region
        for _, estimate in runs
        for name, value in whole["per_class"].items()
    ]
    return {
        "exhaustive": {name: value / of_region for name, value in whole["per_class"].items()},
        "settings": list(dict.fromkeys(setting or "default" for setting, _ in runs)),
        "runs": len(runs),
        "sums": [min(sums), max(sums)],
        "intervals": len(ends),
        "held": sum(held),
        "median_error": float(np.median(errors)),
        "largest_error": max(errors),
        "median_half_width": float(np.median([(b - a) / 2 for (a, b), _ in ends])) / of_region,
    }


def parse(setting: str, model: Any) -> dict[str, Any] | None:
    """Return parameters; None if they are a tile, of which the model has one size only."""
    params = dict(part.split("=") for part in setting.split() if part)
    fixed = model.card.input.fixed
    return None if fixed and "tile" in params else params


if __name__ == "__main__":
    main()
