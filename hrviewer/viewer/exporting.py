"""One export on a thread of its own.

Invariants: the window's thread asks, and waits for nothing; after `stop` nothing is left of it.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from hrviewer.errors import UserError
from hrviewer.exchange import Exportable, export

__all__ = ["Exporting", "Stopped"]


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
