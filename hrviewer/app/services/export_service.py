"""Writing the run on the screen in another format, on a thread of its own.

Invariants: the window's thread asks, and waits for nothing; after `stop` nothing is left of it.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hrviewer.errors import HrviewerError
from hrviewer.io import Exportable, export

if TYPE_CHECKING:
    from hrviewer.viewer.controller import Controller

__all__ = ["ExportJob", "ExportService", "ExportStopped"]


class ExportStopped(HrviewerError):
    """Told to stop; nothing is left."""


class ExportJob:
    """An export under way.

    Parameters
    ----------
    run : Exportable
        What is written.
    path : Path
        Where.
    to : str
        In which format.
    options : dict
        The format's.

    Attributes
    ----------
    error : UserError or None
        Why it could not be done, once it is over.
    """

    def __init__(self, run: Exportable, path: Path, to: str, options: dict[str, Any]) -> None:
        self.run, self.path, self.to, self._options = run, path, to, options
        self.error: HrviewerError | None = None
        self._fraction = 0.0
        self._stop_requested = False
        self._thread = threading.Thread(target=self._write, name="hrviewer-export", daemon=True)
        self._thread.start()

    @property
    def fraction(self) -> float:
        """How far it has come, 0 to 1."""
        return self._fraction

    @property
    def is_finished(self) -> bool:
        """Whether it has ended, well or not."""
        return not self._thread.is_alive()

    def stop(self) -> None:
        """Have it end soon."""
        self._stop_requested = True

    def join(self, timeout: float | None = None) -> None:
        """Wait until it has ended."""
        self._thread.join(timeout)

    def _write(self) -> None:
        try:
            export(self.run, self.path, self.to, self._on_progress, **self._options)
        except HrviewerError as error:
            self.error = error
        except Exception as error:
            self.error = HrviewerError(f"the export failed: {type(error).__name__}: {error}")

    def _on_progress(self, done: int, total: int) -> None:
        if self._stop_requested:
            raise ExportStopped("the export was stopped: nothing was written")
        self._fraction = done / max(1, total)


class ExportService:
    """Exports the run on the screen, one export at a time.

    Parameters
    ----------
    controller : Controller
        Has the run, and tells the person.
    """

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._job: ExportJob | None = None

    @property
    def is_running(self) -> bool:
        """Whether a run is being written."""
        return self._job is not None

    def export(self, path: str | Path, to: str, options: dict[str, Any]) -> None:
        """Begin to write it."""
        with self._controller.reporting_errors():
            run = self._controller.run
            if run is None:
                raise HrviewerError("there is no finished run to export")
            if self._job is not None:
                raise HrviewerError("an export is at work: wait for it, or stop it")
            self._job = ExportJob(run, Path(path).expanduser(), to, options)

    def stop(self) -> None:
        """End it soon; nothing is left of it."""
        if self._job is not None:
            self._job.stop()

    def tick(self) -> None:
        """Say how far it is, or what became of it."""
        controller, work = self._controller, self._job
        if work is None:
            return
        if not work.is_finished:
            controller.export_progress_changed.emit(work.fraction, f"writing {work.path.name}")
            return
        self._job = None
        with controller.reporting_errors():
            if work.error is not None:
                controller.export_progress_changed.emit(0.0, str(work.error))
                raise work.error
            controller.export_progress_changed.emit(1.0, f"written: {work.path}")
            controller.notes_changed.emit([f"exported to {work.path}"])
