"""Throughput of a run relative to the bare network: ``python -m benchmarks.throughput IMAGE``.

One JSON object is printed. The bare network is fed from memory with inputs of the
same image; the run reads, prepares, infers, finishes and writes. Both take turns, so that their
ratio is of one stretch of time; results are not cached, and tiles are forgotten between turns.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from hrviewer.engine import DeviceScheduler, LoadedModels, build_context, recommended_streams
from hrviewer.geometry import Patch, Rect
from hrviewer.models import ModelBundle, Network, open_bundle
from hrviewer.models.loaders import PRECISIONS
from hrviewer.models.network import Floats
from hrviewer.models.threads import available_cores
from hrviewer.pyramid import Pyramid, open_pyramid
from hrviewer.pyramid.tile_cache import tile_cache
from hrviewer.runs.run import Run
from hrviewer.runs.runner import RunSpec
from hrviewer.runs.settings import parse_params
from hrviewer.strategies import PlanContext, get_strategy
from hrviewer.strategies.tiling import input_rect, tiles

BATCHES = (1, 2, 4, 8, 16, 32)
MAX_INPUT_BYTES = 512 << 20
"""Most bytes of inputs that are held for the bare network; more are thinned out evenly."""

MAX_FINALISTS = 4
"""How many ways of running the bare network are timed over all inputs."""

RunBatch = Callable[[Floats], object]


@dataclass(frozen=True)
class BareSetup:
    """One way to run the network from memory."""

    backend: str
    layout: str
    threads: int
    batch: int


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput", description=__doc__)
    parser.add_argument("image", help="any image that hrviewer opens")
    parser.add_argument(
        "--model", default="nuclei", help="a model bundle, its folder or a weights file"
    )
    parser.add_argument("--region", help="Y,X,H,W in pixels; the whole image by default")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--precisions",
        nargs="*",
        default=(),
        choices=PRECISIONS[1:],
        help="precisions that take their turns, too",
    )
    options = parser.parse_args(arguments)
    region = Rect(*map(int, options.region.split(","))) if options.region else None
    found = measure(
        options.image, options.model, region, options.rounds, precisions=options.precisions
    )
    print(json.dumps(found, indent=1))


def measure(
    image: object,
    model: str | Path = "nuclei",
    region: Rect | None = None,
    rounds: int = 3,
    batches: Sequence[int] = BATCHES,
    precisions: Sequence[str] = (),
) -> dict[str, Any]:
    """Return what was measured, in millions of pixels per second of wall time."""
    with open_pyramid(image) as pyramid, loaded_models(model, "auto") as chosen:
        network = chosen["main"]
        onnx_only = chosen.bundle._weights["main"].suffix.lower() == ".onnx"
        context, _, _ = build_context(pyramid, chosen, get_strategy("patches"), region=region)
        patches = tiles(context.main, context.region, context.native_scale)
        shapes = [input_shape(context, patch) for patch in patches]
        inputs = read_inputs(pyramid, network, context, patches, shapes)
        with ExitStack() as stack:
            plain = stack.enter_context(loaded_models(model, "torch"))
            others = {
                name: stack.enter_context(loaded_models(model, "auto", name)).for_image(pyramid)
                for name in precisions
            }
            deviations: dict[str, Any] = {}
            makers = {"onnxruntime": onnx_runner} if onnx_only else {"torch": torch_runner}
            best, bare = find_fastest(chosen.bundle, inputs, batches, *makers.popitem())
            in_torch = not onnx_only and not network.backend.startswith("torch")
            pixels = sum(h * w for h, w in shapes)
            useful = context.region.area
            turns: list[dict[str, float]] = []
            shares: list[dict[str, float]] = []
            time_run(pyramid, chosen, context.region)  # warms up, as `search` does the bare one
            for _ in range(rounds):
                turn = {"bare": measure_rate(bare, inputs, best)}
                seconds, ran = time_run(pyramid, chosen, context.region)
                turn["run"] = pixels / seconds / 1e6
                turn["useful"] = useful / seconds / 1e6
                shares.append(stage_shares(ran, seconds))
                for name, networks in others.items():
                    # The error is measured before the clock of `spent` starts.
                    _, other = time_run(pyramid, networks, context.region)
                    turn[name] = run_seconds(ran) / run_seconds(other)
                    deviations[name] = other.header["precision"]
                if in_torch:
                    turn["torch"] = pixels / time_run(pyramid, plain, context.region)[0] / 1e6
                else:
                    turn["torch"] = turn["run"]
                turns.append(turn)

    def median(value: Callable[[dict[str, float]], float]) -> float:
        return round(statistics.median(map(value, turns)), 4)

    return {
        "bare_mp_s": median(lambda turn: turn["bare"]),
        "end_to_end_mp_s": median(lambda turn: turn["run"]),
        "useful_mp_s": median(lambda turn: turn["useful"]),
        "ratio": median(lambda turn: turn["run"] / turn["bare"]),
        "ratio_plain_torch": None
        if onnx_only
        else median(lambda turn: turn["torch"] / turn["bare"]),
        "ratios": [round(turn["run"] / turn["bare"], 4) for turn in turns],
        "precisions": {
            name: {"over_float32": median(itemgetter(name)), **deviations[name]}
            for name in precisions
        },
        "backend": network.backend,
        "bare": vars(best) | {"input": list(inputs[0].shape), "inputs": len(inputs)},
        "stages": {
            name: round(statistics.median(share[name] for share in shares), 4) for name in shares[0]
        },
        "patches": len(patches),
        "input_mp": round(pixels / 1e6, 2),
        "rounds": rounds,
        "cores": available_cores(),
        "load": [round(x, 1) for x in os.getloadavg()] if hasattr(os, "getloadavg") else None,
    }


@contextmanager
def loaded_models(
    model: str | Path, backend: str, precision: str = "float32"
) -> Iterator[LoadedModels]:
    """Load a bundle's network with this back end, and close its device afterwards."""
    before = os.environ.get("HRVIEWER_BACKEND")
    device = DeviceScheduler(streams=recommended_streams())
    try:
        if backend != "auto":
            os.environ["HRVIEWER_BACKEND"] = backend
        networks = LoadedModels(open_bundle(model), device, "cpu", precision)
        networks.in_float32()
    finally:
        if before is None:
            os.environ.pop("HRVIEWER_BACKEND", None)
        else:
            os.environ["HRVIEWER_BACKEND"] = before
    try:
        yield networks
    finally:
        device.close()


