"""The results of a batch in one file: a table, or a report with totals, histogram and pictures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from hrviewer.batch.totals import folder_totals, quantities
from hrviewer.errors import HrviewerError, ParameterError, write_error
from hrviewer.io.atomic_write import atomic_path, require_new_path
from hrviewer.io.figures.html_report import CaptionedImage, Section, render_page
from hrviewer.io.figures.plots import matplotlib_missing_reason, plot_histogram
from hrviewer.runs.comparison_report import MAX_RUNS_SHOWN, run_sections
from hrviewer.runs.run import Run

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SUFFIXES", "require_batch_file", "write_batch_file"]

SUFFIXES = (".parquet", ".csv", ".html")


def write_batch_file(table: pd.DataFrame, path: Path) -> Path:
    """Write the results of a batch to one new file.

    Parameters
    ----------
    table : DataFrame
        A batch's table.
    path : Path
        Ends with ``.parquet`` or ``.csv`` for the table, ``.html`` for a report: totals by folder,
        a histogram, the table, and pictures of the first runs with their overlays.

    Raises
    ------
    HrviewerError
        If the file exists, has another suffix, or cannot be written.
    """
    target, kind = require_batch_file(path), path.suffix.lower()
    try:
        with atomic_path(target) as part:
            if kind == ".parquet":
                table.to_parquet(part, index=False)
            elif kind == ".csv":
                table.to_csv(part, index=False)
            else:
                part.write_text(render_report(table), "utf-8")
    except OSError as error:
        raise write_error(target, error) from None
    return target


def require_batch_file(path: Path) -> Path:
    """Return a path that results can be written to, or raise `HrviewerError`."""
    if path.suffix.lower() not in SUFFIXES:
        raise ParameterError(f"{path.name}: a batch is written as one of {', '.join(SUFFIXES)}")
    return require_new_path(path)


def render_report(table: pd.DataFrame) -> str:
    """Return the report of a batch as an HTML page."""
    done = table[table["status"] == "done"]
    counts = table["status"].value_counts()
    is_long = len(done) > MAX_RUNS_SHOWN
    plots: list[CaptionedImage] = []
    known = quantities(table)
    if known and matplotlib_missing_reason() is None:
        name, title = next(iter(known.items()))
        drawn = plot_histogram(done[name].dropna().tolist(), title)
        plots = [("Images by their estimates; each has a mark below.", drawn)]
    shown = table[["image", "status", "answer", "coverage", "seconds"]].rename(
        columns={"coverage": "coverage, %"}
    )
    notes = [
        f"{row['image']}: {row[column]}"
        for row in table.to_dict("records")
        for column in ("error", "note")
        if isinstance(row[column], str) and row[column]
    ]
    return render_page(
        "Batch",
        [
            *describe_settings(done),
            *((str(status), f"{n:,}") for status, n in counts.items()),
            *([("pictures", f"of the first {MAX_RUNS_SHOWN} images that are done")] * is_long),
        ],
        readable(folder_totals(table)),
        plots,
        [
            section
            for row in range(min(len(done), MAX_RUNS_SHOWN))
            for section in pictures(done, row)
        ],
        list(dict.fromkeys(notes)),
        [("All images", shown)],
    )


def describe_settings(done: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """Return strategy, model and budget of the runs; a table of images may give several models."""
    headers = []
    for folder in done["run"]:
        with suppress(HrviewerError):  # its folder is gone
            headers.append(Run(folder).header)
    for name in ("strategy", "model", "budget") if headers else ():
        values = dict.fromkeys(str(header[name] or "the strategy's default") for header in headers)
        yield name, ", ".join(values)


def readable(totals: pd.DataFrame) -> pd.DataFrame:
    """Return totals by folder with readable columns."""
    shown = totals.drop(columns=["total_low", "total_high", "area_px2"])
    ends = zip(totals["total_low"], totals["total_high"], strict=True)
    interval = [None if low != low else (float(low), float(high)) for low, high in ends]
    shown.insert(5, "95 % of exhaustive", interval)
    return (
        shown
        if totals["total"].notna().any()
        else shown.drop(columns=["total", "95 % of exhaustive"])
    )


def pictures(done: pd.DataFrame, row: int) -> list[Section]:
    """Return the pictures of a run; none if its folder or image is gone."""
    with suppress(HrviewerError):
        run = Run(done["run"].iloc[row])
        settings = {"strategy": run.header["strategy"], "params": "", "budget": None}
        return run_sections(done.iloc[[row]].assign(**settings))
    return []
