"""Memory of opening, panning and inference: ``python -m benchmarks.memory``.

Each size is measured in a process of its own, on an array that repeats one tile and is made as it
is read, so only the requested parts of the image exist. The cache of tiles is given the
same bound for all sizes, and the work is the same: a pan, then 2,000 patches spread evenly.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hrviewer.engine import DeviceScheduler, LoadedModels
from hrviewer.geometry import Patch, Rect
from hrviewer.models import ModelBundle, ModelCard, Network
from hrviewer.models.memory_usage import peak_memory
from hrviewer.models.network import Floats
from hrviewer.pyramid import open_pyramid
from hrviewer.pyramid.tile_cache import tile_cache
from hrviewer.runs.runner import RunSpec
from hrviewer.strategies import Estimate, Params, PatchRequest, PlanContext, Strategy
from hrviewer.strategies.protocol import Plan
from hrviewer.strategies.tiling import aggregate, batches

TILE = 512
CACHE = 256 << 20
SIDE = 64


class TiledArray:
    """An array ``(h, w, 3)`` of 8-bit pixels that repeats a tile, made as it is read."""

    dtype = np.dtype(np.uint8)
    ndim = 3

    def __init__(self, side: int) -> None:
        self.shape = side, side, 3
        self._tile = np.random.default_rng(0).integers(0, 256, (TILE, TILE, 3), np.uint8)

    def __getitem__(self, window: tuple[slice, ...]) -> NDArray[np.uint8]:
        rows, columns = (
            np.arange(*part.indices(length)) % TILE
            for part, length in zip(window[:2], self.shape[:2], strict=True)
        )
        return self._tile[rows[:, None], columns[None]]


class Bright(Network):
    """A density that adds red up over 4 × 4 pixels."""

    def _run(self, batch: Floats) -> Sequence[Floats]:
        n, _, h, w = batch.shape
        return [batch[:, :1].reshape(n, 1, h // 4, 4, w // 4, 4).sum((3, 5))]

    def _count(self, h: int, w: int) -> float:
        return float(h * w)


class TinyBundle(ModelBundle):
    """A model bundle of one network without a file."""

    def __init__(self) -> None:
        card = ModelCard.model_validate(
            {
                "name": "bright",
                "task": "density",
                "input": {
                    "channels": "rgb",
                    "scale": 1 / 255,
                    "mean": [0.0],
                    "std": [1.0],
                    "tile": SIDE,
                    "multiple_of": 4,
                },
                "output": {"stride": 4, "halo": 0, "classes": ["light"]},
            }
        )
        super().__init__("bright", {"main": (Path("bright"), card)})
        self._network = Bright(card, "bright", "numpy", "cpu")

    def load(self, role: str = "main", device: str = "auto", threads: int | None = None) -> Network:
        """Return the network."""
        return self._network


class EvenGridParams(Params):
    """The number of patches."""

    patches: int = 2000


class EvenGrid(Strategy):
    """Inference on patches of an even grid over the whole image."""

    id: ClassVar[str] = "spread"
    title: ClassVar[str] = "Spread"
    family: ClassVar[str] = "benchmark"
    when: ClassVar[str] = "Never but here"
    Params: ClassVar[type[Params]] = EvenGridParams

    def plan(self, context: PlanContext, params: EvenGridParams) -> Plan:
        """Send requests for the patches; add their predictions up."""
        across = math.ceil(math.sqrt(params.patches))
        side = context.region.w // across // SIDE * SIDE
        patches = [
            Patch(Rect(i // across * side, i % across * side, SIDE, SIDE), 1.0, 0)
            for i in range(params.patches)
        ]
        handles = []
        for batch in batches(patches):
            result = yield PatchRequest("main", batch, target="output")
            handles += result.results
        return Estimate(aggregate(context.main, handles))


def make_levels(gigapixels: float) -> list[TiledArray]:
    """Return a pyramid of that many pixels, halved until it fits a tile."""
    side = round(math.sqrt(gigapixels * 1e9)) // TILE * TILE
    sides = [side]
    while sides[-1] > TILE:
        sides.append(-(-sides[-1] // 2))
    return [TiledArray(each) for each in sides]


def iter_views(shape: tuple[int, int]) -> Iterator[tuple[Rect, float]]:
    """Yield what a window of 1024 pixels asks for: in from the whole, then across."""
    window = 1024
    whole = 2.0 ** math.ceil(math.log2(max(shape) / window))
    scale, centre = whole, (shape[0] / 2, shape[1] / 2)
    views = []
    while scale >= 1:
        views.append((centre, scale))
        scale /= 2
    views += [
        ((shape[0] * (0.1 + 0.008 * i), shape[1] * (0.9 - 0.008 * i)), 1.0) for i in range(100)
    ]
    for (y, x), scale in [*views, *reversed(views[:100])]:
        half = window * scale / 2
        rect = Rect(round(y - half), round(x - half), round(2 * half), round(2 * half))
        yield rect & Rect(0, 0, *shape), scale


def measure_one(gigapixels: float, patches: int) -> dict[str, Any]:
    """Measure in this process, which must have done nothing else."""
    tile_cache().limit = CACHE
    imported = peak_memory()
    with open_pyramid(make_levels(gigapixels)) as pyramid, tempfile.TemporaryDirectory() as folder:
        opened = peak_memory()
        for rect, scale in iter_views(pyramid.plane_shape):
            pyramid.read(rect, scale)
        panned = peak_memory()
        device = DeviceScheduler()
        try:
            bundle = TinyBundle()
            spec = RunSpec(pyramid, bundle, EvenGrid(), EvenGridParams(patches=patches))
            run = spec.run(LoadedModels(bundle, device), out=Path(folder) / "a.run.zarr")
            counts = dict(run.patches["status"].value_counts())
        finally:
            device.close()
        if counts != {"done": patches}:
            raise RuntimeError(f"not all of {patches} patches were done: {counts}")
        return {
            "gigapixels": pyramid.rect.area / 1e9,
            "imported": imported,
            "opened": opened,
            "panned": panned,
            "peak": peak_memory(),
        }


def measure(sizes: Sequence[float], patches: int = 2000) -> dict[str, Any]:
    """Return the peak resident bytes of each size, and the largest over the smallest."""
    found = []
    for size in sizes:
        command = [sys.executable, "-m", "benchmarks.memory", "--one", str(size)]
        command += ["--patches", str(patches)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found.append(json.loads(done.stdout))
    ends = found[-1]["peak"], found[0]["peak"]
    base = found[-1]["imported"], found[0]["imported"]
    return {
        "bytes": {f"{size:g}": each["peak"] for size, each in zip(sizes, found, strict=True)},
        "ratio": round(ends[0] / ends[1], 4),
        "ratio_above_imports": round((ends[0] - base[0]) / (ends[1] - base[1]), 4),
        "tile_cache": CACHE,
        "patches": patches,
        "stages": found,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--gigapixels", type=float, nargs="+", default=[1, 4, 16])
    parser.add_argument("--patches", type=int, default=2000)
    parser.add_argument("--one", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one is not None:
        print(json.dumps(measure_one(options.one, options.patches)))
    else:
        print(json.dumps(measure(sorted(options.gigapixels), options.patches), indent=1))


if __name__ == "__main__":
    main()
