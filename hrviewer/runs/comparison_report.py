"""Files of a comparison, an experiment or a measurement: tables, plots and reports."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from hrviewer.errors import HrviewerError, WriteError
from hrviewer.formatting import format_range
from hrviewer.io.figures.html_report import (
    CaptionedImage,
    Section,
    load_overlays,
    render_page,
    thumbnail,
    with_overlays,
)
from hrviewer.io.figures.plots import (
    AxisLabel,
    plot_agreement,
    plot_cost_by_side,
    plot_error_by_cost,
)
from hrviewer.pyramid import reopen_pyramid
from hrviewer.runs.agreement import Agreement, grid_regions, region_agreement
from hrviewer.runs.compare import MATCHED_MARK
from hrviewer.runs.estimates import format_estimate, format_evaluation, pluralize
from hrviewer.runs.run import Run
from hrviewer.runs.scaling import Scaling

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "COST_AXES",
    "write_comparison_report",
    "write_experiment_report",
    "write_scaling_report",
]

COST_AXES = {
    "flops": AxisLabel("cost per image", "FLOP"),
    "seconds": AxisLabel("time per image", "s"),
}
MAX_AGREEMENTS = 6
"""Plots of agreement in a report."""

MAX_RUNS_SHOWN = 24
"""Runs with pictures in a report."""


def write_comparison_report(table: pd.DataFrame, *, anonymous: bool = False) -> dict[str, str]:
    """Write the files of a comparison.

    Parameters
    ----------
    table : DataFrame
        Result of `compare`.
    anonymous : bool
        Whether to leave out the paths and names of files: images are numbered.

    Returns
    -------
    dict
        Paths: ``csv``, ``parquet``, ``report`` and, where errors are known, ``plot``.
    """
    plain = table.assign(
        params=[format_params(params) for params in table["params"]],
        chosen=[format_params(chosen) for chosen in table["chosen"]],
        class_error=[format_params(errors) for errors in table["class_error"]],
        mean_dice=[mean_of(dice) for dice in table["dice"]],
        dice=[format_params(dice) for dice in table["dice"]],
    )
    reference = str(table.attrs["reference"])
    if anonymous:
        plain = without_files(plain)
        reference = "ground truth" if Path(reference).suffix else reference
    plots: list[CaptionedImage] = []
    points = plain.dropna(subset=["error", "flops"]).copy()
    if len(points):
        keys = ["strategy", "model", "params", "budget"]
        points["error"] = points["error"].astype(float).abs()
        mean = points.groupby(keys, dropna=False, sort=False)[["error", "flops", "wall_s"]]
        points = mean.mean().reset_index().rename(columns={"wall_s": "seconds"})
        # A row that is matched to another's cost is drawn below or above it, without a label.
        points["label"] = [
            ""
            if isinstance(row["budget"], str) and MATCHED_MARK in row["budget"]
            else row_label(row)
            for row in points.to_dict("records")
        ]
        drawn = plot_error_by_cost(points, COST_AXES, "mean absolute error")
        plots = [("Error against cost. Dashed: the Pareto front.", drawn)]
    plots += agreement_plots(table)
    about = [
        *shared_values(plain),
        ("reference of the errors", reference),
        NOMINAL_NOTE,
    ]
    notes = [f"{row_label(row)}: {row['note']}" for row in plain.to_dict("records") if row["note"]]
    several = plain["image"].nunique() > 1
    html = render_page(
        "Comparison of strategies",
        about,
        mean_table(plain) if several else display_table(plain),
        plots,
        run_sections(plain),
        list(dict.fromkeys(notes)),
        [("All runs", display_table(plain))] if several else [],
    )
    kept = plain.drop(columns=["mean_dice", *(["run"] if anonymous else [])])
    return write_files(Path(table.attrs["folder"]), kept, html, plots)


def agreement_plots(table: pd.DataFrame) -> list[CaptionedImage]:
    """Return plots of the runs of each image against its exhaustive one, part by part."""
    agreements: dict[str, Agreement] = {}
    for _, rows in table.dropna(subset=["run"]).groupby("image", sort=False):
        runs = [Run(path) for path in rows["run"]]
        exhaustive = next((r for r in runs if r.estimate and r.estimate["exhaustive"]), None)
        if exhaustive is None or exhaustive.estimate is None:
            continue
        regions = grid_regions(exhaustive.region)
        for run in runs:
            title = f"{run.header['strategy']} − {exhaustive.header['strategy']}"
            counts = exhaustive.estimate["kind"] == "count"
            if run is not exhaustive and counts and len(agreements) < MAX_AGREEMENTS:
                with suppress(HrviewerError):  # most of a region may have no predictions
                    agreements.setdefault(title, region_agreement(run, exhaustive, regions))
    if not agreements:
        return []
    caption = "Agreement of the parts of an image on a grid of 8 × 8. Dashed: limits of agreement."
    return [(caption, plot_agreement(agreements))]


def without_files(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table in which images have numbers in place of paths, also in the notes."""
    numbers = {name: f"image {i}" for i, name in enumerate(table["image"].unique(), 1)}
    notes = [
        note and note.replace(name, numbers[name]).replace(Path(name).name, numbers[name])
        for note, name in zip(table["note"], table["image"], strict=True)
    ]
    models = [Path(str(name)).name for name in table["model"]]
    return table.assign(image=table["image"].map(numbers), note=notes, model=models)


