"""Export of the displayed run to another format, or of the view as a figure, on a thread.

Invariant: the front end's thread waits for nothing; after `stop` nothing is left of the export.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from hrviewer.app.image_session import ImageSession
from hrviewer.app.services.background import Background, Task
from hrviewer.app.state import AppState
from hrviewer.errors import HrviewerError, RunError, format_error
from hrviewer.io import Exportable, export
from hrviewer.io.figures.view_figure import ViewDrawing, write_view_figure

__all__ = ["ExportService", "ExportStopped"]


class ExportStopped(HrviewerError):
    """The user stopped the export; nothing is left of it."""


class ExportService:
    """Exports the run on the current image, one export at a time.

    Parameters
    ----------
    state : AppState
        Has the run and gets the progress.
    background : Background
        Writes.
    """

    def __init__(self, state: AppState, background: Background) -> None:
        self._state, self._background = state, background
        self._task: Task[None] | None = None
        self._stopped = False

    @property
    def is_running(self) -> bool:
        """Whether a run is being written."""
        return self._task is not None and self._task.is_pending

    def export(self, path: str | Path, to: str, **options: Any) -> None:
        """Begin to write the run in a format."""
        with self._state.reporting_errors():
            image = self._state.image
            if image is None or image.run is None:
                raise RunError("there is no finished run to export")
            if self.is_running:
                raise RunError("an export is in progress: wait for it, or stop it")
            target = Path(path).expanduser()
            self._stopped = False
            self._task = self._background.submit(
                "export",
                partial(self._write, image.run, target, to, options),
                partial(self._finish, image, target),
                failed=self._fail,
                progress=partial(self._report, target),
            )

    def write_figure(
        self, drawing: ViewDrawing, path: str | Path, *, dpi: int, inches: float
    ) -> None:
        """Begin to write a figure of the view, as `write_view_figure` does."""
        with self._state.reporting_errors():
            image = self._state.require_image()
            if self.is_running:
                raise RunError("an export is in progress: wait for it, or stop it")
            target = Path(path).expanduser()
            self._stopped = False
            self._report(target, 0.0)
            self._task = self._background.submit(
                "export",
                partial(write_drawing, drawing, target, dpi, inches),
                partial(self._finish, image, target),
                failed=self._fail,
            )

    def stop(self) -> None:
        """Stop the export."""
        self._stopped = True

    def _write(
        self, run: Exportable, path: Path, to: str, options: dict[str, Any], task: Task[None]
    ) -> None:
        def on_progress(done: int, total: int) -> None:
            if self._stopped or task.cancelled:
                raise ExportStopped("the export was stopped: nothing was written")
            task.report(done / max(1, total))

        export(run, path, to, on_progress, **options)

    def _report(self, path: Path, fraction: float) -> None:
        self._state.export_progress_changed.emit(fraction, f"writing {path.name}")

    def _finish(self, image: ImageSession, path: Path, _: None) -> None:
        self._task = None
        self._state.export_progress_changed.emit(1.0, f"written: {path}")
        if not image.closed:
            self._state.set_notes(image, [f"exported to {path}"])

    def _fail(self, error: Exception) -> None:
        self._task = None
        message = format_error(error)
        if not isinstance(error, HrviewerError):
            message = f"the export failed: {message}"
        self._state.error_raised.emit("")
        self._state.export_progress_changed.emit(0.0, message)
        self._state.report_error(message)


def write_drawing(
    drawing: ViewDrawing, path: Path, dpi: int, inches: float, task: Task[None]
) -> None:
    """Write a figure, on a worker thread."""
    write_view_figure(drawing, path, dpi=dpi, inches=inches)
