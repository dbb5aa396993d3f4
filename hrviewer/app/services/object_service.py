"""Drawing of detected objects as the view moves, and the choice of those that are displayed.

Invariant: objects are drawn on a worker thread; `tick` waits for nothing.
"""

from __future__ import annotations

from functools import partial

from hrviewer.app.image_session import ImageSession
from hrviewer.app.maps.object_map import ObjectDrawing, ObjectMap
from hrviewer.app.services.background import Background, Task
from hrviewer.app.state import AppState

__all__ = ["ObjectService"]


class ObjectService:
    """Draws the objects of the displayed results.

    Parameters
    ----------
    state : AppState
        Has the result maps.
    background : Background
        Draws.
    """

    def __init__(self, state: AppState, background: Background) -> None:
        self._state, self._background = state, background
        self._task: Task[ObjectDrawing] | None = None

    @property
    def is_running(self) -> bool:
        """Whether objects are being drawn."""
        return self._task is not None and self._task.is_pending

    @property
    def objects(self) -> ObjectMap | None:
        """The objects on the current image; None if its model detects none."""
        maps = self._state.maps
        return None if maps is None else maps.objects

    def set_score(self, score: float) -> None:
        """Display objects with at least a score."""
        if self.objects is not None:
            self.objects.score = score

    def set_class_hidden(self, class_id: int, hidden: bool) -> None:
        """Hide the objects of a class, or display them again."""
        objects = self.objects
        if objects is not None:
            change = objects.hidden_classes.union if hidden else objects.hidden_classes.difference
            objects.hidden_classes = change({class_id})

    def tick(self) -> None:
        """Have the objects in view drawn, unless they are drawn or being drawn."""
        image, objects = self._state.image, self.objects
        if image is None or objects is None or self.is_running:
            return
        viewport = image.source.viewport()
        if viewport.rect.empty or objects.covers(viewport.rect, viewport.pixel):
            return
        self._task = self._background.submit(
            "draw",
            lambda task: objects.draw(viewport.rect, viewport.pixel),
            partial(self._show, image, objects),
            owner=image,
            clear_errors=False,
        )

    def _show(self, image: ImageSession, objects: ObjectMap, drawing: ObjectDrawing) -> None:
        objects.drawing = drawing
        if image is self._state.image:
            self._state.objects_drawn.emit()
