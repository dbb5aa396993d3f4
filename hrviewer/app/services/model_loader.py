"""Opening of models' files and folders beside the front end's thread."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from hrviewer.app.services.background import Background, Task
from hrviewer.app.state import AppState
from hrviewer.errors import UntrustedModelError, format_error
from hrviewer.models import ModelBundle, open_bundle

__all__ = ["DESCRIPTIONS", "ModelLoader"]

DESCRIPTIONS = {"bundle.json": 0, "config.json": 0, "rdf.yaml": 0, "metadata.json": 1}
"""Files that describe a model's folder, by name: how many folders above their own it is."""


class ModelLoader:
    """Opens models, one at a time: the weights are read later, by the first inference.

    Parameters
    ----------
    state : AppState
        Gets the model.
    background : Background
        Reads.
    """

    def __init__(self, state: AppState, background: Background) -> None:
        self._state, self._background = state, background
        self._task: Task[ModelBundle] | None = None

    @property
    def is_running(self) -> bool:
        """Whether a model is being opened."""
        return self._task is not None and self._task.is_pending

    def open(self, path: Path, confirm: Callable[[Path], bool], *, trust: bool = False) -> None:
        """Begin to open a model; it is selected in a later tick.

        Parameters
        ----------
        path : Path
            A file or folder, or the file that describes a folder.
        confirm : callable
            Asks whether the user trusts the source of a file that can run code.
        trust : bool
            Whether that is known already.
        """
        folder = path.parents[DESCRIPTIONS[path.name]] if path.name in DESCRIPTIONS else path
        if self._task is not None:
            self._task.cancel()
        self._task = self._background.submit(
            "models",
            lambda task: open_bundle(folder, trust),
            self._state.set_model,
            failed=partial(self._fail, folder, confirm),
        )

    def _fail(self, path: Path, confirm: Callable[[Path], bool], error: Exception) -> None:
        if not isinstance(error, UntrustedModelError):
            self._state.error_raised.emit("")
            self._state.report_error(format_error(error))
        elif confirm(path):
            self.open(path, confirm, trust=True)
