"""Writing the run on the screen in another format, on a thread of its own.

Invariants: the window's thread asks, and waits for nothing; after `stop` nothing is left of it.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hrviewer.errors import UserError
from hrviewer.io import Exportable, export

if TYPE_CHECKING:
    from hrviewer.viewer.controller import Controller

__all__ = ["Exporter", "Exporting", "Stopped"]


class Stopped(UserError):
    """Told to stop; nothing is left."""


class Exporting:
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
        self.error: UserError | None = None
        self._fraction = 0.0
        self._stop = False
        self._thread = threading.Thread(target=self._write, name="hrviewer-export", daemon=True)
        self._thread.start()

    @property
    def fraction(self) -> float:
        """How far it has come, 0 to 1."""
        return self._fraction

    @property
    def over(self) -> bool:
        """Whether it has ended, well or not."""
        return not self._thread.is_alive()

    def stop(self) -> None:
        """Have it end soon."""
        self._stop = True

    def join(self, timeout: float | None = None) -> None:
        """Wait until it has ended."""
        self._thread.join(timeout)

    def _write(self) -> None:
        try:
            export(self.run, self.path, self.to, self._progress, **self._options)
        except UserError as error:
            self.error = error
        except Exception as error:
            self.error = UserError(f"the export failed: {type(error).__name__}: {error}")

    def _progress(self, done: int, total: int) -> None:
        if self._stop:
            raise Stopped("the export was stopped: nothing was written")
        self._fraction = done / max(1, total)


class Exporter:
    """Exports the run on the screen, one export at a time.

    Parameters
    ----------
    controller : Controller
        Has the run, and tells the person.
    """

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._work: Exporting | None = None

    @property
    def busy(self) -> bool:
        """Whether a run is being written."""
        return self._work is not None

    def export(self, path: str | Path, to: str, options: dict[str, Any]) -> None:
        """Begin to write it."""
        with self._controller.telling():
            run = self._controller.run
            if run is None:
                raise UserError("there is no finished run to export")
            if self._work is not None:
                raise UserError("an export is at work: wait for it, or stop it")
            self._work = Exporting(run, Path(path).expanduser(), to, options)

    def stop(self) -> None:
        """End it soon; nothing is left of it."""
        if self._work is not None:
            self._work.stop()

    def tick(self) -> None:
        """Say how far it is, or what became of it."""
        controller, work = self._controller, self._work
        if work is None:
            return
        if not work.over:
            controller.exported.emit(work.fraction, f"writing {work.path.name}")
            return
        self._work = None
        with controller.telling():
            if work.error is not None:
                controller.exported.emit(0.0, str(work.error))
                raise work.error
            controller.exported.emit(1.0, f"written: {work.path}")
            controller.noted.emit([f"exported to {work.path}"])
