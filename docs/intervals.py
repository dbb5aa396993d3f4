"""Say how often the interval of `zoom` holds what `patches` counts, over seeds of its draws.

    python docs/intervals.py [IMAGE] [--model crowd] [--seeds 60] [--set NAME=VALUE …]

Prints one JSON object: the seeds whose 95 % interval holds the count of `patches`, the median of
half its width and of the error over that count, and the FLOPs over those of `main` on every pixel.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import hrviewer


def main() -> None:
    """Run `patches` once, and `zoom` with every seed; results are cached between them."""
    parse = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parse.add_argument("image", nargs="?", default="sample:crowd?size=8192&seed=11000")
    parse.add_argument("--model", default="crowd")
    parse.add_argument("--seeds", type=int, default=60)
    parse.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    told = parse.parse_args()
    params = dict(one.split("=", 1) for one in told.set)
    with tempfile.TemporaryDirectory() as folder:

        def counted(strategy: str, seed: int = 0, **how: str) -> hrviewer.Run:
            out = Path(folder, f"{strategy}-{seed}.run.zarr")
            return hrviewer.run(told.image, told.model, strategy, seed=seed, out=out, **how)

        full = counted("patches")
        draws = [counted("zoom", seed, **params) for seed in range(told.seeds)]
    there = full.estimate["value"]
    ranges = [run.estimate["ci95"] for run in draws]
    print(
        json.dumps(
            {
                "image": told.image,
                "patches": there,
                "seeds": told.seeds,
                "covered": sum(low <= there <= high for low, high in ranges),
                "median_half_width": statistics.median((b - a) / 2 / there for a, b in ranges),
                "median_error": statistics.median(
                    abs(run.estimate["value"] / there - 1) for run in draws
                ),
                "flops_of_patches": statistics.mean(run.cost["flops"] for run in draws)
                / full.cost["flops"],
            }
        )
    )


if __name__ == "__main__":
    main()
