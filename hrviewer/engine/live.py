"""Following a viewport: small runs on the cells of a fixed lattice.

The view is covered by cells of a dyadic lattice, about 512 screen pixels each at the nearest
power-of-two scale. Each cell is a run of its own, cached whole, so panning never changes a cell
and what was seen is never computed again. A newer view drops what the older one still waited for.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hrviewer.engine.answer import kind_of
from hrviewer.engine.budget import Budget
from hrviewer.engine.cache import ResultCache
from hrviewer.engine.canvas import Canvas
from hrviewer.engine.control import Control
from hrviewer.engine.device import Priority
from hrviewer.engine.driver import drive
from hrviewer.engine.looker import Looker
from hrviewer.engine.record import Record
from hrviewer.engine.scene import Networks, build_scene
from hrviewer.engine.seen import Seen
from hrviewer.geometry import Rect
from hrviewer.pyramid import Pyramid
from hrviewer.strategies import Answer, Look, Params, Show, Strategy, Think, Warp

__all__ = ["CELL", "Cell", "Session", "cells", "empty_record", "paint"]

CELL = 512
"""Side of a cell on the screen, in pixels, within a factor of √2."""


def cells(view: Rect, scale: float, image: Rect) -> list[Rect]:
    """Return the cells that cover a view, the one nearest to its centre first.

    Parameters
    ----------
    view : Rect
        What is visible, level-0 pixels.
    scale : float
        Level-0 pixels per screen pixel.
    image : Rect
        Cells beyond it are left out; those at its border are cut.
    """
    side = CELL * 2 ** max(0, round(math.log2(max(scale, 1e-6))))
    visible = view & image
    if visible.empty:
        return []
    rows = range(visible.y // side, -(-visible.y1 // side))
    columns = range(visible.x // side, -(-visible.x1 // side))
    found = [Rect(r * side, c * side, side, side) & image for r in rows for c in columns]
    return sorted(found, key=lambda cell: math.dist(cell.center, view.center))


@dataclass(frozen=True, slots=True, eq=False)
class Cell:
    """A finished cell: its looks, what was published, its answer."""

    rect: Rect
    seen: tuple[tuple[Look | Warp | Think, tuple[Seen, ...]], ...]
    shown: tuple[Show, ...]
    answer: Answer


class Session:
    """Follows a viewport with one strategy at a time.

    Parameters
    ----------
    pyramid, networks
        What is looked at, and with what.
    strategy, params
        How.
    budget : Budget, optional
        Per cell; the strategy's default otherwise.
    cache : ResultCache, optional
        Looks of whole-image runs are found there too.
    ready : callable
        Told of every finished cell, on the session's thread.
    keep : int
        How many cells are kept.
    """

    def __init__(
        self,
        pyramid: Pyramid,
        networks: Networks,
        strategy: Strategy,
        params: Params,
        *,
        ready: Callable[[Cell], None],
        budget: Budget | None = None,
        cache: ResultCache | None = None,
        keep: int = 4096,
    ) -> None:
        self.pyramid, self.networks = pyramid, networks
        self.strategy, self.params, self.budget = strategy, params, budget
        self._ready, self._cache, self._keep = ready, cache, keep
        self._kept: OrderedDict[tuple[Any, ...], Cell] = OrderedDict()
        self._wanted: list[Rect] = []
        self._centre: tuple[float, float] | None = None
        self._current: tuple[Rect, Control] | None = None
        self._wake = threading.Condition()
        self._closed = False
        self.computed = 0
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._serve, name="hrviewer-live", daemon=True)
        self._thread.start()

    def look_at(self, view: Rect, scale: float) -> list[Cell]:
        """Follow a new view; return the cells of it that are already there."""
        wanted = cells(view, scale, self.pyramid.rect)
        with self._wake:
            there = [
                self._kept[self._key(cell)] for cell in wanted if self._key(cell) in self._kept
            ]
            self._wanted = [cell for cell in wanted if self._key(cell) not in self._kept]
            self._centre = view.center
            if self._current and self._current[0] not in wanted:
                self._current[1].stop()
            self._wake.notify()
        return there

    def switch(self, strategy: Strategy, params: Params, budget: Budget | None = None) -> None:
        """Look differently from now on; what is still valid is kept."""
        with self._wake:
            self.strategy, self.params, self.budget = strategy, params, budget
            self._wanted = []
            if self._current:
                self._current[1].stop()

    def idle(self) -> bool:
        """Tell whether nothing is wanted and nothing runs."""
        with self._wake:
            return not self._wanted and self._current is None

    def close(self) -> None:
        """Stop at the next batch."""
        with self._wake:
            self._closed = True
            if self._current:
                self._current[1].stop()
            self._wake.notify()
        self._thread.join()

    def _key(self, cell: Rect) -> tuple[Any, ...]:
        how = (self.strategy.id, self.params.model_dump_json(), str(self.budget))
        return cell, *how

    def _serve(self) -> None:
        while True:
            with self._wake:
                while not self._wanted and not self._closed:
                    self._wake.wait()
                if self._closed:
                    return
                rect = self._wanted.pop(0)
                key, control = self._key(rect), Control()
                how = self.strategy, self.params, self.budget
                self._current = rect, control
            try:
                cell = self._run(rect, control, *how)
            except Exception as error:  # whatever it is, the session must go on serving
                cell, self.error = None, error
            with self._wake:
                self._current = None
                if cell is not None:
                    self._kept[key] = cell
                    while len(self._kept) > self._keep:
                        self._kept.popitem(last=False)
            if cell is not None:
                self._ready(cell)

    def _run(
        self,
        rect: Rect,
        control: Control,
        strategy: Strategy,
        params: Params,
        budget: Budget | None,
    ) -> Cell | None:
        scene, _, _ = build_scene(self.pyramid, self.networks, strategy, region=rect, budget=budget)
        looker = Looker(
            self.pyramid,
            self.networks,
            self.networks.device,
            rect,
            cache=self._cache,
            control=control,
            priority=Priority.LIVE,
            focus=lambda: self._centre,
        )
        sink = _Keep()
        answer = drive(strategy.plan(scene, params), looker, sink, budget=scene.budget)
        if answer is None:
            return None
        self.computed += sum(look.status == "done" for _, looks in sink.seen for look in looks)
        return Cell(rect, tuple(sink.seen), tuple(sink.shown), answer)


class _Keep:
    """A sink that keeps what came, to be painted on the screen's own maps."""

    def __init__(self) -> None:
        self.seen: list[tuple[Look | Warp | Think, tuple[Seen, ...]]] = []
        self.shown: list[Show] = []

    def replay(self, number: int, name: str) -> Sequence[Seen] | None:
        return None

    def commit(
        self, number: int, name: str, request: Look | Warp | Think, seen: Sequence[Seen]
    ) -> None:
        self.seen.append((request, tuple(seen)))

    def restore(self, request: Look | Warp | Think, seen: Sequence[Seen]) -> None:
        raise AssertionError("a cell is never replayed")

    def show(self, show: Show) -> None:
        self.shown.append(show)


def paint(cell: Cell, record: Record) -> None:
    """Add a cell to a record of the whole image."""
    for request, seen in cell.seen:
        record.add(request, seen)
    for show in cell.shown:
        if show.kind == "saliency":
            record.show(show)


def empty_record(pyramid: Pyramid, networks: Networks, native: float) -> Record:
    """Return a record in memory on which cells are painted."""
    main = networks["main"]
    cell = main.stride * native
    canvas = Canvas.in_memory(pyramid.rect, cell, main.card.outputs, kind_of(main.card))
    return Record(pyramid.rect, canvas)