def run_sections(table: pd.DataFrame) -> list[Section]:
    """Return pictures of the runs by image; the runs of an image share their colour scales."""
    from matplotlib.ticker import EngFormatter

    eng = EngFormatter(unit="FLOP", places=1)
    sections: list[Section] = []
    rows_shown = table.dropna(subset=["run"]).head(MAX_RUNS_SHOWN)
    for name, rows in rows_shown.groupby("image", sort=False):
        runs = [Run(path) for path in rows["run"]]
        region = runs[0].region
        with reopen_pyramid(runs[0].header["image"]) as pyramid:
            photo = thumbnail(pyramid, region)
        out = io.BytesIO()
        Image.fromarray(photo).save(out, "JPEG", quality=88)
        sections.append((Path(str(name)).name, "", [("the image", out.getvalue())]))
        maps = [load_overlays(run, photo.shape[:2]) for run in runs]
        tops = {
            kind: max(shown[kind].display_max for shown in maps if kind in shown)
            for kind in ("output", "cost")
            if any(kind in shown for shown in maps)
        }
        for run, shown, row in zip(runs, maps, rows.to_dict("records"), strict=True):
            cost = run.cost
            patches = run.header["patches"]["done"] + run.header["patches"]["cached"]
            spent = f"{eng(cost['flops'])}, {cost['wall_s']:.1f} s"
            spent += f", {patches:,} {pluralize('patch', patches)}"
            evaluation = (
                f" (ground truth: {format_evaluation(run.evaluation)})" if run.evaluation else ""
            )
            caption = f"{format_estimate(run.estimate)}{evaluation}; {spent}"
            sections.append((row_label(row), caption, with_overlays(shown, tops, photo, run)))
    return sections


def write_experiment_report(table: pd.DataFrame, title: str) -> dict[str, str]:
    """Write the files of an experiment; see `write_comparison_report`."""
    plots: list[CaptionedImage] = []
    points = table.dropna(subset=["mae"]).copy()
    if len(points):
        points["error"], points["label"] = points["mae"], points["name"]
        drawn = plot_error_by_cost(points, COST_AXES, "MAE", name="name", interval="ci95")
        plots = [("Mean absolute error with its 95 % bootstrap interval, against cost.", drawn)]
    about = [("images", str(table.attrs["images"])), NOMINAL_NOTE]
    shown = table[["name", "mae", "ci95", "rmse", "bias", "images"]].rename(
        columns={"name": "condition", "mae": "MAE", "ci95": "MAE, 95 % bootstrap", "rmse": "RMSE"}
    )
    shown["GFLOP"] = table["flops"] / 1e9
    shown["of once per pixel"] = table["of_once_per_pixel"]
    shown["of patches"] = table["of_patches"]
    shown["seconds"] = table["seconds"]
    notes = [f"{row['name']}: {row['note']}" for row in table.to_dict("records") if row["note"]]
    html = render_page(title, about, shown, plots, notes=notes)
    return write_files(Path(table.attrs["folder"]), table, html, plots)


def write_scaling_report(scaling: Scaling, folder: Path) -> dict[str, str]:
    """Write ``cost.json`` and ``cost.png`` of a model; return their paths."""
    files = {"json": folder / "cost.json", "plot": folder / "cost.png"}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files["json"].write_text(json.dumps(scaling.to_dict(), indent=2) + "\n", "utf-8")
        files["plot"].write_bytes(plot_cost_by_side(scaling.curves(), scaling.largest))
    except OSError as error:
        raise WriteError(f"{folder} cannot be written to: {error}") from None
    return {name: str(path) for name, path in files.items()}


INTERVAL_HEADINGS = {
    "ci95": "95 %, exhaustive inference",
    "ci95_truth": "95 %, true count",
}

NOMINAL_NOTE = ("costs", "nominal: of the run without any cache")


def shared_values(table: pd.DataFrame) -> list[tuple[str, str]]:
    """Return the columns with one value in all rows, which the table leaves out."""
    return [
        (name, str(table[name].iloc[0]))
        for name in ("image", "model", "seed")
        if len(table) and table[name].nunique() == 1
    ]


