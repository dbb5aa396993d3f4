"""Parquet: a table with its columns' units in their metadata, and where it comes from."""

from __future__ import annotations

from pathlib import Path

from hrviewer.exchange.formats import Exportable, Progress
from hrviewer.exchange.found import planned
from hrviewer.exchange.tables import TableSettings, batches, schema_of

__all__ = ["Settings", "write"]


Settings = TableSettings


def write(run: Exportable, target: Path, settings: Settings, progress: Progress) -> None:
    """Write a table.

    Parameters
    ----------
    run, target, settings, progress
        See `hrviewer.exchange.formats.csv.write`.

    Raises
    ------
    UserError
        If the run does not hold what is asked for.
    """
    from pyarrow.parquet import ParquetWriter

    done = 0
    with ParquetWriter(target, schema_of(run, settings)) as out:
        for batch in batches(run, settings):
            out.write_batch(batch)
            done += batch.num_rows
            progress(done, max(done, planned(run)))
