"""Throughput and agreement of a network on a GPU: ``python -m benchmarks.gpu [IMAGE] [--model M]``.

One JSON object is printed; without a CUDA device it gives the reason.

``rates``
    For each precision and batch: ``mp_s``, millions of input pixels per second through the
    product's own network, copies to and from the GPU included; ``tflop_s``; ``of_limit``, the
    latter over the GPU's own limit, which is measured with products of large matrices in the same
    numbers; ``utilisation``, the fraction of time in which the GPU computed, from its driver.
``agreement``
    For each precision: the largest difference from the CPU's float32 output over that output's
    greatest value, and the relative difference of the sums, on one tile of the image.
``run``
    A whole `patches` run: its batch, image pixels per second, the GPU's utilisation.
``first_overlay_ms``
    From setting the view of a session with loaded models to its first inference result.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from hrviewer.engine import DeviceScheduler, InferenceResult, LiveSession, LoadedModels
from hrviewer.geometry import Rect
from hrviewer.models import Network, open_bundle
from hrviewer.models.network import Floats
from hrviewer.pyramid import Pyramid, open_pyramid
from hrviewer.pyramid.tile_cache import tile_cache
from hrviewer.runs.runner import RunSpec
from hrviewer.runs.settings import parse_params
from hrviewer.strategies import get_strategy

BATCHES = (1, 2, 4, 8, 16, 32, 64)
PRECISIONS = ("float32", "bfloat16")
MEASURE_SECONDS = 2.0
"""How long each rate is measured."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("image", nargs="?", default="sample:tissue?size=16384&seed=10000")
    parser.add_argument(
        "--model", default="nuclei", help="a model bundle, its folder or a weights file"
    )
    parser.add_argument("--device", default="cuda:0")
    options = parser.parse_args(arguments)
    import torch

    if not torch.cuda.is_available():
        print(json.dumps({"device": None, "why": "torch finds no CUDA device here"}))
        return
    print(json.dumps(measure(options.image, options.model, options.device), indent=1))


def measure(image: object, model: str | Path, device: str) -> dict[str, Any]:
    """Return what was measured."""
    import torch

    rates, agreement = [], {}
    with open_pyramid(image) as pyramid:
        exact = open_bundle(model).load("main", "cpu")
        tile = center_tile(pyramid, exact)
        exact_output = exact(tile)
        for precision in PRECISIONS:
            network = open_bundle(model).load("main", device, precision=precision)
            limit = measure_limit(device, precision)
            agreement[precision] = output_difference(exact_output, network(tile))
            rates += [measure_rate(network, tile, batch, limit, device) for batch in BATCHES]
        return {
            "device": torch.cuda.get_device_name(device),
            "torch": torch.__version__,
            "input": list(tile.shape[1:]),
            "rates": rates,
            "agreement": agreement,
            "run": measure_run(pyramid, model, device),
            "first_overlay_ms": measure_first_overlay(pyramid, model, device),
        }


