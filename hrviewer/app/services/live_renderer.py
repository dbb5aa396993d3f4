"""Drawing of a live session's updates into result maps.

Cells of different sizes may overlap after a zoom: the predictions of a cell take the place of all
that was drawn there before, so every pixel shows, and bears the cost of, one cell's patches. Of a
patch that cells share, each cell draws and bears its own part.
"""

from __future__ import annotations

import logging
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from hrviewer.app.maps.result_maps import ResultMaps
from hrviewer.engine import InferenceResult, Progress, Update, ViewportCell
from hrviewer.geometry import Rect
from hrviewer.strategies import FeatureRequest, PatchRequest, Publish, WarpRequest

__all__ = ["LiveRenderer"]

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _PartialCell:
    """A cell that is drawn while inference on it goes on."""

    request: PatchRequest | WarpRequest | FeatureRequest | None = None
    untouched: bool = True


class LiveRenderer:
    """Draws a session's updates into result maps, on one thread.

    Parameters
    ----------
    maps : ResultMaps
        Maps that are drawn.
    """

    def __init__(self, maps: ResultMaps) -> None:
        self.maps = maps
        self._selection = 0
        self._complete_cells: set[Rect] = set()
        self._drawn_rects: set[Rect] = set()
        self._partial_cells: dict[Rect, _PartialCell] = {}
        self._current: tuple[Rect, object] | None = None
        self._executor = ThreadPoolExecutor(1, "hrviewer-paint")
        self._last_task: Future[None] | None = None

    @property
    def is_done(self) -> bool:
        """Whether every update is drawn."""
        return self._last_task is None or self._last_task.done()

    def select(self, selection: int) -> None:
        """Draw a selection from now on, into empty maps."""
        self._selection = selection
        self._last_task = self._executor.submit(self._clear)

    def enqueue(self, selection: int, rect: Rect, update: ViewportCell | Update | None) -> None:
        """Draw a cell or an update of one; from any thread."""
        try:
            self._last_task = self._executor.submit(self._draw, selection, rect, update)
        except RuntimeError:  # closed in the meantime
            log.debug("an update after the end")

    def close(self) -> None:
        """End the thread."""
        self._selection = -1
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _clear(self) -> None:
        # Of a large image only what was drawn: all of it takes as long as several cells.
        image, drawn = self.maps.image, self._drawn_rects
        if sum(rect.area for rect in drawn) < image.area / 4:
            for rect in drawn:
                self.maps.clear(rect)
            self.maps.embeddings = None
        else:
            self.maps.clear(image)
        drawn.clear()
        self._complete_cells.clear()
        self._partial_cells.clear()
        self._current = None

    def _draw(self, selection: int, rect: Rect, update: ViewportCell | Update | None) -> None:
        if selection != self._selection or isinstance(update, Progress) or is_estimate(update):
            return
        try:
            if isinstance(update, ViewportCell):
                self._draw_cell(selection, update)
            elif update is None:
                self._partial_cells[rect] = _PartialCell()
            elif rect in self._partial_cells:
                self._draw_update(rect, self._partial_cells[rect], update)
        except Exception:
            log.exception("a cell was not drawn")

    def _draw_update(self, rect: Rect, part: _PartialCell, update: Update) -> None:
        if isinstance(update, PatchRequest | WarpRequest | FeatureRequest):
            part.request = update
        elif isinstance(update, InferenceResult | Publish):
            # Earlier predictions stay until there are new ones.
            if part.untouched:
                self._clear_rect(rect)
                part.untouched = False
            self._apply(rect, part.request, update)

    def _draw_cell(self, selection: int, cell: ViewportCell) -> None:
        if cell.rect in self._complete_cells:
            return
        part = self._partial_cells.pop(cell.rect, None)
        if part is None or part.untouched:
            self._clear_rect(cell.rect)
            for request, results in cell.results:
                for result in results:
                    if selection != self._selection:
                        return
                    self._apply(cell.rect, request, result)
            for published in cell.published:
                if not is_estimate(published):
                    self._apply(cell.rect, None, published)
        self._complete_cells.add(cell.rect)

    def _apply(
        self,
        rect: Rect,
        request: PatchRequest | WarpRequest | FeatureRequest | None,
        update: InferenceResult | Publish,
    ) -> None:
        if self._current is None or self._current[0] != rect or self._current[1] is not request:
            self._current = rect, request  # cells take turns
            self._drawn_rects.add(rect)
            self.maps.region = rect
            if request is not None:
                self.maps.update(request)
        if isinstance(update, InferenceResult):
            share = cell_share(update, rect)
            if share is None:
                return
            update = share
        self.maps.update(update)

    def _clear_rect(self, rect: Rect) -> None:
        self.maps.clear(rect)
        self._complete_cells = {other for other in self._complete_cells if (other & rect).empty}
        # A cell of another size that was stopped half-way has been cleared with the rest.
        for other in [other for other in self._partial_cells if other != rect]:
            if not (other & rect).empty:
                del self._partial_cells[other]


def is_estimate(update: object) -> bool:
    """Whether an update is a published estimate: of a cell alone, so the maps have none of it."""
    return isinstance(update, Publish) and update.kind == "estimate"


def cell_share(result: InferenceResult, rect: Rect) -> InferenceResult | None:
    """Return a cell's part of a result; None if it is elsewhere."""
    core = result.patch.core
    if core in rect:
        return result
    inside = core & rect
    if inside.empty:
        return None
    cost = result.cost * (inside.area / core.area)
    return replace(result, patch=replace(result.patch, core=inside), cost=cost)
