"""Drawing what a live session says.

Cells of different sizes may lie over each other after a zoom: what a cell says takes the place of
all that was drawn there before, so every pixel shows, and is charged with, one cell's looks. Of a
look that cells share, each draws and bears its own part.
"""

from __future__ import annotations

import logging
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from hrviewer.app.maps.result_maps import Picture
from hrviewer.engine import Cell, Progress, Seen, Update
from hrviewer.geometry import Rect
from hrviewer.strategies import Look, Show, Think, Warp

__all__ = ["Painter"]

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Part:
    """A cell that is drawn while it is under way."""

    request: Look | Warp | Think | None = None
    fresh: bool = True


class Painter:
    """Draws what a session says into a picture, on a thread of its own.

    Parameters
    ----------
    picture : Picture
        What is drawn into.
    """

    def __init__(self, picture: Picture) -> None:
        self.picture = picture
        self._choice = 0
        self._whole: set[Rect] = set()
        self._touched: set[Rect] = set()
        self._parts: dict[Rect, _Part] = {}
        self._drawing: tuple[Rect, object] | None = None
        self._worker = ThreadPoolExecutor(1, "hrviewer-paint")
        self._last: Future[None] | None = None

    @property
    def done(self) -> bool:
        """Whether all that was taken is drawn."""
        return self._last is None or self._last.done()

    def turn(self, choice: int) -> None:
        """Draw this choice from now on, on an empty picture."""
        self._choice = choice
        self._last = self._worker.submit(self._clear)

    def take(self, choice: int, rect: Rect, update: Cell | Update | None) -> None:
        """Draw a cell, or what comes of one; from any thread."""
        try:
            self._last = self._worker.submit(self._draw, choice, rect, update)
        except RuntimeError:  # closed in the meantime
            log.debug("nobody draws any more")

    def close(self) -> None:
        """Draw no more."""
        self._choice = -1
        self._worker.shutdown(wait=False, cancel_futures=True)

    def _clear(self) -> None:
        # Of a large image only what was drawn on: all of it takes as long as several cells.
        image, touched = self.picture.image, self._touched
        if sum(rect.area for rect in touched) < image.area / 4:
            for rect in touched:
                self.picture.erase(rect)
            self.picture.codes = None
        else:
            self.picture.erase(image)
        touched.clear()
        self._whole.clear()
        self._parts.clear()
        self._drawing = None

    def _draw(self, choice: int, rect: Rect, update: Cell | Update | None) -> None:
        if choice != self._choice or isinstance(update, Progress):
            return
        try:
            if isinstance(update, Cell):
                self._finish(choice, update)
            elif update is None:
                self._parts[rect] = _Part()
            elif rect in self._parts:
                self._go_on(rect, self._parts[rect], update)
        except Exception:
            log.exception("a cell was not drawn")

    def _go_on(self, rect: Rect, part: _Part, update: Update) -> None:
        if isinstance(update, Look | Warp | Think):
            part.request = update
        elif isinstance(update, Seen | Show):
            # What was there before stays until there is something to put in its place.
            if part.fresh:
                self._empty(rect)
                part.fresh = False
            self._put(rect, part.request, update)

    def _finish(self, choice: int, cell: Cell) -> None:
        if cell.rect in self._whole:
            return
        part = self._parts.pop(cell.rect, None)
        if part is None or part.fresh:
            self._empty(cell.rect)
            for request, seen in cell.seen:
                for look in seen:
                    if choice != self._choice:
                        return
                    self._put(cell.rect, request, look)
            for show in cell.shown:
                self._put(cell.rect, None, show)
        self._whole.add(cell.rect)

    def _put(self, rect: Rect, request: Look | Warp | Think | None, update: Seen | Show) -> None:
        if self._drawing is None or self._drawing[0] != rect or self._drawing[1] is not request:
            self._drawing = rect, request  # cells take turns
            self._touched.add(rect)
            self.picture.region = rect
            if request is not None:
                self.picture.take(request)
        if isinstance(update, Seen):
            share = share_of(update, rect)
            if share is None:
                return
            update = share
        self.picture.take(update)

    def _empty(self, rect: Rect) -> None:
        self.picture.erase(rect)
        self._whole = {other for other in self._whole if (other & rect).empty}
        # A cell of another size that was stopped half-way has been wiped out with the rest.
        for other in [other for other in self._parts if other != rect]:
            if not (other & rect).empty:
                del self._parts[other]


def share_of(seen: Seen, rect: Rect) -> Seen | None:
    """Return a cell's part of a look; None if it lies elsewhere."""
    core = seen.patch.core
    if core in rect:
        return seen
    inside = core & rect
    if inside.empty:
        return None
    charge = seen.charge * (inside.area / core.area)
    return replace(seen, patch=replace(seen.patch, core=inside), charge=charge)
