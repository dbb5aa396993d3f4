"""Time to measure regions of a finished run: ``python -m benchmarks.regions --regions 200``.

One JSON object is printed. The run is of a square image of ``--side`` pixels (131072: 17.2
gigapixels) with an output cell of 4 pixels; its map holds noise, as hard to decompress as any
network's. The regions are polygons of ``--corners`` corners with a hole, of 500 to ``--largest``
pixels across.

``table_s``
    Opening the run, measuring all regions and making their table.
``chunks``
    Chunks of the map that regions touch, each of which is read once.
``regions_px2``
    Area of all regions.
``largest_error``
    Of the areas, relative to shapely's.

``--coverage`` measures instead how often the intervals of regions hold: of every run folder in
``--runs``, ``--regions`` random polygons of the same image are compared with those of its
exhaustive run, which is among them.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hrviewer.geometry import Rect
from hrviewer.regions import Region
from hrviewer.runs import Run

CELL = 4.0
CHUNKS = 8
"""Different chunks of noise; the others are links to them."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.regions", description=__doc__)
    parser.add_argument("--side", type=int, default=131072)
    parser.add_argument("--regions", type=int, default=200)
    parser.add_argument("--corners", type=int, default=60)
    parser.add_argument("--largest", type=float, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--coverage", action="store_true")
    parser.add_argument("--runs", type=Path, metavar="FOLDER")
    chosen = parser.parse_args(arguments)
    if chosen.coverage:
        print(json.dumps(measure_coverage(chosen.runs, chosen.regions, chosen.seed), indent=1))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = make_run(Path(folder) / "x.run.zarr", chosen.side, chosen.seed)
        image = Rect(0, 0, chosen.side, chosen.side)
        regions = random_regions(
            image, chosen.regions, chosen.seed, (500, chosen.largest), chosen.corners
        )
        print(json.dumps(measure_time(path, regions), indent=1))


def random_regions(
    image: Rect, n: int, seed: int, sizes: tuple[float, float], corners: int = 60
) -> list[Region]:
    """Return star-shaped polygons, each with a hole, of sizes between two diameters."""
    rng = np.random.default_rng(seed)
    regions = []
    for i in range(n):
        radius = np.exp(rng.uniform(*np.log(sizes))) / 2
        center = rng.uniform((radius, radius), (image.h - radius, image.w - radius))
        center += image.y, image.x
        angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
        reach = radius * rng.uniform(0.6, 1, corners)
        ring = np.stack([np.sin(angle), np.cos(angle)], axis=1)
        hole = center + 0.2 * radius * ring[:: max(1, corners // 8)]
        regions.append(Region.from_polygons([[center + reach[:, None] * ring, hole]], f"{i}"))
    return regions


def measure_time(path: Path, regions: Sequence[Region]) -> dict[str, Any]:
    """Return what was measured."""
    start = time.perf_counter()
    table = Run(path).measure(list(regions))
    table_s = time.perf_counter() - start
    areas = np.array([region.area for region in regions])
    chunk = 512 * CELL
    touched = {
        (i, j)
        for box in (region.bounds for region in regions)
        for i in range(int(box.y // chunk), int(-(-box.y1 // chunk)))
        for j in range(int(box.x // chunk), int(-(-box.x1 // chunk)))
    }
    return {
        "regions": len(table),
        "table_s": round(table_s, 3),
        "chunks": len(touched),
        "regions_px2": float(areas.sum()),
        "count": float(table["count"].sum()),
        "largest_error": float(np.abs(table["area_px2"] / areas - 1).max()),
    }


def make_run(path: Path, side: int, seed: int) -> Path:
    """Write the folder of a run that counts, with a map of noise."""
    from hrviewer.engine.cost import QUANTITIES
    from hrviewer.io.ome_metadata import create_image
    from hrviewer.runs.writer import write_header

    rng, cells = np.random.default_rng(seed), int(-(-side // CELL))
    common: dict[str, Any] = {"pixel_size": (0.5, 0.5)}
    output = create_image(
        path / "output", (1, cells, cells), name="output", labels=["nucleus"], cell=CELL, **common
    )
    across = -(-cells // 512)
    chunks = path / "output" / "0" / "c" / "0"
    for number in range(across * across):
        i, j = divmod(number, across)
        if number < min(CHUNKS, across):
            output[:, :512, number * 512 : (number + 1) * 512] = rng.gamma(0.3, 0.02, (1, 512, 512))
        else:
            (chunks / str(i)).mkdir(exist_ok=True)
            os.link(chunks / "0" / str(number % CHUNKS), chunks / str(i) / str(j))
    cost = create_image(
        path / "cost", (len(QUANTITIES), 1024, 1024), name="cost", labels=list(QUANTITIES),
        cell=side / 1024, **common,
    )  # fmt: skip
    cost[:] = 1.0
    value = float(output.size * 0.006)
    stages = ("wall_s", "read_s", "prepare_s", "infer_s", "post_s")
    header: dict[str, Any] = {
        "image": {"path": "made", "shape": [side, side], "pixel_size": [0.5, 0.5],
                  "fingerprint": "made"},
        "region": [0, 0, side, side], "model": "nuclei", "strategy": "patches", "params": {},
        "seed": 0, "budget": None, "started": "2025-01-01T00:00:00+00:00", "complete": True,
        "coverage": 100.0, "counting_area": float(side**2), "data_area": float(side**2),
        "estimate": {"kind": "count", "value": value, "ci95": [value, value], "ci95_truth": None,
                     "exhaustive": True, "per_class": {"nucleus": value}, "map_sum": value},
        "truth": None, "notes": [],
        "cost": {"flops": 1.0, **dict.fromkeys(stages, 1.0), "bytes_read": 1, "pixels_read": 1},
        "patches": {"planned": 1, "done": 1, "cached": 0, "failed": 0},
    }  # fmt: skip
    write_header(path, header)
    return path


def measure_coverage(folder: Path, n: int, seed: int) -> dict[str, Any]:
    """Return, by strategy, how often regions' intervals hold what exhaustive inference gives."""
    by_image: dict[str, list[Run]] = defaultdict(list)
    for path in sorted(folder.glob("**/*.run.zarr")):
        run = Run(path)
        by_image[run.image_key].append(run)
    tried: dict[str, list[tuple[bool, float]]] = defaultdict(list)
    for runs in by_image.values():
        exhaustive = next(run for run in runs if run.estimate and run.estimate["exhaustive"])
        side = min(exhaustive.region.h, exhaustive.region.w)
        regions = random_regions(exhaustive.region, n, seed, (side / 16, side / 2))
        expected = exhaustive.measure(list(regions))["count"].to_numpy()
        for run in runs:
            table = run.measure(list(regions))
            if run is exhaustive or "count" not in table:
                continue
            low, high = table["ci95_low"].to_numpy(), table["ci95_high"].to_numpy()
            known = np.isfinite(low)
            holds = (low <= expected + 1e-6) & (expected - 1e-6 <= high)
            width = (high - low) / 2 / np.maximum(expected, 1)
            name = run.header["strategy"]
            tried[name] += zip(holds[known].tolist(), width[known].tolist(), strict=True)
    return {
        name: {
            "intervals": len(found),
            "hold": round(float(np.mean([holds for holds, _ in found])), 3),
            "median_half_width": round(float(np.median([width for _, width in found])), 3),
        }
        for name, found in tried.items()
        if found
    }


if __name__ == "__main__":
    main()
