"""Parquet: a table with its columns' units in their metadata, and where it comes from."""

from __future__ import annotations

from pathlib import Path

from hrviewer.io.run_features import planned_patches
from hrviewer.io.tables import TableSettings, record_batches, table_schema
from hrviewer.io.writers import Exportable, ProgressCallback

__all__ = ["Settings", "write"]


Settings = TableSettings


def write(run: Exportable, target: Path, settings: Settings, progress: ProgressCallback) -> None:
    """Write a table.

    Parameters
    ----------
    run, target, settings, progress
        See `hrviewer.io.writers.table.write`.

    Raises
    ------
    UserError
        If the run does not hold what is asked for.
    """
    from pyarrow.parquet import ParquetWriter

    done = 0
    with ParquetWriter(target, table_schema(run, settings)) as out:
        for batch in record_batches(run, settings):
            out.write_batch(batch)
            done += batch.num_rows
            progress(done, max(done, planned_patches(run)))
