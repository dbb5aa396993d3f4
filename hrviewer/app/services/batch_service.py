"""The batch of the listed images: started, followed and stopped, with a row for each.

The batch runs in processes of its own; here its rows arrive as images are finished.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from hrviewer.app.services.background import Background, Task
from hrviewer.app.services.batch_results import BatchResults
from hrviewer.app.settings import RunSettings
from hrviewer.app.state import AppState
from hrviewer.errors import ModelError, ParameterError

if TYPE_CHECKING:
    from hrviewer.batch import Batch

__all__ = ["BatchService", "batch_settings"]

LANE = "batch"
STOP_LANE = "batch-stop"


class BatchService:
    """Runs what is selected on many images, and has their results.

    Parameters
    ----------
    state : AppState
        Has the settings, and gets errors.
    background : Background
        Follows the batch.

    Attributes
    ----------
    results : BatchResults or None
        Of the images so far.
    places : dict
        Where it runs: arguments of `hrviewer.batch` such as ``workers``.
    """

    changed = Signal()
    """Emitted when rows arrived, or the batch began or ended."""

    def __init__(self, state: AppState, background: Background) -> None:
        self._state, self._background = state, background
        self.results: BatchResults | None = None
        self.places: dict[str, Any] = {"low_priority": True}
        self._job: Batch | None = None
        self._following: Task[BatchResults] | None = None
        self._stopping = threading.Event()

    @property
    def rows(self) -> Mapping[str, dict[str, Any]]:
        """A row for each image so far, by the image's absolute path."""
        return {} if self.results is None else self.results.rows

    @property
    def is_running(self) -> bool:
        """Whether a batch goes on, or is being read."""
        return self._following is not None

    @property
    def is_stopping(self) -> bool:
        """Whether it was asked to stop and has not ended."""
        return self.is_running and self._stopping.is_set()

    def start(self, source: Path) -> None:
        """Run what is selected on the images of a folder or table; go on where it stopped."""
        if self._following is not None:
            return
        with self._state.reporting_errors():
            settings = batch_settings(self._state.settings)
            self._follow(partial(self._run, source, settings, dict(self.places)))

    def open(self, folder: Path) -> None:
        """Show the results of a batch's folder."""
        if self._following is None:
            self._follow(partial(self._read, folder))

    def stop(self) -> None:
        """Stop after the current inputs; the next start goes on."""
        if not self.is_running or self._stopping.is_set():
            return
        self._stopping.set()  # for a batch that its thread still prepares
        if self._job is not None:
            job = self._job
            self._background.submit(
                STOP_LANE, lambda task: job.stop(), lambda _: None, clear_errors=False
            )
        self.changed.emit()

    def export(self, path: Path) -> None:
        """Write the results to one file: Parquet, CSV, or an HTML report."""
        from hrviewer.batch import write_batch_file

        if self.results is not None:
            table = self.results.table
            self._background.submit(
                "batch-export",
                lambda task: write_batch_file(table, path),
                lambda written: self._state.export_progress_changed.emit(1.0, str(written)),
            )

    @property
    def summary(self) -> str:
        """How far the batch is."""
        if self.results is None:
            return "starting workers" if self.is_running else ""
        return self.results.summary + (" · stopping" if self.is_stopping else "")

    def close(self) -> threading.Thread | None:
        """Stop; return the thread that does, which nothing has to wait for."""
        self._stopping.set()
        job, self._job = self._job, None
        if job is None:
            return None
        stopping = threading.Thread(target=job.stop, name="hrviewer-batch-stop", daemon=True)
        stopping.start()
        return stopping

    def _follow(self, work: Any) -> None:
        self.results = None
        self._stopping = threading.Event()
        self._following = self._background.submit(
            LANE, work, self._end, failed=self._fail, progress=self._show
        )
        self.changed.emit()

    def _run(
        self,
        source: Path,
        settings: dict[str, Any],
        places: dict[str, Any],
        task: Task[BatchResults],
    ) -> BatchResults:
        """Run the batch to its end; on a worker thread."""
        from hrviewer.batch import batch

        stopping = self._stopping
        # `stop` sets the one and then reads the other: one of both threads has both.
        self._job = job = batch(str(source), **settings, **places)
        if stopping.is_set():
            job.stop()
        task.report(BatchResults(job.folder, job.table))
        for _ in job:
            task.report(BatchResults(job.folder, job.table))
        return BatchResults(job.folder, job.table)

    def _read(self, folder: Path, task: Task[BatchResults]) -> BatchResults:
        from hrviewer.batch import read_table

        return BatchResults(folder, read_table(folder))

    def _show(self, results: BatchResults) -> None:
        self.results = results
        self.changed.emit()

    def _end(self, results: BatchResults) -> None:
        self._following = self._job = None
        self._show(results)

    def _fail(self, error: Exception) -> None:
        self._following = self._job = None
        self.changed.emit()
        with self._state.reporting_errors():
            raise error


def batch_settings(settings: RunSettings) -> dict[str, Any]:
    """Return what is selected as arguments of `hrviewer.batch`.

    Raises
    ------
    HrviewerError
        If there is no model, or something belongs to one image alone.
    """
    model = settings.require_model()
    if model.source is None:
        raise ModelError(f"{model.name} has no file that other processes could open")
    if settings.tissue == "file":
        raise ParameterError("a mask of tissue belongs to one image: choose auto or off")
    return {
        "model": model.source,
        "trust": model.trust,
        "strategy": settings.strategy.id,
        "params": dict(settings.params),
        "budget": settings.budget.strip() or None,
        "tissue": settings.tissue,
        "precision": settings.precision,
    }