def input_shape(context: PlanContext, patch: Patch) -> tuple[int, int]:
    """Return the size of a patch's input."""
    rect = input_rect(context.main, patch, context.rect)
    return round(rect.h / patch.scale), round(rect.w / patch.scale)


def read_inputs(
    pyramid: Pyramid,
    network: Network,
    context: PlanContext,
    patches: Sequence[Patch],
    shapes: Sequence[tuple[int, int]],
) -> list[Floats]:
    """Read and prepare the inputs of the commonest shape, as many as memory should hold."""
    shape = Counter(shapes).most_common(1)[0][0]
    alike = [patch for patch, its in zip(patches, shapes, strict=True) if its == shape]
    size = 4 * network.card.input.channel_count * math.prod(shape)
    step = math.ceil(len(alike) * size / MAX_INPUT_BYTES)
    inputs = []
    for patch in alike[:: max(1, step)]:
        rect = input_rect(context.main, patch, context.rect)
        fill = None if rect in pyramid.rect else "reflect"
        pixels = pyramid.read(rect, patch.scale, fill=fill)
        inputs.append(network.card.prepare(pixels))
    return inputs


def torch_runner(bundle: ModelBundle, threads: int, layout: str) -> tuple[RunBatch, str]:
    """Return the original network in torch: nothing folded, nothing exported."""
    import torch

    from hrviewer.models.loaders.torch import TorchNetwork

    loaded = TorchNetwork.load(bundle._weights["main"], bundle.roles["main"], "cpu", None)
    module = loaded.unfolded or loaded.module
    form = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    module = module.to(memory_format=form)  # type: ignore[call-overload]

    def run(batch: Floats) -> object:
        torch.set_num_threads(threads)  # of this thread; runs have others
        try:
            with torch.inference_mode():
                return module(torch.from_numpy(batch).contiguous(memory_format=form))
        finally:
            torch.set_num_threads(available_cores())

    return run, f"torch {torch.__version__}, eager float32"