def center_tile(pyramid: Pyramid, network: Network) -> Floats:
    """Return a tile in the middle of the image, prepared, ``(1, C, h, w)``."""
    card = network.card.input
    side = card.tile if card.fixed else card.tile + 2 * network.halo
    y, x = (length // 2 - side // 2 for length in pyramid.plane_shape)
    pixels = pyramid.read(Rect(y, x, side, side), 1, fill="reflect")
    return np.ascontiguousarray(network.card.prepare(pixels)[None])


def output_difference(one: Floats, other: Floats) -> dict[str, float]:
    """Return by how much an output is off."""
    return {
        "largest": float(np.abs(one - other).max() / np.abs(one).max()),
        "sum": float((other.sum() - one.sum()) / one.sum()),
    }


def measure_limit(device: str, precision: str) -> float:
    """Return the FLOPs per second of products of large matrices."""
    import torch

    n = 8192
    kind = {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]
    a, b = (torch.randn(n, n, device=device, dtype=kind) for _ in range(2))
    best = 0.0
    for _ in range(5):
        torch.cuda.synchronize(device)
        start = time.perf_counter()
        a @ b
        torch.cuda.synchronize(device)
        best = max(best, 2 * n**3 / (time.perf_counter() - start))
    return best


def measure_rate(
    network: Network, tile: Floats, batch: int, limit: float, device: str
) -> dict[str, Any]:
    """Return how fast batches of a tile go through, with two threads as the product has them."""
    inputs = np.repeat(tile, batch, axis=0)
    network(inputs)
    done = [0, 0]
    end = time.perf_counter() + MEASURE_SECONDS

    def work(i: int) -> None:
        while time.perf_counter() < end:
            network(inputs)
            done[i] += batch

    with utilisation(device) as used:
        start = time.perf_counter()
        threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - start
    pixels = sum(done) * tile.shape[2] * tile.shape[3]
    flops = sum(done) * network.flops(*tile.shape[2:]) / seconds
    return {
        "precision": network.precision,
        "batch": batch,
        "mp_s": round(pixels / seconds / 1e6, 2),
        "tflop_s": round(flops / 1e12, 3),
        "of_limit": round(flops / limit, 4),
        "utilisation": used(),
    }


@contextmanager
def utilisation(device: str) -> Iterator[Any]:
    """Poll the driver for the GPU's utilisation; None where it is not available."""
    number = device.partition(":")[2] or "0"
    command = ["nvidia-smi", "-i", number, "--query-gpu=utilization.gpu", "-lms", "100"]
    try:
        process = subprocess.Popen(
            [*command, "--format=csv,noheader,nounits"], stdout=subprocess.PIPE, text=True
        )
    except OSError:
        yield lambda: None
        return
    lines: list[str] = []

    def used() -> float | None:
        found = [float(line) / 100 for line in lines if line.strip().isdigit()]
        return round(statistics.mean(found), 3) if found else None

    try:
        yield used
    finally:
        process.terminate()
        lines += process.communicate()[0].splitlines()


def measure_run(pyramid: Pyramid, model: str | Path, name: str) -> dict[str, Any]:
    """Return how fast a whole run goes."""
    strategy = get_strategy("patches")
    worker = DeviceScheduler()
    try:
        models = LoadedModels(open_bundle(model), worker, name)
        models["main"]
        job = RunSpec(pyramid, models.bundle, strategy, parse_params(strategy, {}))
        tile_cache().clear()
        with tempfile.TemporaryDirectory() as folder, utilisation(name) as used:
            start = time.perf_counter()
            run = job.run(models, out=Path(folder) / "a.run.zarr")
            seconds = time.perf_counter() - start
            failed = int(run.patches["status"].ne("done").sum())
        h, w = pyramid.plane_shape
        return {
            "batch": worker.batch,
            "mp_s": round(h * w / seconds / 1e6, 2),
            "utilisation": used(),
            "failed": failed,
        }
    finally:
        worker.close()


def measure_first_overlay(pyramid: Pyramid, model: str | Path, name: str) -> list[float]:
    """Return the milliseconds to the first result of each of five new views."""
    strategy = get_strategy("patches")
    worker = DeviceScheduler()
    arrived = threading.Event()

    def on_update(number: int, rect: Rect, update: object) -> None:
        if isinstance(update, InferenceResult):
            arrived.set()

    took = []
    try:
        models = LoadedModels(open_bundle(model), worker, name)
        models["main"]
        session = LiveSession(pyramid, models, strategy, strategy.Params(), on_update=on_update)
        try:
            for i in range(5):
                time.sleep(1.0)
                arrived.clear()
                start = time.perf_counter()
                h, w = pyramid.plane_shape
                session.follow_view(
                    Rect(h // 2, i * w // 5, min(900, h // 2), min(1500, w // 5)), 1.0
                )
                if not arrived.wait(60):
                    sys.exit("benchmarks.gpu: no result within a minute")
                took.append(round((time.perf_counter() - start) * 1000, 1))
                session.idle_now()
        finally:
            session.close()
    finally:
        worker.close()
    return took


if __name__ == "__main__":
    main()
