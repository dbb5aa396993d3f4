"""Seconds of a batch by its workers: ``python -m benchmarks.batch [SOURCE ...]``.

One JSON object is printed: seconds of ``patches`` on all images by one worker of one core, by two
of them, and by one worker of two streams, each without what starts the workers, and whether the
answers of all are those of single runs bit for bit. Every worker is held to its cores, also with
what reads and prepares the inputs. The results are not cached, and models have
been measured before. Without SOURCE, ten synthetic images are written as tiled TIFFs, and an empty
file and one without an image stand beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hrviewer.batch import batch
from hrviewer.batch.cluster import connect
from hrviewer.models import threads
from hrviewer.pyramid import open_pyramid
from hrviewer.runs import Run, run

from .scale import Farm, schedule
from .seconds import write_synthetic

Answers = dict[str, tuple[float, bytes]]

PLACES: dict[str, dict[str, int]] = {
    "1 worker, 1 core": {"workers": 1, "cores": 1},
    "2 workers, 1 core each": {"workers": 2, "cores": 1},
    "1 worker, 2 streams": {"workers": 1, "cores": 2},
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batch", description=__doc__)
    parser.add_argument("sources", nargs="*", help="images, folders, tables")
    parser.add_argument("--model", default="crowd")
    parser.add_argument("--strategy", default="patches")
    parser.add_argument("--images", type=int, default=10, help="synthetic images")
    parser.add_argument("--size", type=int, default=2048, help="their side, pixels")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        sources = options.sources or write_slides(home / "slides", options.images, options.size)
        found = {
            name: measure(sources, options.model, options.strategy, home / f"batch{i}", place)
            for i, (name, place) in enumerate(PLACES.items())
        }
        alone, pair, streams = (one.pop("answers") for one in found.values())
        singles = {image: single_run(Path(image), options, streams=1, home=home) for image in alone}
        seconds = [one["seconds"] for one in found.values()]
        report = {
            **found,
            "two workers over one": seconds[1] / seconds[0],
            "two workers over two streams": seconds[1] / seconds[2],
            "the same bits on one and two workers": alone == pair,
            "the same bits as single runs": all(
                alone[image] == answer for image, (answer, _) in singles.items()
            ),
            "images done": len(streams),
            **predict(alone, singles, list(found.values())),
        }
    print(json.dumps(report, indent=1))


def pixels_of(image: Path) -> int:
    """Return the number of pixels of an image."""
    with open_pyramid(image) as pyramid:
        return pyramid.rect.area


def write_slides(folder: Path, count: int, size: int) -> list[str]:
    """Write synthetic images, an empty file and one without an image."""
    folder.mkdir()
    written = []
    for seed in range(count):
        path = Path(write_synthetic(folder, size, seed=10_000 + seed))
        written.append(path.rename(folder / f"{seed}.tif"))
    (folder / "empty.tif").touch()
    (folder / "text.png").write_text("no image")
    return [str(folder)]


def measure(
    sources: Sequence[str], model: str, strategy: str, out: Path, place: dict[str, int]
) -> dict[str, Any]:
    """Return the seconds of a batch from its first image to its end, and its answers."""
    with connect(**place) as workers:
        pin(workers.client, place["cores"])
        # The first batch of one image starts the workers' processes and loads the model.
        warm_up(workers.client, sources, model, strategy, out.with_name(f"{out.name}-warm"), place)
        start = time.perf_counter()
        job = batch(sources, model, strategy, out=out, cache="off", client=workers.client,
                    cores=place["cores"]).wait()  # fmt: skip
        seconds = time.perf_counter() - start
    done = job.table[job.table["status"] == "done"]
    return {
        "seconds": seconds,
        "seconds in runs": float(done["seconds"].sum()),
        "done": len(done),
        "failed": dict(zip(job.failed["image"], job.failed["error"], strict=True)),
        "answers": answers_of(done),
    }


def pin(client: Any, cores: int) -> None:
    """Hold each worker to cores of its own, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        available = sorted(os.sched_getaffinity(0))
        for number, address in enumerate(client.scheduler_info()["workers"]):
            own = {available[(number * cores + i) % len(available)] for i in range(cores)}
            client.run(set_affinity, own, workers=[address])


def set_affinity(cores: set[int]) -> None:
    """Hold all threads of this process, and those it starts, to some cores."""
    for thread in os.listdir("/proc/self/task"):
        with suppress(ProcessLookupError):  # it ended meanwhile
            os.sched_setaffinity(int(thread), cores)


def warm_up(
    client: Any, sources: Sequence[str], model: str, strategy: str, out: Path, place: dict[str, int]
) -> None:
    """Run a small region of every image, so that each worker has loaded the model."""
    batch(sources, model, strategy, out=out, cache="off", client=client, cores=place["cores"],
          region="0,0,256,256").wait()  # fmt: skip


def answers_of(done: pd.DataFrame) -> Answers:
    """Return estimate and map by image."""
    return {
        str(row["image"]): (row["estimate"], Run(row["run"]).output.tobytes())
        for row in done.to_dict("records")
    }


def predict(
    alone: Answers, singles: dict[str, tuple[Any, float]], batches: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return the inputs of `benchmarks.scale`, and what it gives for one and two workers.

    The rate is that of the single runs; the seconds around a run are those that the batch of one
    worker took beside its runs.
    """
    pixels = {image: pixels_of(Path(image)) for image in alone}
    rate = sum(seconds for _, seconds in singles.values()) / sum(pixels.values())
    around = (batches[0]["seconds"] - batches[0]["seconds in runs"]) / len(alone)
    farm = Farm(1e9 * rate, start_s=0.0, failures_per_hour=0.0)
    work = [around + rate * count for count in pixels.values()]
    rng = np.random.default_rng(0)
    return {
        "pixels": sum(pixels.values()),
        "seconds per gigapixel": 1e9 * rate,
        "seconds around a run": around,
        "bytes per pixel": sum(Path(image).stat().st_size for image in alone)
        / sum(pixels.values()),
        "predicted seconds": {n: schedule(work, n, farm, rng)[0] for n in (1, 2)},
    }


def single_run(
    image: Path, options: argparse.Namespace, *, streams: int, home: Path
) -> tuple[tuple[float, bytes], float]:
    """Return estimate and map of a single run on one core, and its seconds."""
    with one_core():
        out = home / f"{image.stem}-alone.run.zarr"
        done = run(image, options.model, options.strategy, out=out, cache="off", progress=False)
    assert done.header["engine"]["streams"] == streams
    assert done.estimate is not None
    return (done.estimate["value"], done.output.tobytes()), done.header["spent"]["wall_s"]


@contextmanager
def one_core() -> Iterator[None]:
    """Hold this process and its networks to one core, as a worker's."""
    before = threads._process_limit
    available = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    threads.limit_cores(1)
    if available:
        set_affinity({min(available)})
    try:
        yield
    finally:
        threads._process_limit = before
        if available:
            set_affinity(available)


if __name__ == "__main__":
    main()
