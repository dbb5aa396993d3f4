"""CSV and Parquet: a run's patches, points, contours or annotations as a table."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from hrviewer.io.exportable import Exportable, ProgressCallback
from hrviewer.io.run_features import planned_patches
from hrviewer.io.tables import TableSettings, record_batches, table_schema
from hrviewer.io.writers.base import RunWriter

__all__ = ["CsvWriter", "ParquetWriter"]


class TableWriter(RunWriter):
    """Base class of table writers; rows are written a few thousand at a time."""

    Settings = TableSettings

    @abstractmethod
    def open(self, target: Path, schema: Any) -> AbstractContextManager[Any]:
        """Open a file with a ``write_batch`` method."""

    def write(
        self, run: Exportable, target: Path, settings: TableSettings, progress: ProgressCallback
    ) -> None:
        """Write a table; missing values are empty."""
        done = 0
        with self.open(target, table_schema(run, settings)) as out:
            for batch in record_batches(run, settings):
                out.write_batch(batch)
                done += batch.num_rows
                progress(done, max(done, planned_patches(run)))


class CsvWriter(TableWriter):
    """CSV writer: UTF-8, commas, decimal points; units are part of the column names."""

    suffixes = (".csv",)
    description = "a table of patches, objects, points or contours: R, Excel"

    def open(self, target: Path, schema: Any) -> AbstractContextManager[Any]:
        """Open a CSV file."""
        from pyarrow import csv

        writer: AbstractContextManager[Any] = csv.CSVWriter(target, schema)
        return writer


class ParquetWriter(TableWriter):
    """Parquet writer: units in the columns' metadata, the run's metadata in the table's."""

    suffixes = (".parquet",)
    description = "the same with types and units: pandas, DuckDB"

    def open(self, target: Path, schema: Any) -> AbstractContextManager[Any]:
        """Open a Parquet file."""
        from pyarrow import parquet

        writer: AbstractContextManager[Any] = parquet.ParquetWriter(target, schema)
        return writer
