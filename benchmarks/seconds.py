"""Seconds asked for against seconds taken: ``python -m benchmarks.seconds [IMAGE ...]``.

One JSON object is printed. Every strategy runs with a limit of seconds, and ``uniform`` with the
seconds that another strategy took. Results are not cached, and tiles are forgotten between runs, so
that every run reads its file. Without IMAGE, a synthetic image is written as a tiled TIFF first.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tifffile

from hrviewer.engine import Budget, LoadedModels
from hrviewer.pyramid import Pyramid, open_pyramid
from hrviewer.pyramid.tile_cache import tile_cache
from hrviewer.runs.run import Run
from hrviewer.runs.runner import RunSpec
from hrviewer.strategies import get_strategy

from .throughput import loaded_models

STRATEGIES = ("patches", "scanner", "compression", "zoom", "uniform")
SOURCE = "sample:crowd?size={size}&seed={seed}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.seconds", description=__doc__)
    parser.add_argument("images", nargs="*", help="files; a synthetic image by default")
    parser.add_argument("--model", default="crowd")
    parser.add_argument("--seconds", type=float, nargs="*", default=[4.0], help="limits")
    parser.add_argument("--matched", default="zoom", help="strategy that uniform is matched to")
    parser.add_argument("--repeats", type=int, default=10, help="of every run with a limit")
    parser.add_argument(
        "--size", type=int, default=4096, help="side of the synthetic image, pixels"
    )
    parser.add_argument("--strategies", nargs="*", default=STRATEGIES)
    options = parser.parse_args(arguments)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for image in options.images or [write_synthetic(Path(folder), options.size)]:
            with open_pyramid(image) as pyramid, loaded_models(options.model, "auto") as models:
                found[Path(image).name] = {
                    "limits": list(
                        measure_limits(
                            pyramid, models, options.strategies, options.seconds, options.repeats
                        )
                    ),
                    "matched": measure_matched(pyramid, models, options.matched, options.repeats),
                }
    print(json.dumps(found, indent=1))


def write_synthetic(folder: Path, size: int, seed: int = 10000) -> str:
    """Write a synthetic image as a tiled TIFF with levels."""
    path = folder / f"crowd-{size}.tif"
    with (
        open_pyramid(SOURCE.format(size=size, seed=seed)) as image,
        tifffile.TiffWriter(path) as writer,
    ):
        options: dict[str, Any] = {"tile": (256, 256), "compression": "jpeg", "photometric": "rgb"}
        levels = [1, 2, 4, 8]
        for scale in levels:
            pixels = image.read(image.rect, scale=scale)
            subifds = len(levels) - 1 if scale == 1 else 0
            writer.write(pixels, subifds=subifds, subfiletype=scale > 1, **options)
    return str(path)


@contextmanager
def timed_run(
    pyramid: Pyramid, models: LoadedModels, strategy_id: str, seconds: float | None
) -> Iterator[Run]:
    """Run a strategy on the file, with no tile in memory, in a folder that is removed."""
    tile_cache().clear()
    strategy = get_strategy(strategy_id)
    budget = None if seconds is None else Budget(seconds, "seconds")
    spec = RunSpec(pyramid, models.bundle, strategy, strategy.Params(), budget=budget)
    with tempfile.TemporaryDirectory() as folder:
        yield spec.run(models, out=Path(folder) / "x.run.zarr")


def measure_limits(
    pyramid: Pyramid,
    models: LoadedModels,
    strategies: Sequence[str],
    limits: Sequence[float],
    repeats: int,
) -> Iterator[dict[str, Any]]:
    """Yield asked and taken seconds of every strategy and limit."""
    for strategy in strategies:
        with timed_run(pyramid, models, strategy, None):
            pass  # loads and measures all networks
        for limit in limits:
            taken = []
            for _ in range(repeats):
                with timed_run(pyramid, models, strategy, limit) as run:
                    taken.append(run.header["spent"]["wall_s"])
            print(strategy, limit, *(round(each, 3) for each in taken), file=sys.stderr)
            yield {
                "strategy": strategy,
                "asked_s": limit,
                "median_ratio": round(statistics.median(taken) / limit, 3),
                "ratios": [round(seconds / limit, 3) for seconds in taken],
                "coverage": run.coverage,
                "estimate": run.estimate and run.estimate["value"],
            }


def measure_matched(
    pyramid: Pyramid, models: LoadedModels, strategy: str, repeats: int
) -> dict[str, Any]:
    """Return the ratio of the seconds of ``uniform`` to those that it was matched to."""
    ratios, asked = [], []
    for _ in range(repeats):
        with timed_run(pyramid, models, strategy, None) as run:
            asked.append(run.cost["wall_s"])
        with timed_run(pyramid, models, "uniform", asked[-1]) as run:
            ratios.append(run.header["spent"]["wall_s"] / asked[-1])
    return {
        "strategy": strategy,
        "asked_s": round(statistics.median(asked), 3),
        "median_ratio": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
    }


if __name__ == "__main__":
    main()
