"""Coverage of the interval of `zoom`: how often it contains the count of `patches`, over seeds.

    python docs/intervals.py [IMAGE] [--model crowd] [--seeds 60] [--set NAME=VALUE …]

Prints one JSON object: the seeds whose 95 % interval contains the count of `patches`, the median of
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
    parse.add_argument("image", nargs="?", default="sample:crowd?size=8192&seed=11120")
    parse.add_argument("--model", default="crowd")
    parse.add_argument("--seeds", type=int, default=60)
    parse.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    options = parse.parse_args()
    params = dict(one.split("=", 1) for one in options.set)
    with tempfile.TemporaryDirectory() as folder:

        def counted(strategy: str, seed: int = 0, **params: str) -> hrviewer.Run:
            out = Path(folder, f"{strategy}-{seed}.run.zarr")
            return hrviewer.run(
                options.image, options.model, strategy, seed=seed, out=out, **params
            )

        full = counted("patches")
        draws = [counted("zoom", seed, **params) for seed in range(options.seeds)]
    count = full.estimate["value"]
    ranges = [run.estimate["ci95"] for run in draws]
    print(
        json.dumps(
            {
                "image": options.image,
                "patches": count,
                "seeds": options.seeds,
                "covered": sum(low <= count <= high for low, high in ranges),
                "median_half_width": statistics.median((b - a) / 2 / count for a, b in ranges),
                "median_error": statistics.median(
                    abs(run.estimate["value"] / count - 1) for run in draws
                ),
                "flops_of_patches": statistics.mean(run.cost["flops"] for run in draws)
                / full.cost["flops"],
            }
        )
    )


if __name__ == "__main__":
    main()
