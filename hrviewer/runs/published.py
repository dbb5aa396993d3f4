"""What a comparison or an experiment leaves in its folder: tables, a plot, a report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hrviewer.errors import UserError
from hrviewer.exchange.plots import error_against_cost
from hrviewer.exchange.report import Figure, overlays, page
from hrviewer.pyramid import open_pyramid
from hrviewer.runs.run import Run

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["publish_comparison", "publish_experiment"]

COSTS = {"flops": "FLOPs per image", "seconds": "seconds per image"}
MOST = 24
"""Runs that are shown in pictures."""


def publish_comparison(table: pd.DataFrame, images: dict[str, object]) -> dict[str, str]:
    """Write a comparison's files.

    Parameters
    ----------
    table : DataFrame
        From `compare`.
    images : dict
        Whatever `open_pyramid` takes, by the name in the table's column ``image``.

    Returns
    -------
    dict
        Their paths: ``csv``, ``parquet``, ``report`` and, where errors are known, ``plot``.
    """
    plain = table.assign(params=[spoken(params) for params in table["params"]])
    plots: list[Figure] = []
    points = plain.dropna(subset=["error", "flops"]).copy()
    if len(points):
        keys = ["strategy", "model", "params", "budget"]
        points["error"] = points["error"].astype(float).abs()
        mean = points.groupby(keys, dropna=False, sort=False)[["error", "flops", "wall_s"]]
        points = mean.mean().reset_index().rename(columns={"wall_s": "seconds"})
        points["label"] = [label(row) for row in points.to_dict("records")]
        drawn = error_against_cost(points, COSTS, "mean absolute error")
        plots = [
            ("Error against cost. Dashed: the Pareto front, what no other beats in both.", drawn)
        ]
    pictures: list[tuple[str, list[Figure]]] = []
    for row in plain.dropna(subset=["run"]).head(MOST).to_dict("records"):
        with open_pyramid(images.get(row["image"], row["image"])) as pyramid:
            pictures.append((f"{label(row)} · {row['image']}", overlays(Run(row["run"]), pyramid)))
    shown = plain.drop(columns=["run", "read_s", "prepare_s", "infer_s", "post_s"])
    about = [("errors are measured against", str(table.attrs["reference"])), NOMINAL]
    html = page("Strategies compared", about, shown, plots, pictures)
    return keep(Path(table.attrs["folder"]), plain, html, plots)


def publish_experiment(table: pd.DataFrame, title: str) -> dict[str, str]:
    """Write an experiment's files; see `publish_comparison`."""
    plots: list[Figure] = []
    points = table.dropna(subset=["mae"]).copy()
    if len(points):
        points["error"], points["label"] = points["mae"], points["name"]
        drawn = error_against_cost(points, COSTS, "MAE", name="name", interval="ci95")
        plots = [("Mean absolute error with its 95 % bootstrap interval, against cost.", drawn)]
    about = [("images", str(table.attrs["images"])), NOMINAL]
    html = page(title, about, table, plots)
    return keep(Path(table.attrs["folder"]), table, html, plots)


NOMINAL = ("costs are", "nominal: what a run costs by itself, whatever came from a cache")


def keep(folder: Path, table: pd.DataFrame, html: str, plots: list[Figure]) -> dict[str, str]:
    """Write what there is; return where."""
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
        raise UserError(f"{folder} cannot be written to: {error}") from None
    return {name: str(path) for name, path in files.items()}


def spoken(params: Any) -> str:
    """Return parameters as text."""
    return json.dumps(dict(params), sort_keys=True) if params else ""


def label(row: Mapping[Any, Any]) -> str:
    """Return what a row is called beside its point."""
    budget = row["budget"] if isinstance(row["budget"], str) else ""
    return " ".join(filter(None, [row["strategy"], row["params"], budget]))
