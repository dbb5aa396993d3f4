"""Commands ``compare``, ``experiment`` and ``cost``: error and cost of strategies and models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hrviewer.cli.common import (
    CacheMode,
    CacheOption,
    ChannelsOption,
    DeviceOption,
    JsonOption,
    ModelOption,
    PixelSizeOption,
    PlaneOption,
    RangeOption,
    SeedOption,
    SeriesOption,
    TrustOption,
    app,
    check_model,
    command,
    image_options,
    interruptible,
    open_model,
    parse_region,
    print_json,
    print_message,
    print_rows,
)
from hrviewer.cli.tables import print_table
from hrviewer.geometry import Rect
from hrviewer.units import format_amount, format_si

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["compare", "cost", "experiment"]


def check_sides(text: str | None) -> str | None:
    """Check that all sides are integers."""
    if text is not None and not all(side.strip().isdecimal() for side in text.split(",")):
        raise typer.BadParameter(f"{text!r} is not a list of sides, as 256,512")
    return text


def split_models(given: list[str] | None) -> list[str]:
    """Return the models, which may be separated by commas; a list of roles is one model."""
    return [
        model
        for spec in check_model(given)
        for model in ([spec] if "=" in spec or Path(spec).exists() else spec.split(","))
    ]


OutOption = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Folder of the runs; existing runs are reused.")
]


@command(app)
def compare(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...")],
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "--models",
            metavar="M[,M…]",
            callback=split_models,
            help="Models as for `run`, separated by commas; may be repeated.",
        ),
    ] = None,
    strategies: Annotated[str, typer.Option(help="Strategies as a,b:key=value, or all.")] = "all",
    truth: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|DIR|auto",
            help="Ground truth; an exhaustive run is the reference otherwise.",
        ),
    ] = None,
    series: SeriesOption = None,
    plane: PlaneOption = None,
    channels: ChannelsOption = None,
    pixel_size: PixelSizeOption = None,
    value_range: RangeOption = None,
    region: Annotated[
        Rect | None,
        typer.Option(
            parser=parse_region, metavar="Y,X,H,W", help="Region of interest in level-0 pixels."
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(help="Budget of each run: 2TFLOP, 30s, 500patches, 10%; a sweep: 5%,10%."),
    ] = None,
    matched: Annotated[
        bool, typer.Option(help="Add `uniform` with the FLOPs and with the time of every other.")
    ] = False,
    seed: SeedOption = 0,
    trust: TrustOption = False,
    device: DeviceOption = "auto",
    cache: CacheOption = CacheMode.use,
    out: OutOption = None,
    anonymous: Annotated[
        bool, typer.Option("--anonymous", help="Leave out the paths and names of files.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Compare strategies: error by cost. The exit status is 3 if images could not be used."""
    from hrviewer import runs
    from hrviewer.io.figures.plots import require_matplotlib
    from hrviewer.runs.comparison_report import write_comparison_report

    require_matplotlib()
    with interruptible() as control:
        table = runs.compare(
            images,
            [open_model(one, trust) for one in model or []],
            strategies,
            **image_options(series, plane, channels, pixel_size, value_range),
            truth=truth,
            budgets=budget,
            matched=matched,
            seeds=(seed,),
            region=region,
            device=device,
            cache=cache.value,
            out=out,
            control=control,
        )
    exit_if_stopped(table)
    files = write_comparison_report(table, anonymous=anonymous)
    if as_json:
        print_json(
            {
                "image": images[0] if len(images) == 1 else images,
                "reference": table.attrs["reference"],
                "rows": [nest_costs(row) for row in to_records(table)],
                "files": files,
            }
        )
        report_failed(table)
        return
    columns = ["image", "model", "strategy", "params", "chosen", "budget", "estimate", "ci95",
               "ci95_truth", "error", "class_error", "dice", "game4", "ap50"]  # fmt: skip
    optional = {"ci95", "ci95_truth", "class_error", "dice", "ap50"}
    columns = [each for each in columns if each not in optional or table[each].notna().any()]
    print_comparison(
        table.assign(image=[Path(name).name for name in table["image"]]), tuple(columns), files
    )
    report_failed(table)


