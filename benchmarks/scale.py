"""Many slides on many workers, simulated: ``python -m benchmarks.scale``.

One JSON object is printed. Slides are taken from one queue, as `hrviewer.batch` does it. A worker
reads from a store that all share, computes, and fails at random; its slide is then resumed by the
next free worker, from the last finished request. The seconds per pixel and the bytes per pixel are
measured by ``python -m benchmarks.batch``; the rest is assumed, and printed with the result.
"""

from __future__ import annotations

import argparse
import heapq
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

WORKERS = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Farm:
    """What a simulation assumes."""

    seconds_per_gigapixel: float
    """Of one worker, reading and inference, alone at the store."""
    gigabytes_per_gigapixel: float = 0.25
    """Compressed bytes that are read."""
    store_gigabytes_per_s: float = 1.0
    """Of the shared store, for all workers together."""
    start_s: float = 30.0
    """From the start of a worker to its first inference."""
    open_s: float = 2.0
    """Per slide: opening, setting up, writing the results."""
    spread: float = 0.4
    """Standard deviation of the logarithm of a slide's seconds, around the same mean."""
    failures_per_hour: float = 0.01
    """Of each worker."""
    restart_s: float = 120.0
    """Until a failed worker's slide is given to another, and a new worker has started."""
    request_s: float = 30.0
    """Work that a failure loses: the request in flight."""


def simulate(
    farm: Farm, workers: int, slides: int, gigapixels: float, seed: int = 0
) -> dict[str, float]:
    """Return hours until all slides are done, efficiency, and hours lost to failures.

    Parameters
    ----------
    farm : Farm
        The assumptions.
    workers, slides : int
        Their numbers.
    gigapixels : float
        Mean size of a slide.
    seed : int
        Of the sizes and the failures.
    """
    rng = np.random.default_rng(seed)
    sizes = gigapixels * np.exp(rng.normal(-(farm.spread**2) / 2, farm.spread, slides))
    # The store is the bottleneck when all workers together read more than it gives.
    demand = workers * farm.gigabytes_per_gigapixel / farm.seconds_per_gigapixel
    slowdown = max(1.0, demand / farm.store_gigabytes_per_s)
    work = farm.open_s + sizes * farm.seconds_per_gigapixel * slowdown
    end, lost = schedule(work.tolist(), workers, farm, rng)
    ideal = float(sizes.sum()) * farm.seconds_per_gigapixel / workers
    return {"hours": end / 3600, "efficiency": ideal / end, "lost_hours": lost / 3600,
            "store_slowdown": slowdown}  # fmt: skip


def schedule(
    work: Sequence[float], workers: int, farm: Farm, rng: np.random.Generator
) -> tuple[float, float]:
    """Return the seconds until slides of given seconds are done, and those that failures cost."""
    free = [(farm.start_s, worker) for worker in range(workers)]
    heapq.heapify(free)
    end, lost = 0.0, 0.0
    for left in work:
        now, worker = heapq.heappop(free)
        while True:
            until_failure = failure_time(farm, rng)
            if until_failure >= left:
                now += left
                break
            redone = min(until_failure, farm.request_s)
            now += until_failure + farm.restart_s
            left -= until_failure - redone
            lost += farm.restart_s + redone
        end = max(end, now)
        heapq.heappush(free, (now, worker))
    return end, lost


def failure_time(farm: Farm, rng: np.random.Generator) -> float:
    """Return the seconds until a worker fails."""
    if not farm.failures_per_hour:
        return float("inf")
    return float(rng.exponential(3600 / farm.failures_per_hour))


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate, and print JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--slides", type=int, default=1000)
    parser.add_argument("--gigapixels", type=float, default=10.0, help="mean size of a slide")
    parser.add_argument("--workers", type=int, nargs="*", default=WORKERS)
    parser.add_argument("--seconds-per-gigapixel", type=float, required=True)
    parser.add_argument("--gigabytes-per-gigapixel", type=float, default=0.25)
    parser.add_argument("--start", type=float, default=30.0, help="seconds")
    parser.add_argument("--spread", type=float, default=0.4)
    parser.add_argument("--failures", type=float, default=0.01, help="per hour and worker")
    options = parser.parse_args(arguments)
    farm = Farm(
        options.seconds_per_gigapixel,
        options.gigabytes_per_gigapixel,
        start_s=options.start,
        spread=options.spread,
        failures_per_hour=options.failures,
    )
    rows: dict[int, Any] = {
        workers: simulate(farm, workers, options.slides, options.gigapixels)
        for workers in options.workers
    }
    print(json.dumps({"assumed": asdict(farm), "workers": rows}, indent=1))


if __name__ == "__main__":
    main()
