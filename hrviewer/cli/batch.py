"""Command ``batch``: a strategy on many images."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hrviewer.cli.common import (
    CacheMode,
    CacheOption,
    JsonOption,
    ModelOption,
    SeedOption,
    TrustOption,
    app,
    check_budget,
    command,
    print_json,
    print_message,
    print_rows,
)
from hrviewer.cli.run import Precision, SettingsOption, TissueOption
from hrviewer.cli.tables import print_table
from hrviewer.cli.workers import (
    ClusterOption,
    CoresOption,
    DevicesOption,
    SchedulerOption,
    WorkersOption,
)
from hrviewer.escaping import printable
from hrviewer.formatting import format_number, format_range, pluralize

if TYPE_CHECKING:
    import pandas as pd

    from hrviewer.batch import Batch

__all__ = ["batch"]


class OnError(StrEnum):
    """What follows an image that failed."""

    skip = "skip"
    stop = "stop"


SourcesArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE…",
        help="Images, folders, patterns, remote folders, or a CSV with a column `image` and any of "
        "region, model, truth, series, set.PARAMETER.",
    ),
]
RegionOption = Annotated[
    str | None, typer.Option(metavar="Y,X,H,W|FILE", help="Region of interest of every image.")
]
BudgetOption = Annotated[
    str | None,
    typer.Option(
        callback=check_budget, help="Budget of each image: 2TFLOP, 30s, 500patches or 10%."
    ),
]
TruthOption = Annotated[
    str | None, typer.Option(metavar="FILE|DIR|auto", help="Ground truth of the images.")
]
OutOption = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder of runs and tables; in the data folder by default."),
]


@command(app)
def batch(
    sources: SourcesArgument,
    strategy: Annotated[
        str, typer.Option(help="Inference strategy; `hrviewer strategies` lists them.")
    ],
    model: ModelOption = None,
    trust: TrustOption = False,
    settings: SettingsOption = None,
    region: RegionOption = None,
    tissue: TissueOption = "off",
    budget: BudgetOption = None,
    seed: SeedOption = 0,
    truth: TruthOption = None,
    precision: Annotated[Precision, typer.Option(help="Precision.")] = Precision.float32,
    cache: CacheOption = CacheMode.use,
    recursive: Annotated[
        bool, typer.Option("--recursive", help="Search folders at every depth.")
    ] = False,
    workers: WorkersOption = None,
    cores: CoresOption = None,
    devices: DevicesOption = None,
    scheduler: SchedulerOption = None,
    cluster: ClusterOption = None,
    retries: Annotated[
        int, typer.Option(min=0, help="Further attempts at an image whose worker ended.")
    ] = 2,
    on_error: Annotated[
        OnError, typer.Option(help="Whether the batch goes on after an image that failed.")
    ] = OnError.skip,
    export: Annotated[
        str | None, typer.Option(metavar="FORMAT,…", help="Export each run, as geojson,csv.")
    ] = None,
    out: OutOption = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write totals by folder, a histogram and pictures to a new .html, or the table to "
            "a .csv or .parquet.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the images, and whether they open.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run a strategy on many images, with a row for each; run it again to go on.

    The exit status is 3 if images failed, 130 after Ctrl-C.
    """
    import hrviewer.batch as batches

    if report is not None:
        batches.require_batch_file(report)
    if dry_run:
        rows = batches.check_images(batches.list_entries(sources, recursive=recursive))
        show(rows, as_json)
        raise typer.Exit(3 if any(row["error"] for row in rows) else 0)
    job = batches.batch(
        sources,
        model,
        strategy,
        region=region,
        tissue=tissue,
        budget=budget,
        seed=seed,
        truth=truth,
        precision=precision.value,
        cache=cache.value,
        trust=trust,
        exports=split(export),
        recursive=recursive,
        out=out,
        workers=workers,
        cores=cores,
        devices=split(devices),
        scheduler=scheduler,
        cluster=cluster,
        retries=retries,
        on_error=on_error.value,
        params=dict(item.split("=", 1) for item in settings or []),
    )
    with stopping(job):
        follow(job)
    table, totals = job.table, job.totals
    if as_json:
        content = {"rows": to_records(table), "totals": to_records(totals)}
        print_json({"folder": str(job.folder), **content})
    else:
        print_batch(table)
        print_totals(totals)
        print_rows(("table", str(job.folder / "table.csv")))
    for row in to_records(job.failed):
        named = row["error"].startswith(row["image"])
        print_message(row["error"] if named else f"{row['image']}: {row['error']}")
    if report is not None and not job.stopped:  # the same command goes on, and needs a new file
        job.write_report(report)
    if job.stopped and not (on_error is OnError.stop and len(job.failed)):
        print_message("stopped: run the same command again to go on")
        raise typer.Exit(130)
    if not job.complete:
        raise typer.Exit(3)


