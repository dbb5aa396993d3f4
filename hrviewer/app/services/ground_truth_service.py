"""Ground truth of the current image, looked up as the view moves.

Invariant: files are read and objects looked up on a worker thread; `tick` waits for nothing.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from hrviewer.app.image_session import ImageSession
from hrviewer.app.maps.ground_truth_points import GroundTruthPoints, GroundTruthSource
from hrviewer.app.services.background import Background, Task
from hrviewer.app.state import AppState
from hrviewer.errors import format_error
from hrviewer.geometry import Rect
from hrviewer.ground_truth import GroundTruth

__all__ = ["GroundTruthService"]


class GroundTruthService:
    """Shows and hides the ground truth of an image.

    Parameters
    ----------
    state : AppState
        Has the image.
    background : Background
        Looks objects up.
    """

    def __init__(self, state: AppState, background: Background) -> None:
        self._state, self._background = state, background
        self._task: Task[GroundTruth] | None = None

    @property
    def is_running(self) -> bool:
        """Whether objects are being looked up."""
        return self._task is not None and self._task.is_pending

    @property
    def is_available(self) -> bool:
        """Whether the current image has its own ground truth, as synthetic images do."""
        image = self._state.image
        return image is not None and image.source.has_ground_truth

    @property
    def path(self) -> Path | None:
        """File of the displayed ground truth; None for an image's own."""
        image = self._state.image
        shown = None if image is None else image.ground_truth
        return None if shown is None else shown.source.path

    def show(self, path: Path | None = None) -> None:
        """Show the image's own ground truth, or that of a file."""
        self.hide()
        with self._state.reporting_errors():
            image = self._state.require_image()
            source = image.ground_truth_source
            if source is None or path is not None:
                image.ground_truth_source = source = GroundTruthSource(image.source.pyramid, path)
            image.ground_truth = GroundTruthPoints(source)
            self._state.set_ground_truth_status(image, "loading…")
            self._state.ground_truth_changed.emit()
            self.tick()

    def hide(self) -> None:
        """Take the ground truth off the current image."""
        image = self._state.image
        if self._task is not None:
            self._task.cancel()
        if image is not None and image.ground_truth is not None:
            self._remove(image)
            self._state.set_ground_truth_status(image, "")
            self._state.ground_truth_changed.emit()

    def tick(self) -> None:
        """Look up the objects in view, unless they are displayed or being looked up."""
        image = self._state.image
        if image is None or image.ground_truth is None or self.is_running:
            return
        view, shown = image.source.viewport().rect, image.ground_truth
        if view.empty or shown.covers(view):
            return
        covered = view.pad(max(view.h, view.w) // 2) & image.source.rect
        self._task = self._background.submit(
            "read",
            lambda task: shown.source.find(covered),
            partial(self._update, image, shown, covered),
            failed=partial(self._fail, image, shown),
            owner=image,
            clear_errors=False,
        )

    def _update(
        self, image: ImageSession, shown: GroundTruthPoints, covered: Rect, found: GroundTruth
    ) -> None:
        if image.ground_truth is shown:
            self._state.set_ground_truth_status(image, shown.update(covered, found))
            if image is self._state.image:
                self._state.ground_truth_changed.emit()

    def _fail(self, image: ImageSession, shown: GroundTruthPoints, error: Exception) -> None:
        if image.ground_truth is shown:
            self._remove(image)
            self._state.set_ground_truth_status(image, "")
            self._state.ground_truth_changed.emit()
            self._state.report_error(format_error(error))

    def _remove(self, image: ImageSession) -> None:
        image.ground_truth = None
        source = image.ground_truth_source
        if source is not None and source.path is not None:  # what was rendered is kept
            image.ground_truth_source = None
