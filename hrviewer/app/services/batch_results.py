"""Results of a batch as the window shows them: rows, totals, values of each quantity."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hrviewer.app.services.slide_list import absolute
from hrviewer.formatting import pluralize
from hrviewer.units import format_duration

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["BatchResults"]


@dataclass(frozen=True)
class BatchResults:
    """A batch's table and what is computed from it, once and on the thread that makes it.

    Attributes
    ----------
    folder : Path
        The batch's folder.
    table : DataFrame
        A row for each image.
    rows : dict of str to dict
        The same by the image's absolute path.
    summary : str
        How many images are done, failed and stopped, and their seconds.
    finished : int
        Images that are done or failed.
    folders : list of dict
        Totals of each folder's counts (`hrviewer.batch.folder_totals`); empty where there are none.
    has_intervals : bool
        Whether an image's estimate has a 95 % interval.
    quantities : dict of str to str
        Titles of the columns of numbers by which images can be compared.
    values : dict of str to list of float
        Each of them on the images that are done.
    """

    folder: Path
    table: pd.DataFrame
    rows: dict[str, dict[str, Any]] = field(init=False)
    summary: str = field(init=False)
    finished: int = field(init=False)
    folders: list[dict[str, Any]] = field(init=False)
    has_intervals: bool = field(init=False)
    quantities: dict[str, str] = field(init=False)
    values: dict[str, list[float]] = field(init=False)

    def __post_init__(self) -> None:
        from hrviewer.batch import folder_totals, quantities

        table = self.table
        done = table[table["status"] == "done"]
        named = quantities(table)
        made: dict[str, Any] = {
            "rows": {absolute(str(row["image"])): row for row in records(table)},
            "summary": summarize(table),
            "finished": int(table["status"].isin(("done", "failed")).sum()),
            "folders": records(folder_totals(table)) if "count" in table else [],
            "has_intervals": "ci95_low" in table and bool(table["ci95_low"].notna().any()),
            "quantities": named,
            "values": {name: done[name].dropna().tolist() for name in named},
        }
        for name, value in made.items():
            object.__setattr__(self, name, value)


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a table's rows with None for what is missing."""
    found: Any = table.astype(object).where(table.notna(), None).to_dict("records")
    return list(found)


def summarize(table: pd.DataFrame) -> str:
    """Return how far a batch is."""
    counts = table["status"].value_counts()
    done, total = int(counts.get("done", 0)), len(table)
    parts = [f"{done:,} of {total:,} {pluralize('image', total)} done"]
    parts += [f"{counts[name]:,} {name}" for name in ("failed", "stopped") if name in counts]
    return " · ".join([*parts, format_duration(float(table["seconds"].sum()))])