def split(names: str | None) -> list[str]:
    """Return the names in a list with commas."""
    return [name.strip() for name in (names or "").split(",") if name.strip()]


@contextmanager
def stopping(job: Batch) -> Iterator[None]:
    """Stop a batch in good order at Ctrl-C and at the end of a job's walltime."""

    def stop(*_: object) -> None:
        for each in before:
            signal.signal(each, signal.SIG_DFL if each is signal.SIGTERM else before[each])
        job.stop()

    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    for each in before:
        signal.signal(each, stop)
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def follow(job: Batch) -> None:
    """Show a bar of the images while a batch runs."""
    from hrviewer.runs.progress import progress_messages

    total, failed = len(job.table), 0
    with progress_messages(True, None) as show_message:
        show_message(f"starting workers for {total:,} {pluralize('image', total)}")
        for done, row in enumerate(job, start=1):
            failed += row["status"] == "failed"
            note = f", {failed:,} failed" if failed else ""
            show_message(f"{done:,} of {total:,} images{note}")


def to_records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table, with None for missing values."""
    objects = table.astype(object)
    rows = objects.where(objects.notna(), None).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]


def print_batch(table: pd.DataFrame) -> None:
    """Print image, status, estimate, seconds and error of every row."""
    columns: dict[str, list[str]] = {
        name: [] for name in ("image", "status", "estimate", "95 % of exhaustive", "seconds")
    }
    for row in to_records(table):
        ends, value = (row["ci95_low"], row["ci95_high"]), row["estimate"]
        cells = (
            Path(row["image"]).name,
            row["status"],
            "" if value is None else format_value(value),
            "" if ends[0] is None else " – ".join(map(format_value, ends)),
            "" if row["seconds"] is None else f"{row['seconds']:.1f}",
        )
        for column, cell in zip(columns.values(), cells, strict=True):
            column.append(cell)
    print_table(columns, left=("image", "status"))


def format_value(value: float) -> str:
    """Return a count, or the share or mean of an estimate of another kind."""
    return format_number(value) if abs(value) >= 1 else f"{value:.3g}"


def print_totals(totals: pd.DataFrame) -> None:
    """Print the sum of the counts of each folder, where counts add up."""
    for row in to_records(totals):
        if row["total"] is not None and row["images"] > 1:
            interval = ""
            if row["total_low"] is not None and row["total_low"] < row["total_high"]:
                ends = row["total_low"], row["total_high"]
                interval = f"; 95 % interval: {format_range(ends, row['total'])} for exhaustive "
                interval += "inference"
            amount = f"{format_number(row['total'])} in {row['done']:,} of {row['images']:,} images"
            print_rows((printable(row["folder"]), amount + interval))


def show(rows: list[dict[str, Any]], as_json: bool) -> None:
    """Print what is known of the images before they are run."""
    if as_json:
        print_json({"images": rows})
        return
    shapes, pixels = (row["shape"] for row in rows), (row["pixel_size"] for row in rows)
    columns = {
        "image": [row["image"] for row in rows],
        "size": ["" if shape is None else " × ".join(f"{n:,}" for n in shape) for shape in shapes],
        "µm per pixel": ["" if pixel is None else f"{pixel[0]:.4g}" for pixel in pixels],
        "": [row["error"] or "" for row in rows],
    }
    print_table(columns, left=("image", ""))
