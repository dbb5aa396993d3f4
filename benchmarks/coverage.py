"""Coverage of the intervals of estimates over many images: ``python -m benchmarks.coverage``.

    python -m benchmarks.coverage --out coverage.jsonl
    python -m benchmarks.coverage --out coverage.jsonl --table
    python -m benchmarks.coverage --out partial.jsonl --partial
    python -m benchmarks.coverage --out trial.jsonl --first 10100 --sizes 2048x10x4 --models crowd

Every strategy runs on synthetic images of several sizes, with several seeds of its own, against the
count of exhaustive inference with ``main`` and against the true count; a strategy may have
parameters and a budget, as in ``zoom:method=sampling`` and ``patches@60%``. Strategies without
random draws run on quarters of the image instead of with further seeds. Results are appended to
a file as JSON lines, and the outputs of ``main`` are kept, so that the same command continues a
stopped measurement. One JSON object is printed: for each strategy, model and size, and together,
how often ``ci95`` holds the exhaustive count and ``ci95_truth`` the true one, the share of runs
with an interval, the median of half its width, and the interval score (Gneiting and Raftery, 2007),
both relative to the exhaustive count. With ``--table`` the documentation's table is printed, from
the file alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import hrviewer
from benchmarks.network_maps import NetworkMaps
from hrviewer.geometry import Rect
from hrviewer.pyramid import open_pyramid
from hrviewer.pyramid.tile_cache import tile_cache
from hrviewer.runs.estimates import EstimateDict, estimate_to_dict

__all__ = ["Pair", "main", "summarize"]

IMAGES = {"crowd": ("crowd", 11_400), "nuclei": ("tissue", 11_440)}
"""Synthetic image of each model, and the first seed of its block for reports."""

SIZES = "2048x18x4,4096x7x3,8192x5x2"
"""Sides, how many images of each, and with how many seeds of a strategy."""

STRATEGIES = (
    "zoom,zoom:method=sampling,zoom:method=quadtree,scanner,transformer,compression,uniform"
)
PARTIAL = "patches@60%,scanner@15%,compression@60%"
"""Budgets that pay for a part of the image alone."""
PARTIAL_SIZES, PARTIAL_SEED = "3072x20x1", 11_500
"""The images on which they are measured."""

FIXED = "compression", "uniform"
"""Strategies without random draws: further runs are of the image's quarters."""

EXHAUSTIVE = "patches"
MISS = 2 / 0.05
"""Price of a miss in the interval score."""


@dataclass(frozen=True)
class Pair:
    """One run's intervals, the exhaustive count and the true one.

    The size is the side of the region: half of the image's where that is a quarter.
    """

    strategy: str
    model: str
    size: int
    seed: int
    draw: int
    value: float | None
    exhaustive: float
    true: float
    ci95: list[float] | None
    ci95_truth: list[float] | None

    @property
    def key(self) -> tuple[str, str, int, int, int]:
        """What identifies the run."""
        return self.strategy, self.model, self.size, self.seed, self.draw

    @property
    def image(self) -> tuple[str, int, int]:
        """What identifies the image."""
        quarter = self.strategy in FIXED and self.draw > 0
        return self.model, self.size * (2 if quarter else 1), self.seed


