"""Images and runs that were opened last, from one session to the next."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Annotated

from psygnal import Signal
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from hrviewer.app.services.background import Background, Task
from hrviewer.app.state import AppState
from hrviewer.io.atomic_write import replace_file
from hrviewer.paths import data_folder
from hrviewer.runs import Run

__all__ = ["MAX_RECENT", "RecentFiles"]

log = logging.getLogger(__name__)

MAX_RECENT = 12
"""Images, and runs, that are remembered."""

MAX_BYTES = 1 << 18

Place = Annotated[str, StringConstraints(max_length=8192)]


class Places(BaseModel):
    """The file: paths and addresses, the latest first."""

    model_config = ConfigDict(extra="ignore")

    images: list[Place] = Field(default_factory=list, max_length=MAX_RECENT)
    runs: list[Place] = Field(default_factory=list, max_length=MAX_RECENT)


class RecentFiles:
    """Remembers which images and runs were shown last.

    Parameters
    ----------
    state : AppState
        Announces images and runs.
    background : Background
        Writes the list.
    path : Path, optional
        Where the list is kept; in the folder of runs and other results by default.
    """

    changed = Signal()

    def __init__(self, state: AppState, background: Background, path: Path | None = None) -> None:
        self._state, self._background = state, background
        self._path = path or data_folder() / "recent.json"
        self._places = read_places(self._path)
        state.image_changed.connect(self._on_image)
        state.run_shown.connect(self._on_run)

    @property
    def images(self) -> list[str]:
        """Paths and addresses of images, the latest first."""
        return list(self._places.images)

    @property
    def runs(self) -> list[str]:
        """Folders of runs, the latest first."""
        return list(self._places.runs)

    def clear(self) -> None:
        """Forget all of them."""
        self._places = Places()
        self._save()

    def _on_image(self) -> None:
        image = self._state.image
        if image is not None and image.source.path is not None:
            self._remember(self._places.images, image.source.path)

    def _on_run(self, run: Run) -> None:
        self._remember(self._places.runs, str(run.path.absolute()))

    def _remember(self, places: list[str], place: str) -> None:
        if places[:1] != [place]:
            places[:] = [place, *(other for other in places if other != place)][:MAX_RECENT]
            self._save()

    def _save(self) -> None:
        text = self._places.model_dump_json(indent=1)

        def write(task: Task[None]) -> None:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                replace_file(self._path, text.encode())
            except OSError as error:  # all else works without the list
                log.info("the list of recent files was not written: %s", error)

        self._background.submit("files", write, lambda _: None, clear_errors=False)
        self.changed.emit()


def read_places(path: Path) -> Places:
    """Return the remembered places; none where the file is missing or damaged."""
    try:
        with path.open("rb") as file:
            return Places.model_validate(json.loads(file.read(MAX_BYTES)))
    except (OSError, ValueError, ValidationError, RecursionError):
        return Places()