def mean_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return the means over the images, by strategy, parameters and budget."""
    reference = table["reference"].astype(float).abs()
    each = table.assign(
        error=table["error"].astype(float).abs(),
        off=100 * table["error"].astype(float).abs() / reference,
        game=100 * table["game4"].astype(float) / reference,
        ap50=table["ap50"].astype(float),
        mean_dice=table["mean_dice"].astype(float),
        gflop=table["flops"] / 1e9,
        once=table["of_once_per_pixel"].astype(float),
        patches=table["of_patches"].astype(float),
        read=table["pixels_read"] / 1e6,
    )
    keys = [
        name
        for name in ("strategy", "params", "budget", "model")
        if name == "strategy" or table[name].nunique(dropna=False) > 1
    ]
    headings = {
        "error": "mean absolute error",
        "off": "error, %",
        "game": "GAME(4), %",
        "ap50": "AP50",
        "mean_dice": "mean Dice",
        "gflop": "GFLOP",
        "once": "of once per pixel",
        "patches": "of patches",
        "wall_s": "seconds",
        "read": "MP read",
    }
    groups = each.groupby(keys, dropna=False, sort=False)
    means = groups[[*headings]].mean().dropna(axis=1, how="all").rename(columns=headings)
    means.insert(0, "images", groups["image"].nunique().astype(object))
    return means.reset_index().rename(columns={"params": "parameters"})


def display_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return a comparison's table with readable columns."""
    shared = {name for name, _ in shared_values(table)}
    columns = ["strategy", "params", "budget", "image", "model", "seed"]
    varying = [
        name
        for name in columns
        if name not in shared and (table[name].notna() & (table[name] != "")).any()
    ]
    shown = table[varying].copy()
    shown["estimate"] = table["estimate"]
    for name, heading in INTERVAL_HEADINGS.items():
        if table[name].notna().any():
            shown[heading] = [format_ends(ends) for ends in table[name]]
    shown["reference"] = table["reference"]
    shown["error"] = table["error"]
    if table["game4"].notna().any():
        shown["GAME(4)"] = table["game4"]
    if table["ap50"].notna().any():
        shown["AP50"] = table["ap50"]
    for name, heading in (("class_error", "error by class"), ("dice", "Dice")):
        if (table[name] != "").any():
            shown[heading] = [describe_classes(text) for text in table[name]]
    if (table["chosen"] != "").any():
        shown["chosen"] = table["chosen"]
    shown["GFLOP"] = table["flops"] / 1e9
    shown["of once per pixel"] = table["of_once_per_pixel"]
    if table["of_patches"].notna().any():
        shown["of patches"] = table["of_patches"]
    shown["seconds"] = table["wall_s"]
    shown["MP read"] = table["pixels_read"] / 1e6
    shown["peak memory, MB"] = table["peak_rss_bytes"].astype(float) / 1e6
    return shown.rename(columns={"params": "parameters"})


def write_files(
    folder: Path, table: pd.DataFrame, html: str, plots: list[CaptionedImage]
) -> dict[str, str]:
    """Write the tables, the plot and the report; return their paths."""
    files = {"csv": folder / "table.csv", "parquet": folder / "table.parquet"}
    try:
        table.to_csv(files["csv"], index=False)
        bare = table.copy()
        bare.attrs = {}
        bare.to_parquet(files["parquet"], index=False)
        if plots:
            files["plot"] = folder / "plot.png"
            files["plot"].write_bytes(plots[0][1])
        files["report"] = folder / "report.html"
        files["report"].write_text(html, "utf-8")
    except OSError as error:
        raise WriteError(f"{folder} cannot be written to: {error}") from None
    return {name: str(path) for name, path in files.items()}


def format_params(params: Any) -> str:
    """Return parameters as JSON text; empty for none, or a row without a run."""
    return (
        json.dumps(dict(params), sort_keys=True) if isinstance(params, Mapping) and params else ""
    )


def format_ends(ends: Any) -> str:
    """Return an interval as text; empty for none."""
    return format_range(ends, sum(ends) / 2) if isinstance(ends, tuple) else ""


def mean_of(values: Any) -> float:
    """Return the mean over classes; NaN without any."""
    known = list(values.values()) if isinstance(values, Mapping) else []
    return sum(known) / len(known) if known else math.nan


def describe_classes(text: str) -> str:
    """Return the numbers of classes, given as JSON, as a list."""
    values = json.loads(text) if text else {}
    return ", ".join(f"{name} {value:.3g}" for name, value in values.items())


def row_label(row: Mapping[Any, Any]) -> str:
    """Return the label of a row's point."""
    budget = row["budget"] if isinstance(row["budget"], str) else ""
    values = json.loads(row["params"]) if row["params"] else {}
    params = " ".join(f"{name}={value}" for name, value in values.items())
    return " ".join(filter(None, [row["strategy"], params, budget]))