def summarize(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Return the figures of some runs."""
    whole = [pair for pair in pairs if pair.exhaustive > 0]
    ranges = [(pair, pair.ci95) for pair in whole if pair.ci95 is not None]
    truths = [(pair, pair.ci95_truth) for pair in pairs if pair.ci95_truth is not None]
    scores = [
        (high - low + MISS * max(low - pair.exhaustive, pair.exhaustive - high, 0))
        / pair.exhaustive
        for pair, (low, high) in ranges
    ]
    return {
        "pairs": len(pairs),
        "images": len({pair.image for pair in pairs}),
        "with_interval": share(pair.ci95 is not None for pair in pairs),
        "ci95": share(low <= pair.exhaustive <= high for pair, (low, high) in ranges),
        "ci95_truth": share(low <= pair.true <= high for pair, (low, high) in truths),
        "median_half_width": median(
            (high - low) / 2 / pair.exhaustive for pair, (low, high) in ranges
        ),
        "median_error": median(
            abs(pair.value / pair.exhaustive - 1) for pair in whole if pair.value is not None
        ),
        "median_score": median(scores),
    }


def share(held: Iterable[bool]) -> float | None:
    """Return the share of true values; None without any."""
    values = list(held)
    return round(sum(values) / len(values), 3) if values else None


def median(values: Iterable[float]) -> float | None:
    """Return the median; None without any value."""
    known = list(values)
    return round(statistics.median(known), 4) if known else None


def tabulate(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Return the figures by strategy, model and size."""
    table: dict[str, Any] = {}
    for strategy in dict.fromkeys(pair.strategy for pair in pairs):
        own = [pair for pair in pairs if pair.strategy == strategy]
        rows = {"all": summarize(own)}
        for model, size in sorted({(pair.model, pair.size) for pair in own}):
            cell = [pair for pair in own if (pair.model, pair.size) == (model, size)]
            rows[f"{model} {size}"] = summarize(cell)
        table[strategy] = rows
    return table


def render_table(pairs: Sequence[Pair]) -> str:
    """Return the table of the documentation."""
    heads = (
        "strategy", "images", "runs", "with an interval", "`ci95` holds",
        "in the worst cell of size and model", "`ci95_truth` holds", "half-width below 4,096",
        "from 4,096 (medians)", "interval score",
    )  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for strategy, rows in tabulate(pairs).items():
        own = [pair for pair in pairs if pair.strategy == strategy]
        small, large = (
            summarize([pair for pair in own if (pair.size >= 4096) == wanted])
            for wanted in (False, True)
        )
        total = rows.pop("all")
        cells = [row["ci95"] for row in rows.values() if row["ci95"] is not None]
        figures = [
            total["with_interval"], total["ci95"], min(cells, default=None), total["ci95_truth"],
            small["median_half_width"], large["median_half_width"],
        ]  # fmt: skip
        shown = [f"`{strategy}`", str(total["images"]), str(total["pairs"])]
        shown += [f"{part:.0%}" if part is not None else "" for part in figures]
        score = total["median_score"]
        shown.append(f"{score:.2f}" if score is not None else "")
        lines.append(f"| {' | '.join(shown)} |")
    return "\n".join(lines)


def images(sizes: str, first: int) -> Iterator[tuple[int, int, int]]:
    """Yield side and seed of each image, and the number of a strategy's seeds."""
    seed = first
    for part in sizes.split(","):
        side, count, draws = map(int, part.split("x"))
        for _ in range(count):
            yield side, seed, draws
            seed += 1


def exhaustive_estimate(
    maps: NetworkMaps, pyramid: hrviewer.Pyramid, rect: Rect
) -> tuple[EstimateDict, float]:
    """Return the estimate of exhaustive inference, and the true count."""
    found = maps.of(pyramid)
    cells = rect.y // found.cell, rect.y1 // found.cell, rect.x // found.cell, rect.x1 // found.cell
    count = found.values[:, cells[0] : cells[1], cells[2] : cells[3]].sum(axis=(1, 2))
    estimate = estimate_to_dict(
        maps.networks.bundle.card,
        count,
        None,
        rect,
        pyramid.pixel_size,
        exhaustive=True,
        synthetic=pyramid.synthetic_name,
    )
    truth = pyramid.ground_truth(rect)
    assert estimate is not None
    assert truth is not None
    return estimate, float(len(truth))


def measure(options: argparse.Namespace, done: set[tuple[Any, ...]]) -> Iterator[Pair]:
    """Yield the runs that are missing."""
    for model in options.models.split(","):
        name, first = IMAGES[model]
        first = options.first or first
        with (
            NetworkMaps.open(model, options.maps) as maps,
            hrviewer.load(model, device="cpu") as loaded,
        ):
            for size, seed, draws in images(options.sizes, first):
                wanted = [(EXHAUSTIVE, model, size, seed, 0)]
                wanted += [
                    (strategy, model, size // 2 if draw and strategy in FIXED else size, seed, draw)
                    for strategy in options.strategies.split(",")
                    for draw in range(draws)
                ]
                missing = [key for key in wanted if key not in done]
                if not missing:
                    continue
                tile_cache().clear()
                with open_pyramid(f"sample:{name}?size={size}&seed={seed}") as pyramid:
                    for key in missing:
                        rect = region_of(pyramid.rect, key[2], key[4])
                        exact, true = exhaustive_estimate(maps, pyramid, rect)
                        found: EstimateDict | None = exact
                        if key[0] != EXHAUSTIVE:
                            found = run(loaded, pyramid, rect, key[0], key[4])
                        ends = (None, None) if found is None else (
                            found["ci95"], found["ci95_truth"])  # fmt: skip
                        value = None if found is None else found["value"]
                        yield Pair(*key, value, exact["value"], true, *ends)


def region_of(image: Rect, side: int, draw: int) -> Rect:
    """Return a square image, or its quarter with a number from 1 to 4 where `side` is smaller."""
    if side == image.h:
        return image
    row, column = divmod(draw - 1, 2)
    return Rect(row * side, column * side, side, side) & image


def run(
    model: hrviewer.Model, pyramid: hrviewer.Pyramid, rect: Rect, strategy: str, seed: int
) -> EstimateDict | None:
    """Return the estimate of a strategy, with its parameters as ``zoom:method=sampling``."""
    spec, _, budget = strategy.partition("@")
    name, _, settings = spec.partition(":")
    params = dict(part.split("=", 1) for part in settings.split(";") if part)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "a.run.zarr")
        region = (rect.y, rect.x, rect.h, rect.w)
        how: dict[str, Any] = {"budget": budget or None, "seed": seed, "params": params}
        how["region"] = None if rect == pyramid.rect else region
        return model.run(pyramid, name, out=out, progress=False, **how).estimate


def main(arguments: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.coverage",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="file of JSON lines")
    parser.add_argument("--models", default="crowd,nuclei")
    parser.add_argument("--sizes", default=SIZES, help="sides, numbers of images and seeds of each")
    parser.add_argument("--strategies", default=STRATEGIES)
    parser.add_argument(
        "--partial", action="store_true", help="budgets for a part, on 20 images of each model"
    )
    parser.add_argument("--first", type=int, help="first seed of the images, instead of reports'")
    parser.add_argument("--maps", type=Path, help="folder of outputs; in the cache by default")
    parser.add_argument("--table", action="store_true", help="print the table of measured runs")
    options = parser.parse_args(None if arguments is None else list(arguments))
    if options.partial:
        options.strategies, options.sizes, options.first = PARTIAL, PARTIAL_SIZES, PARTIAL_SEED
    pairs = []
    if options.out.exists():
        pairs = [Pair(**json.loads(line)) for line in options.out.read_text("utf-8").splitlines()]
    if options.table:
        print(render_table(pairs))
        return
    done = {pair.key for pair in pairs}
    with options.out.open("a", encoding="utf-8") as file:
        for pair in measure(options, done):
            file.write(json.dumps(asdict(pair)) + "\n")
            file.flush()
            pairs.append(pair)
            print(*pair.key, pair.value, pair.ci95, pair.exhaustive, file=sys.stderr)
    print(json.dumps(tabulate(pairs), indent=1))


if __name__ == "__main__":
    main()
