"""Annotations of a run: read from and written to its folder, and files that are imported.

A front end draws them: it creates editable layers on `loaded`, and calls `mark_edited` when the
user changed something. Files are read and written on a worker thread, a moment after the last edit
and when the run leaves the screen.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

from psygnal import Signal

from hrviewer.app.image_session import ImageSession
from hrviewer.app.services.background import Background, Task
from hrviewer.app.state import AppState
from hrviewer.errors import RunError, WriteError
from hrviewer.io.annotations import ANNOTATIONS_FILE, read_annotations, write_annotations
from hrviewer.io.features import Feature
from hrviewer.io.ground_truth import read_features
from hrviewer.io.run_features import detected_objects
from hrviewer.runs import Run

__all__ = ["AnnotationService", "AnnotationTool"]

AnnotationTool = Literal["shapes", "points"]

SAVE_DELAY_SECONDS = 1.0
"""Seconds without an edit before annotations are written."""

LANE = "annotations"
"""Files of annotations wait for no image that is being read."""

CLOSE_SECONDS = 5.0
"""Seconds that the end of the application waits for annotations to be written."""

Features = list[Feature]


class AnnotationService:
    """Keeps the annotations of the run on the current image.

    Parameters
    ----------
    state : AppState
        Has the run.
    background : Background
        Reads and writes.

    Attributes
    ----------
    run_path : Path or None
        The run whose annotations are open.
    label : str
        Class of what is drawn next.
    tool : str or None
        The requested tool.
    """

    loaded = Signal(list)
    added = Signal(list)
    tool_requested = Signal()
    closed = Signal()
    imported = Signal(object, list, str)
    changed = Signal()

    def __init__(self, state: AppState, background: Background) -> None:
        self._state, self._background = state, background
        self.run_path: Path | None = None
        self.label = "object"
        self.tool: AnnotationTool | None = None
        self._tasks: list[Task[Features] | Task[None]] = []
        self._is_loaded = False
        self._waiting: Features = []
        self._read: Features = []
        self._collect: Callable[[], Features] | None = None
        self._edited_at: float | None = None
        state.overlays_replaced.connect(self._on_overlays_replaced)
        state.run_shown.connect(self._on_run_shown)

    @property
    def is_running(self) -> bool:
        """Whether something is being read or written, or waits to be."""
        self._tasks = [task for task in self._tasks if task.is_pending]
        return bool(self._tasks) or self._edited_at is not None

    def annotate(
        self, tool: AnnotationTool, label: str = "", *, from_predictions: bool = False
    ) -> None:
        """Let the user draw over the run.

        Parameters
        ----------
        tool : {"shapes", "points"}
            What is drawn.
        label : str
            Its class.
        from_predictions : bool
            Whether to start from the objects that the run detected.
        """
        with self._state.reporting_errors():
            image = self._state.require_image()
            if image.run is None:
                raise RunError("annotations are saved in a run: run a strategy, or open a run")
            run = image.run
            self._open(image, run)
            if from_predictions:
                self._submit(
                    image, lambda task: detected_objects(run), partial(self._add, run.path)
                )
            self.tool, self.label = tool, label or "object"
            if self._is_loaded:
                self.tool_requested.emit()

    def import_file(self, path: Path) -> None:
        """Read the shapes and points of a file; a front end shows them as layers."""
        with self._state.reporting_errors():
            image = self._state.require_image()

            def read(task: Task[Features]) -> Features:
                pyramid = image.source.pyramid()
                return read_features(path, pyramid.path or pyramid.name, pyramid.plane_shape)

            self._submit(
                image, read, lambda features: self.imported.emit(image, features, path.stem)
            )

    def mark_edited(self, collect: Callable[[], Features]) -> None:
        """Have the annotations written soon; `collect` returns them then."""
        self._collect, self._edited_at = collect, time.monotonic()
        self.changed.emit()

    def features(self) -> Features:
        """Return the annotations as they are now; none where none are open."""
        return self._collect() if self._collect is not None else self._read

    def tick(self) -> None:
        """Write annotations a moment after the last edit."""
        saving = any(task.is_pending for task in self._tasks)
        if self._edited_at is None or saving or self.run_path is None:
            return
        if time.monotonic() - self._edited_at > SAVE_DELAY_SECONDS:
            self._save()

    def save_and_close(self, *, wait: bool = False) -> None:
        """Write what is not written yet, and close the run's annotations.

        Parameters
        ----------
        wait : bool
            Whether to wait until it is written: the application ends.
        """
        if self.run_path is None:
            return
        if self._edited_at is not None:
            task = self._save()
            if wait and task is not None:
                with self._state.reporting_errors():
                    self._wait_for(task, self.run_path)
        self.run_path, self._collect, self.tool = None, None, None
        self._is_loaded, self._waiting, self._read = False, [], []
        self.closed.emit()
        self.changed.emit()
        self._state.annotations_saved.emit("")

    def _open(self, image: ImageSession, run: Run) -> None:
        if self.run_path == run.path:
            return
        self.save_and_close()
        self.run_path = run.path
        self._submit(
            image, lambda task: read_annotations(run.path), partial(self._load, run.path), LANE
        )

    def _load(self, path: Path, features: Features) -> None:
        if path != self.run_path:
            return
        self._is_loaded, self._read = True, features
        self.loaded.emit(features)
        self.changed.emit()
        waiting, self._waiting = self._waiting, []
        if waiting:
            self.added.emit(waiting)
        if self.tool is not None:
            self.tool_requested.emit()

    def _add(self, path: Path, features: Features) -> None:
        if path != self.run_path:
            return
        if self._is_loaded:
            self.added.emit(features)
        else:
            self._waiting += features

    def _save(self) -> Task[None] | None:
        self._edited_at = None
        if self._collect is None or self.run_path is None:
            return None
        path, features = self.run_path, self._collect()

        def write(task: Task[None]) -> None:
            write_annotations(path, features)

        def report(_: None) -> None:
            if path == self.run_path:
                count = len(features)
                plural = "s" * (count != 1)
                self._state.annotations_saved.emit(
                    f"{count:,} annotation{plural} saved in {path.name}"
                )

        task = self._background.submit(LANE, write, report, clear_errors=False)
        self._tasks.append(task)
        return task

    @staticmethod
    def _wait_for(task: Task[None], path: Path) -> None:
        try:
            task.future.result(timeout=CLOSE_SECONDS)
        except TimeoutError:
            raise WriteError(f"the annotations in {path} could not be written in time") from None

    def _submit(
        self,
        image: ImageSession,
        work: Callable[[Task[Features]], Features],
        done: Callable[[Features], None],
        lane: str = "read",
    ) -> None:
        task = self._background.submit(lane, work, done, owner=image)
        self._tasks.append(task)

    def _on_run_shown(self, run: Run) -> None:
        image = self._state.image
        if image is not None and image.run is run and (run.path / ANNOTATIONS_FILE).is_file():
            self._open(image, run)

    def _on_overlays_replaced(self) -> None:
        """Close the annotations when their run leaves the screen."""
        run = self._state.run
        if self.run_path is not None and (run is None or run.path != self.run_path):
            self.save_and_close()
        if run is not None:
            self._on_run_shown(run)