def onnx_runner(bundle: ModelBundle, threads: int, layout: str) -> tuple[RunBatch, str]:
    """Return the network of an ONNX file."""
    from hrviewer.models.loaders.onnx import OnnxNetwork

    loaded = OnnxNetwork.load(bundle._weights["main"], bundle.roles["main"], "cpu", threads)
    return loaded._run, loaded.backend


def find_fastest(
    bundle: ModelBundle,
    inputs: Sequence[Floats],
    batches: Sequence[int],
    kind: str,
    make: Callable[[ModelBundle, int, str], tuple[RunBatch, str]],
) -> tuple[BareSetup, RunBatch]:
    """Return the quickest batch, layout and number of threads; batches grow while that helps.

    The few that did best on one batch are timed over all inputs: memory is handed out otherwise
    then, and one batch may mislead.
    """
    found: list[tuple[float, BareSetup, RunBatch]] = []
    layouts = ("contiguous", "channels_last") if kind == "torch" else ("contiguous",)
    threads = sorted(
        {
            available_cores(),
            *(2**i for i in range(available_cores().bit_length()) if 2**i <= available_cores()),
        }
    )
    for layout in layouts:
        for count in threads:
            run, backend = make(bundle, count, layout)
            top, slower = 0.0, 0
            for batch in batches:
                if batch > len(inputs) or (batch > 1 and max_batch(bundle) == 1) or slower == 2:
                    break
                part = np.stack(inputs[:batch])
                rate = max(measure_pixel_rate(run, part) for _ in range(3))
                slower = slower + 1 if rate < top else 0
                top = max(top, rate)
                found.append((rate, BareSetup(backend, layout, count, batch), run))
    some = sorted(found, key=itemgetter(0), reverse=True)[:MAX_FINALISTS]
    return max((each[1:] for each in some), key=lambda each: measure_rate(each[1], inputs, each[0]))


def max_batch(bundle: ModelBundle) -> int | None:
    """Return the most inputs that the network takes at once, if there is a limit."""
    return bundle.load("main", "cpu").max_batch


def measure_pixel_rate(run: RunBatch, batch: Floats) -> float:
    """Return input pixels per second."""
    start = time.perf_counter()
    run(batch)
    return batch.shape[0] * batch.shape[2] * batch.shape[3] / (time.perf_counter() - start)


def measure_rate(run: RunBatch, inputs: Sequence[Floats], best: BareSetup) -> float:
    """Return the bare rate over all inputs, in millions of pixels per second."""
    parts = [np.stack(inputs[i : i + best.batch]) for i in range(0, len(inputs), best.batch)]
    run(parts[0])
    start = time.perf_counter()
    for part in parts:
        run(part)
    seconds = time.perf_counter() - start
    return sum(x.shape[1] * x.shape[2] for x in inputs) / seconds / 1e6


def time_run(pyramid: Pyramid, models: LoadedModels, region: Rect) -> tuple[float, Run]:
    """Return the seconds that a run takes, from planning to its folder, and the run."""
    tile_cache().clear()
    strategy = get_strategy("patches")
    spec = RunSpec(pyramid, models.bundle, strategy, parse_params(strategy, {}), region=region)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        run = spec.run(models, out=Path(folder) / "a.run.zarr")
        seconds = time.perf_counter() - start
        failed = run.patches["status"].ne("done").sum()
        assert not failed, f"{failed} patches failed"
        return seconds, run


def run_seconds(run: Run) -> float:
    """Return the seconds of the run's inference."""
    return float(run.header["spent"]["wall_s"])


def stage_shares(run: Run, seconds: float) -> dict[str, float]:
    """Return each stage's seconds as a part of the run's; they overlap, so not of one sum."""
    cost = run.cost
    names = ("read", "prepare", "infer", "post")
    return {name: float(cost[f"{name}_s"]) / seconds for name in names}


if __name__ == "__main__":
    main()
