"""Seconds of a batch by its workers: ``python -m benchmarks.batch [SOURCE ...]``.

One JSON object is printed: seconds of ``patches`` on all images by one worker of one core, by two
of them, and by one worker of two streams, each without what starts the workers, and whether the
answers of all are those of single runs bit for bit. The results are not cached, and models have
been measured before. Without SOURCE, ten synthetic images are written as tiled TIFFs, and an empty
file and one without an image stand beside them.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from hrviewer.batch import batch
from hrviewer.batch.cluster import connect
from hrviewer.models import threads
from hrviewer.pyramid import open_pyramid
from hrviewer.runs import Run, run

from .seconds import write_synthetic

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
        seconds = [one["seconds"] for one in found.values()]
        report = {
            **found,
            "two workers over one": seconds[1] / seconds[0],
            "two workers over two streams": seconds[1] / seconds[2],
            "the same bits on one and two workers": alone == pair,
            "the same bits as single runs": all(
                answer == single_run(Path(image), options, streams=1, home=home)
                for image, answer in alone.items()
            ),
            "images done": len(streams),
            "pixels": sum(pixels_of(Path(image)) for image in alone),
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
        # The first batch of one image starts the workers' processes and loads the model.
        warm_up(workers.client, sources, model, strategy, out.with_name(f"{out.name}-warm"), place)
        start = time.perf_counter()
        job = batch(sources, model, strategy, out=out, cache="off", client=workers.client,
                    cores=place["cores"]).wait()  # fmt: skip
        seconds = time.perf_counter() - start
    done = job.table[job.table["status"] == "done"]
    return {
        "seconds": seconds,
        "done": len(done),
        "failed": dict(zip(job.failed["image"], job.failed["error"], strict=True)),
        "answers": answers_of(done),
    }


def warm_up(
    client: Any, sources: Sequence[str], model: str, strategy: str, out: Path, place: dict[str, int]
) -> None:
    """Run a small region of every image, so that each worker has loaded the model."""
    batch(sources, model, strategy, out=out, cache="off", client=client, cores=place["cores"],
          region="0,0,256,256").wait()  # fmt: skip


def answers_of(done: pd.DataFrame) -> dict[str, tuple[float, bytes]]:
    """Return estimate and map by image."""
    return {
        str(row["image"]): (row["estimate"], Run(row["run"]).output.tobytes())
        for row in done.to_dict("records")
    }


def single_run(
    image: Path, options: argparse.Namespace, *, streams: int, home: Path
) -> tuple[float, bytes]:
    """Return estimate and map of a single run on one core."""
    with one_core():
        out = home / f"{image.stem}-alone.run.zarr"
        done = run(image, options.model, options.strategy, out=out, cache="off", progress=False)
    assert done.header["engine"]["streams"] == streams
    assert done.estimate is not None
    return done.estimate["value"], done.output.tobytes()


@contextmanager
def one_core() -> Iterator[None]:
    """Let networks of this process use one core, as a worker's do."""
    before = threads._process_limit
    threads.limit_cores(1)
    try:
        yield
    finally:
        threads._process_limit = before


if __name__ == "__main__":
    main()
