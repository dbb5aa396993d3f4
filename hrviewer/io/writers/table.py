"""CSV: a table with its columns' names, units in them, in the first row."""

from __future__ import annotations

from pathlib import Path

from hrviewer.io.run_features import planned_patches
from hrviewer.io.tables import TableSettings, record_batches, table_schema
from hrviewer.io.writers import Exportable, ProgressCallback

__all__ = ["Settings", "write"]


Settings = TableSettings


def write(run: Exportable, target: Path, settings: Settings, progress: ProgressCallback) -> None:
    """Write a table: UTF-8, commas, full stops; what there is no value for is empty.

    Parameters
    ----------
    run : Exportable
        What to write.
    target : Path
        The file.
    settings : Settings
        Which table.
    progress : callable
        Told how many rows are written.

    Raises
    ------
    UserError
        If the run does not hold what is asked for.
    """
    from pyarrow.csv import CSVWriter

    done = 0
    with CSVWriter(target, table_schema(run, settings)) as out:
        for batch in record_batches(run, settings):
            out.write_batch(batch)
            done += batch.num_rows
            progress(done, max(done, planned_patches(run)))
