"""The table of a batch: a row per image, on disk after every image."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from hrviewer.batch.image_list import ImageEntry
from hrviewer.errors import RunError, write_error
from hrviewer.formatting import format_estimate
from hrviewer.io.atomic_write import replace_file
from hrviewer.io.run_patches import open_table
from hrviewer.runs.region_table import estimate_columns
from hrviewer.runs.run import Run
from hrviewer.units import AREA_UNITS, area_unit

__all__ = ["COLUMNS", "ResultsTable", "Row", "read_table", "run_columns"]

Row = dict[str, Any]
Status = Literal["waiting", "done", "failed", "stopped"]

COLUMNS = (
    "image", "status", "answer", "estimate", "ci95_low", "ci95_high", "ci95_truth_low",
    "ci95_truth_high", "coverage", "truth", "difference", "area_px2", "tissue_area_px2", "flops",
    "of_once_per_pixel", "spent_flops", "seconds", "worker", "attempts", "error", "note", "run",
)  # fmt: skip
"""The columns that every batch has; those of its estimates follow."""

NUMBERS = (
    "estimate", "ci95_low", "ci95_high", "ci95_truth_low", "ci95_truth_high", "coverage", "truth",
    "difference", "area_px2", "tissue_area_px2", "flops", "of_once_per_pixel", "spent_flops",
    "seconds",
)  # fmt: skip
"""Columns of numbers, empty where there is none."""


def run_columns(run: Run) -> Row:
    """Return the columns of a run: estimate, areas, costs, notes."""
    header, estimate = run.header, run.estimate
    row: Row = {
        "coverage": run.coverage,
        "area_px2": float(header.get("counting_area") or run.region.area),
        "flops": header["cost"]["flops"],
        "of_once_per_pixel": run.of_once_per_pixel,
        "spent_flops": header["spent"]["flops"],
        "seconds": header["spent"]["wall_s"],
        "note": "; ".join(header["notes"]),
        "run": str(run.path),
    }
    if "tissue" in header.get("parts", {}):
        row["tissue_area_px2"] = row["area_px2"]
    if run.pixel_size is not None:
        unit = area_unit(run.pixel_size)
        scale = run.pixel_size[0] * run.pixel_size[1] / AREA_UNITS[unit][1]
        row[f"area_{unit}"] = row["area_px2"] * scale
    if estimate is not None:
        row |= {"answer": format_estimate(estimate), "estimate": estimate["value"]}
        row |= estimate_columns(estimate)
        for name in ("ci95", "ci95_truth"):
            low, high = estimate[name] or (None, None)
            row |= {f"{name}_low": low, f"{name}_high": high}
    if run.evaluation is not None:
        row |= {"truth": run.evaluation["value"], "difference": run.evaluation["error"]}
    return row


def read_table(folder: Path) -> pd.DataFrame:
    """Return the table of a batch's folder.

    Raises
    ------
    RunError
        If it is not the folder of a batch, or its table is damaged or not one of a batch.
    """
    file = folder / "table.parquet"
    if not (folder / "batch.json").exists() and not file.exists():
        raise RunError(f"{folder} is not the folder of a batch")
    try:
        with open_table(file, {}) as opened:
            if not {"image", "status", "run"} <= {*opened.schema_arrow.names}:
                raise RunError(f"{file} is not the table of a batch: choose another folder")
            return with_all_columns(opened.read().to_pandas())
    except FileNotFoundError:
        raise RunError(f"{folder} has no table yet: run the batch first") from None


def with_all_columns(frame: pd.DataFrame) -> pd.DataFrame:
    """Return rows with the columns that every batch has, in their order and with their types."""
    missing = [name for name in COLUMNS if name not in frame]  # as of an earlier version
    frame = frame.assign(**dict.fromkeys(missing))
    frame = frame[[*COLUMNS, *(name for name in frame if name not in COLUMNS)]]
    types = {**dict.fromkeys(NUMBERS, "float64"), "attempts": "Int64"}
    return frame.astype(types)


class ResultsTable:
    """The rows of a batch, kept as CSV and Parquet.

    Parameters
    ----------
    folder : Path
        The batch's folder.
    entries : sequence of ImageEntry
        Its images; each has a row from the start, and rows of earlier images stay.
    """

    def __init__(self, folder: Path, entries: Sequence[ImageEntry]) -> None:
        self._folder = folder
        self.rows: dict[str, Row] = {}
        earlier = self._read()
        for entry in entries:
            row = earlier.pop(entry.key, None) or {"image": entry.image, "status": "waiting"}
            self.rows[entry.key] = {**row, **entry.columns}
        self.rows |= earlier

    @property
    def frame(self) -> pd.DataFrame:
        """The rows in the order of the images, with the columns that every batch has first."""
        frame = pd.DataFrame(list(self.rows.values()))
        return with_all_columns(frame)

    def update(self, entry: ImageEntry, row: Mapping[str, Any]) -> Row:
        """Replace the row of an image, and write the table.

        Raises
        ------
        WriteError
            If the table cannot be written.
        """
        kept = {"image": entry.image, **row, **entry.columns}
        self.rows[entry.key] = kept
        self.write()
        return kept

    def write(self) -> None:
        """Write the rows, and both tables for other programs, each in one step."""
        frame, parquet = self.frame, io.BytesIO()
        frame.to_parquet(parquet, index=False)
        files = {
            "rows.json": json.dumps(self.rows).encode(),
            "table.csv": frame.to_csv(index=False).encode(),
            "table.parquet": parquet.getvalue(),
        }
        for name, data in files.items():
            try:
                replace_file(self._folder / name, data)
            except OSError as error:
                raise write_error(self._folder / name, error) from None

    def _read(self) -> dict[str, Row]:
        try:
            rows = json.loads((self._folder / "rows.json").read_text("utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise RunError(
                f"{self._folder / 'rows.json'} is damaged ({error}): remove it, and the batch is "
                "put together again from its runs"
            ) from None
        return dict(rows)
