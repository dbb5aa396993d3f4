"""Following a viewport: small runs on the cells of a fixed lattice.

The view is covered by cells of a dyadic lattice, about 512 screen pixels each at the nearest
power-of-two scale. Each cell is a run of its own, kept whole, so panning never changes a cell and
what was seen is never computed again. A newer view drops what the older one still waited for.

Invariants: the lock is never held while anything is read, computed or told, so `look_at`, `switch`
and `rest` return at once; only whole cells are kept, under everything that they depend on.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hrviewer.engine.answer import kind_of
from hrviewer.engine.budget import Budget
from hrviewer.engine.cache import ResultCache
from hrviewer.engine.canvas import Canvas
from hrviewer.engine.control import Control
from hrviewer.engine.device import Priority
from hrviewer.engine.driver import Update, drive
from hrviewer.engine.hints import Hints, fingerprints
from hrviewer.engine.looker import Looker
from hrviewer.engine.record import Record
from hrviewer.engine.scene import Networks, build_scene
from hrviewer.engine.seen import Seen
from hrviewer.geometry import Rect
from hrviewer.models import Network
from hrviewer.pyramid import Pyramid
from hrviewer.strategies import Answer, Look, Params, Show, Strategy, Think, Warp

__all__ = ["CELL", "Cell", "Session", "cells", "empty_record", "paint"]

CELL = 512
"""Side of a cell on the screen, in pixels, within a factor of √2."""

ROW = 2048
"""Bytes of a look, about, beside its map."""


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

    @property
    def nbytes(self) -> int:
        """About how much memory it takes."""
        maps = sum(ROW + look.map.nbytes for _, looks in self.seen for look in looks)
        return maps + sum(np.asarray(show.map).nbytes for show in self.shown)


Heard = Callable[[int, Rect, "Update | Cell | None"], None]


@dataclass(slots=True, eq=False)
class _Choice:
    """How to look, and what that is called in keys; nobody knows before networks are loaded."""

    number: int
    networks: Networks
    strategy: Strategy
    params: Params
    budget: Budget | None
    name: tuple[str, ...]
    hints: Hints
    digests: tuple[str, ...] | None = None

    def key(self, rect: Rect) -> tuple[Any, ...] | None:
        return None if self.digests is None else (rect, *self.name, *self.digests)


class Session:
    """Follows a viewport with one strategy at a time.

    Parameters
    ----------
    pyramid, networks
        What is looked at, and with what.
    strategy, params
        How.
    budget : Budget, optional
        For the whole image: a cell has its share by area. The strategy's default otherwise.
    cache : ResultCache, optional
        Looks of whole-image runs are found there too, and those of cells left half done.
    ready : callable, optional
        Told of every finished cell, on the session's thread.
    heard : callable, optional
        Told, on that thread, the number of the choice, a cell's place, and: None when it is
        begun, updates as they come, and the `Cell` when it is finished.
    failed : callable, optional
        Told why nothing can be looked at; the session then waits for another choice or view.
    keep : int
        How many bytes of finished cells are kept, about.

    Attributes
    ----------
    computed : int
        Looks that were neither kept nor in the cache.
    error : Exception or None
        The last one.
    """

    def __init__(
        self,
        pyramid: Pyramid,
        networks: Networks,
        strategy: Strategy,
        params: Params,
        *,
        ready: Callable[[Cell], None] = lambda cell: None,
        heard: Heard = lambda number, rect, update: None,
        failed: Callable[[Exception], None] = lambda error: None,
        budget: Budget | None = None,
        cache: ResultCache | None = None,
        keep: int = 512 << 20,
    ) -> None:
        self.pyramid = pyramid
        self._ready, self._heard, self._failed = ready, heard, failed
        self._cache, self._keep = cache, keep
        self._kept: OrderedDict[tuple[Any, ...], Cell] = OrderedDict()
        self._size = 0
        self._digests: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._rates: dict[tuple[str, ...], float] = {}
        self._choice = _choice(0, networks, strategy, params, budget)
        self._wanted: list[Rect] = []
        self._centre: tuple[float, float] | None = None
        self._current: tuple[_Choice, Rect, Control] | None = None
        self._wake = threading.Condition()
        self._closed = False
        self.computed = 0
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._serve, name="hrviewer-live", daemon=True)
        self._thread.start()

    def look_at(self, view: Rect, scale: float) -> list[Cell]:
        """Follow a new view; return the cells of it that are already there."""
        wanted = cells(view, scale, self.pyramid.rect)
        there = []
        with self._wake:
            self._centre = view.center
            self._wanted = []
            for rect in wanted:
                cell = self._find(self._choice, rect)
                if cell is not None:
                    there.append(cell)
                elif not self._busy_with(rect):
                    self._wanted.append(rect)
            if self._current and self._current[1] not in wanted:
                self._current[2].stop()
            self._wake.notify()
        return there

    def switch(
        self,
        strategy: Strategy,
        params: Params,
        budget: Budget | None = None,
        networks: Networks | None = None,
        hints: Hints | None = None,
    ) -> int:
        """Look differently from now on, and wait for a view; return the choice's number.

        Finished cells of other choices are kept, under the digests of their networks.
        """
        with self._wake:
            if networks is not None and networks is not self._choice.networks:
                self._digests.clear()
            networks = networks or self._choice.networks
            number = self._choice.number + 1
            self._choice = _choice(number, networks, strategy, params, budget, hints)
            self._choice.digests = self._digests.get(roles_of(strategy))
            self._rest()
            return self._choice.number

    def rest(self) -> None:
        """Do nothing until there is a new view."""
        with self._wake:
            self._rest()

    @property
    def waiting(self) -> int:
        """How many cells are wanted and not finished."""
        with self._wake:
            busy = self._current is not None and not self._current[2].stopped
            return len(self._wanted) + busy

    def idle(self) -> bool:
        """Tell whether nothing is wanted and nothing runs."""
        with self._wake:
            return not self._wanted and self._current is None

    def close(self, *, wait: bool = True) -> None:
        """Stop at the next batch."""
        with self._wake:
            self._closed = True
            self._rest()
            self._wake.notify()
        if wait and threading.current_thread() is not self._thread:
            self._thread.join()

    # With the lock.

    def _rest(self) -> None:
        self._wanted = []
        if self._current:
            self._current[2].stop()

    def _find(self, choice: _Choice, rect: Rect) -> Cell | None:
        key = choice.key(rect)
        if key is None or key not in self._kept:
            return None
        self._kept.move_to_end(key)
        return self._kept[key]

    def _busy_with(self, rect: Rect) -> bool:
        if self._current is None:
            return False
        choice, current, control = self._current
        return choice is self._choice and current == rect and not control.stopped

    def _store(self, choice: _Choice, cell: Cell) -> None:
        key = choice.key(cell.rect)
        if key is None or key in self._kept:
            return
        self._kept[key] = cell
        self._size += cell.nbytes
        while self._size > self._keep and len(self._kept) > 1:
            self._size -= self._kept.popitem(last=False)[1].nbytes

    # On the session's thread.

    def _serve(self) -> None:
        while True:
            with self._wake:
                while not self._wanted and not self._closed:
                    self._wake.wait()
                if self._closed:
                    return
                choice = self._choice
            try:
                self._name(choice)
                self._next(choice)
            except Exception as error:  # whatever it is, the session must go on serving
                with self._wake:
                    self._current = None
                    self.error = error
                    current = choice is self._choice
                    if current:
                        self._wanted = []
                if current:
                    self._failed(error)

    def _name(self, choice: _Choice) -> None:
        """Load what a choice needs, and so learn the digests that its cells are kept under."""
        if choice.digests is None:
            roles = roles_of(choice.strategy)
            needed = {role: _called(choice.networks[role]) for role in roles}
            others = {
                role: card.sha256 or card.meaning
                for role, card in choice.networks.pack.roles.items()
                if role not in needed
            }
            digests = tuple(f"{role} {name}" for role, name in sorted((needed | others).items()))
            with self._wake:
                choice.digests = digests
                if choice.networks is self._choice.networks:
                    self._digests[roles] = digests

    def _next(self, choice: _Choice) -> None:
        """See to the first cell that is wanted."""
        with self._wake:
            if choice is not self._choice or not self._wanted:
                return
            rect = self._wanted.pop(0)
            cell = self._find(choice, rect)
            control = Control()
            if cell is None:
                self._current = choice, rect, control
        if cell is None:
            cell = self._run(choice, rect, control)
            with self._wake:
                self._current = None
                if cell is not None:
                    self._store(choice, cell)
        if cell is not None:
            self._heard(choice.number, rect, cell)
            self._ready(cell)

    def _run(self, choice: _Choice, rect: Rect, control: Control) -> Cell | None:
        budget, networks = choice.budget, choice.networks
        rate = None
        if budget is not None:
            part = rect.area / self.pyramid.rect.area
            budget = budget.part(part)
            rate = self._rates.get(choice.digests or ())
        scene, _, rate = build_scene(
            self.pyramid,
            networks,
            choice.strategy,
            region=rect,
            budget=budget,
            rate=rate,
            hints=choice.hints,
        )
        if rate is not None:
            self._rates[choice.digests or ()] = rate
        looker = Looker(
            self.pyramid,
            networks,
            networks.device,
            rect,
            cache=self._cache,
            control=control,
            priority=Priority.LIVE,
            focus=lambda: self._centre,
        )

        def tell(update: Update) -> None:
            self.computed += isinstance(update, Seen) and update.status == "done"
            if not control.stopped:
                self._heard(choice.number, rect, update)

        sink = _Keep()
        self._heard(choice.number, rect, None)
        plan = choice.strategy.plan(scene, choice.params)
        answer = drive(plan, looker, sink, budget=scene.budget, watch=tell)
        if answer is None:
            return None
        return Cell(rect, tuple(sink.seen), tuple(sink.shown), answer)


def _called(network: Network) -> str:
    """Return what a network's answers depend on."""
    return f"{network.digest} {network.backend} {network.device} {network.precision}"


def roles_of(strategy: Strategy) -> tuple[str, ...]:
    """Return the roles that a strategy cannot do without."""
    return tuple(sorted({"main", *strategy.roles}))


def _choice(
    number: int,
    networks: Networks,
    strategy: Strategy,
    params: Params,
    budget: Budget | None,
    hints: Hints | None = None,
) -> _Choice:
    told = str(fingerprints(hints or {}))
    name = strategy.id, params.model_dump_json(), str(budget), told
    return _Choice(number, networks, strategy, params, budget, name, hints or {})


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
    canvas = Canvas.in_memory(pyramid.rect, cell, main.card.answers, kind_of(main.card))
    return Record(pyramid.rect, canvas)
