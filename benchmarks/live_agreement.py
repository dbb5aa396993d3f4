"""Agreement of Live with runs: ``python -m benchmarks.live_agreement``.

On synthetic images of seeds 10000 and on, every strategy runs on the whole image, and Live on the
cells that cover the image at a zoom: both at default settings. Results are cached nowhere.

``bias``
    The sum of all cells' counts over the sum of all runs' counts, less 1, over all images and
    zooms of a strategy.
``within``
    Of the views of a strategy whose run and cells have intervals, how many differ by less than the
    two half-widths together.
``views``
    Each image at each zoom: the run's count, that of the cells, their difference, relative, and the
    FLOPs of the cells over those of the run.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import threading
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hrviewer.app.maps.live_summary import combine_cells
from hrviewer.engine import DeviceScheduler, LiveSession, LoadedModels, ViewportCell
from hrviewer.geometry import Rect
from hrviewer.models import open_bundle
from hrviewer.pyramid import Pyramid, open_pyramid
from hrviewer.runs.runner import RunSpec
from hrviewer.strategies import get_strategy, strategy_ids

FIRST_SEED = 10_000


def live_cells(
    pyramid: Pyramid, models: LoadedModels, name: str, zoom: float
) -> list[ViewportCell]:
    """Return Live's cells over the whole image, at `zoom` level-0 pixels per screen pixel."""
    strategy = get_strategy(name)
    finished: dict[Rect, ViewportCell] = {}
    failed: list[Exception] = []
    changed = threading.Event()

    def on_update(number: int, rect: Rect, update: Any) -> None:
        if isinstance(update, ViewportCell):
            finished[rect] = update
            changed.set()

    def on_error(error: Exception) -> None:
        failed.append(error)
        changed.set()

    session = LiveSession(
        pyramid, models, strategy, strategy.Params(), on_update=on_update, on_error=on_error
    )
    try:
        session.follow_view(pyramid.rect, zoom)
        while session.pending and not failed:
            changed.wait(1.0)
            changed.clear()
    finally:
        session.close()
    if failed:
        raise failed[0]
    return [*finished.values()]


def measure_image(image: str, model: str, names: Sequence[str], zooms: Sequence[float]) -> Any:
    """Yield a row for each strategy and zoom."""
    device = DeviceScheduler()
    models = LoadedModels(open_bundle(model), device, "cpu")
    try:
        with open_pyramid(image) as pyramid, tempfile.TemporaryDirectory() as folder:
            for name in names:
                strategy = get_strategy(name)
                spec = RunSpec(pyramid, models.bundle, strategy, strategy.Params())
                run = spec.run(models, out=Path(folder) / f"{name}.run.zarr")
                assert run.estimate is not None
                for zoom in zooms:
                    cells = live_cells(pyramid, models, name, zoom)
                    together = combine_cells(cells, additive=True)
                    assert together.values is not None
                    count, live = run.estimate["value"], float(np.sum(together.values))
                    interval = together.interval
                    shared = {
                        (result.role, result.patch): result.cost.flops
                        for cell in cells
                        for _, results in cell.results
                        for result in results
                    }
                    own = run.estimate["ci95"]
                    yield {
                        "image": image,
                        "strategy": name,
                        "zoom": zoom,
                        "run": count,
                        "cells": live,
                        "difference": live / count - 1,
                        "within": None
                        if own is None or interval is None
                        else abs(live - count)
                        <= math.hypot(own[1] - own[0], interval[1] - interval[0]) / 2,
                        "flops_of_run": sum(shared.values()) / run.cost["flops"],
                    }
    finally:
        device.close()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.live_agreement",
                                     description=__doc__)  # fmt: skip
    parser.add_argument("--model", default="crowd")
    parser.add_argument("--sample", default="crowd", help="name of the synthetic image")
    parser.add_argument("--sizes", type=int, nargs="+", default=[2048, 4096])
    parser.add_argument("--images", type=int, default=5, help="images of each size")
    parser.add_argument("--seed", type=int, default=FIRST_SEED, help="first seed")
    parser.add_argument("--zooms", type=float, nargs="+", default=[1.0, 2.0])
    parser.add_argument("--strategies", nargs="+", default=strategy_ids())
    options = parser.parse_args(arguments)
    views: list[dict[str, Any]] = []
    for size in options.sizes:
        for seed in range(options.seed, options.seed + options.images):
            image = f"sample:{options.sample}?size={size}&seed={seed}"
            views += measure_image(image, options.model, options.strategies, options.zooms)
    by_strategy = defaultdict(list)
    for view in views:
        by_strategy[view["strategy"]].append(view)
    summary = {}
    for name, rows in by_strategy.items():
        known = [row["within"] for row in rows if row["within"] is not None]
        summary[name] = {
            "bias": sum(row["cells"] for row in rows) / sum(row["run"] for row in rows) - 1,
            "largest_difference": max(abs(row["difference"]) for row in rows),
            "within": f"{sum(known)} of {len(known)}",
            "flops_of_run": float(np.mean([row["flops_of_run"] for row in rows])),
        }
    print(json.dumps({"summary": summary, "views": views}, indent=1))


if __name__ == "__main__":
    main()