@command(app)
def experiment(
    folder: Annotated[Path, typer.Argument(help="Images and their ground truth.")],
    model: ModelOption = None,
    trust: TrustOption = False,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    cache: CacheOption = CacheMode.use,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Repeat the survey's experiment on a folder; exit status 3 if images could not be used."""
    from hrviewer import runs
    from hrviewer.io.figures.plots import require_matplotlib
    from hrviewer.runs.comparison_report import write_experiment_report

    require_matplotlib()
    with interruptible() as control:
        table = runs.experiment(
            folder,
            open_model(model, trust),
            seed=seed,
            device=device,
            cache=cache.value,
            out=out,
            control=control,
        )
    exit_if_stopped(table)
    files = write_experiment_report(table, f"The survey's experiment on {folder.name}")
    if as_json:
        print_json({"cells": to_records(table), "images": table.attrs["images"], "files": files})
    else:
        print_comparison(table, ("name", "mae", "ci95", "rmse", "bias"), files)
    report_failed(table)


@command(app)
def cost(
    model: ModelOption = None,
    trust: TrustOption = False,
    role: Annotated[str, typer.Option(help="Role of the model.")] = "main",
    device: DeviceOption = "auto",
    memory: Annotated[
        str | None,
        typer.Option(help="Memory limit, as 4GB; most of the free memory by default."),
    ] = None,
    sides: Annotated[
        str | None,
        typer.Option(
            callback=check_sides,
            help="Input sizes to measure, as 256,512; increasing ones by default.",
        ),
    ] = None,
    search: Annotated[
        bool, typer.Option(help="Whether to search for the largest input that fits.")
    ] = True,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of the plot.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Benchmark a model's FLOPs, time and memory by input size; find the largest that fits."""
    from hrviewer.io.figures.plots import require_matplotlib
    from hrviewer.runs import cost as measure
    from hrviewer.runs.batch_runner import default_folder
    from hrviewer.runs.comparison_report import write_scaling_report

    require_matplotlib()
    chosen_sides = None if sides is None else [int(side) for side in sides.split(",")]
    with interruptible() as control:
        scaling = measure(
            open_model(model, trust),
            role=role,
            device=device,
            memory=memory,
            sides=chosen_sides,
            search=search,
            control=control,
        )
    files = write_scaling_report(scaling, out or default_folder("costs"))
    report = scaling.to_dict()
    if as_json:
        print_json({**report, "files": files})
        return
    rows = [(vars(point), "") for point in scaling.points]
    rows += [(row, "extrapolated") for row in report["extrapolated"]]
    columns = {
        "side": [f"{row['side']:,}" for row, _ in rows],
        "FLOPs": [format_si(row["flops"]) for row, _ in rows],
        "seconds": [format_amount(row["seconds"]) for row, _ in rows],
        "peak memory": [format_si(row["peak_bytes"], "B") for row, _ in rows],
        "": [note for _, note in rows],
    }
    print_table(columns, left=("",))
    for name, line in scaling.fits.items():
        formula = f"{line.constant:.3g} + {line.per_pixel:.3g} · side²"
        if line.per_pair:
            formula += f" + {line.per_pair:.3g} · side⁴"
        typer.echo(f"{name} = {formula}, within {line.max_deviation:.0%}")
    if scaling.attention is not None:
        by_side = report["attention"]["flops"]
        columns = {"side": [f"{row['side']:,}" for row in by_side]}
        for pattern in scaling.attention.by_pattern:
            columns[f"{pattern} FLOPs"] = [format_si(row[pattern]) for row in by_side]
        print_table(columns)
    if scaling.largest is not None:
        limit = format_si(scaling.limit_bytes, "B")
        typer.echo(f"largest: {scaling.largest:,} × {scaling.largest:,} pixels within {limit}")
    print_rows(*files.items())


COST_RATIOS = "of_once_per_pixel", "of_patches"
"""Columns of costs relative to others."""

SETTINGS = "image", "model", "params", "chosen", "budget"
"""Columns that are left out where they are the same in all rows."""

DROPPED_FIRST = ("game4", "class_error", "dice", "of_patches", "chosen", "ci95", "params",
                 "of_once_per_pixel", "ci95_truth", "rmse", "seconds")  # fmt: skip
"""Columns that are left out where the terminal is too narrow."""


def exit_if_stopped(table: pd.DataFrame) -> None:
    """Exit after an interrupted comparison, which the same command resumes."""
    if not table.attrs["complete"]:
        print_message(f"stopped: run it again with --out {table.attrs['folder']} to resume")
        raise typer.Exit(130)


def report_failed(table: pd.DataFrame) -> None:
    """Print why images could not be used, and exit with status 3 if there is one."""
    for image, reason in table.attrs["failed"].items():
        print_message(f"{image}: {reason}")
    if table.attrs["failed"]:
        raise typer.Exit(3)


def to_records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table, with None for missing values."""
    objects = table.astype(object)
    rows = objects.where(objects.notna(), None).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]


def nest_costs(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with its costs in one dictionary."""
    from hrviewer.runs.compare import COST_COLUMNS

    cost = {name: row.pop(name) for name in COST_COLUMNS}
    return {**row, "cost": cost if cost["flops"] is not None else None}


def print_comparison(table: pd.DataFrame, columns: tuple[str, ...], files: dict[str, str]) -> None:
    """Print a table and the paths of its files."""
    seconds = "wall_s" if "wall_s" in table else "seconds"
    rows = to_records(table)
    cells = {name: [format_value(row[name]) for row in rows] for name in columns}
    for name in SETTINGS:  # those that all rows share, or have not
        if len(set(cells.get(name, ()))) == 1 and len(rows) > 1:
            del cells[name]
    cells["FLOPs"] = ["–" if row["flops"] is None else format_si(row["flops"]) for row in rows]
    for name in COST_RATIOS:
        if name in table:
            parts = (row[name] for row in rows)
            cells[name] = ["–" if part is None else f"{part:.3g}" for part in parts]
    times = (row[seconds] for row in rows)
    cells["seconds"] = ["–" if time is None else f"{time:.2f}" for time in times]
    titles = {name.replace("_", " "): column for name, column in cells.items()}
    dropped_first = [name.replace("_", " ") for name in DROPPED_FIRST]
    print_table(titles, left=("image", "model", "strategy", "name"), dropped_first=dropped_first)
    for row in rows:
        known = row["note"] in table.attrs["failed"].values()  # reported once for each image
        if row["note"] and row["flops"] is None and not known:
            print_message(f"{row['strategy']}: {row['note']}")
    print_rows(*files.items())


def format_value(value: Any) -> str:
    """Format a value for a table."""
    if value is None or value == {}:
        return "–"
    if isinstance(value, float):
        return f"{value:,.1f}" if abs(value) >= 10 else f"{value:.3g}"
    if isinstance(value, dict):
        return " ".join(
            f"{key}={item:.3g}" if isinstance(item, float) else f"{key}={item}"
            for key, item in value.items()
        )
    if isinstance(value, tuple):
        digits = ".0f" if max(map(abs, value)) >= 100 else ".1f"
        return "–".join(f"{part:,{digits if abs(part) >= 10 else '.3g'}}" for part in value)
    return str(value)
