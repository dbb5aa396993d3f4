"""Following a viewport: small runs on the cells of a fixed lattice.

A few cells are under way at once, so that reading one overlaps with inferring another and the
device's batches are formed across them; the one nearest to the view's centre begins first. A newer
view drops what the older one still waited for. When nothing in view is left to do, the cells next
to it are looked at, one after another, behind everything else on the device.

Invariants: the lock is never held while anything is read, computed or told, so `look_at`, `switch`
and `rest` return at once; only whole cells are kept, under everything that they depend on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hrviewer.engine.budget import Budget
from hrviewer.engine.cache import ResultCache
from hrviewer.engine.device_scheduler import Priority
from hrviewer.engine.patch_result import Seen
from hrviewer.engine.pipeline import Looker
from hrviewer.engine.plan_runner import Update, drive
from hrviewer.engine.plan_setup import Networks, build_scene
from hrviewer.engine.priors import Hints, fingerprints
from hrviewer.engine.run_control import Control
from hrviewer.engine.viewport_cells import Cell, Keep, Kept, around, cells
from hrviewer.geometry import Rect
from hrviewer.models import Network
from hrviewer.pyramid import Pyramid
from hrviewer.strategies import Params, Scene, Strategy

__all__ = ["Session"]

ABREAST = 2
"""Cells in view that are under way at once."""

SHARED = 64 << 20
"""Bytes of looks that cells share, where no cache was given."""

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


@dataclass(slots=True, eq=False)
class _Drive:
    """A cell under way."""

    choice: _Choice
    rect: Rect
    priority: Priority
    control: Control = field(default_factory=Control)
    looker: Looker | None = None

    @property
    def ahead(self) -> bool:
        """Whether nobody sees it yet."""
        return self.priority is Priority.PREFETCH

    def hurry(self) -> None:
        """Come into view."""
        self.priority = Priority.LIVE
        if self.looker is not None:
            self.looker.priority = Priority.LIVE


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
        Looks of whole-image runs are found there too, and those of cells left half done. Looks
        that several cells ask for (a scout's at the whole image) are shared through it.
    ready : callable, optional
        Told of every finished cell in view, on a thread of the session.
    heard : callable, optional
        Told, on such a thread, the number of the choice, a cell's place, and: None when it is
        begun, updates as they come, and the `Cell` when it is finished. Cells that are looked at
        ahead are heard of when they come into view.
    failed : callable, optional
        Told why nothing can be looked at; the session then waits for another choice or view.
    keep : int
        How many bytes of finished cells are kept, about.
    ahead : bool
        Whether cells next to the view are looked at when there is nothing else to do.

    Attributes
    ----------
    computed : int
        Looks at cells in view that were neither kept nor in the cache.
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
        ahead: bool = False,
    ) -> None:
        self.pyramid = pyramid
        self._ready, self._heard, self._failed = ready, heard, failed
        self._cache = ResultCache(memory=SHARED) if cache is None else cache
        self._ahead = ahead
        self._kept = Kept(keep)
        self._digests: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._rates: dict[tuple[str, ...], float] = {}
        self._choice = _choice(0, networks, strategy, params, budget)
        self._wanted: list[Rect] = []
        self._nearby: list[Rect] = []
        self._centre: tuple[float, float] | None = None
        self._driven: list[_Drive] = []
        self._wake = threading.Condition()
        self._loading = threading.Lock()
        self._closed = False
        self.computed = 0
        self.error: Exception | None = None
        priorities = [Priority.LIVE] * ABREAST + [Priority.PREFETCH] * ahead
        self._threads = [
            threading.Thread(target=self._serve, args=(p,), name="hrviewer-live", daemon=True)
            for p in priorities
        ]
        for thread in self._threads:
            thread.start()

    def look_at(self, view: Rect, scale: float) -> list[Cell]:
        """Follow a new view; return the cells of it that are already there."""
        wanted = cells(view, scale, self.pyramid.rect)
        near = around(view, scale, self.pyramid.rect) if self._ahead else []
        there = []
        with self._wake:
            self._centre = view.center
            self._wanted = []
            for rect in wanted:
                cell = self._kept.get(self._choice.key(rect))
                under_way = self._drive_of(rect)
                if cell is not None:
                    there.append(cell)
                elif under_way is not None:
                    under_way.hurry()
                else:
                    self._wanted.append(rect)
            stay = {*wanted} if self._wanted else {*wanted, *near}
            for under_way in self._driven:
                if under_way.rect not in stay:
                    under_way.control.stop()
            self._nearby = [
                rect
                for rect in near
                if self._kept.get(self._choice.key(rect)) is None and self._drive_of(rect) is None
            ]
            self._wake.notify_all()
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
        """How many cells in view are not finished."""
        with self._wake:
            return len(self._wanted) + sum(
                not drive.ahead and not drive.control.stopped for drive in self._driven
            )

    def idle(self) -> bool:
        """Tell whether nothing is left to do, in view or next to it, and nothing runs."""
        with self._wake:
            return not (self._wanted or self._nearby or self._driven)

    def close(self, *, wait: bool = True) -> None:
        """Stop at the next batch."""
        with self._wake:
            self._closed = True
            self._rest()
            self._wake.notify_all()
        for thread in self._threads if wait else ():
            if threading.current_thread() is not thread:
                thread.join()

    # With the lock.

    def _rest(self) -> None:
        self._wanted, self._nearby = [], []
        for under_way in self._driven:
            under_way.control.stop()

    def _drive_of(self, rect: Rect) -> _Drive | None:
        """Return what is under way to a cell."""
        return next(
            (
                found
                for found in self._driven
                if found.choice is self._choice and found.rect == rect and not found.control.stopped
            ),
            None,
        )

    def _next(self, priority: Priority) -> Rect | None:
        """Take the next cell out of its queue; what is ahead waits until the view is done."""
        if priority is Priority.LIVE:
            return self._wanted.pop(0) if self._wanted else None
        busy = self._wanted or any(not drive.ahead for drive in self._driven)
        return None if busy or not self._nearby else self._nearby.pop(0)

    # On the session's threads.

    def _serve(self, priority: Priority) -> None:
        while True:
            with self._wake:
                while (rect := self._next(priority)) is None and not self._closed:
                    self._wake.wait()
                if rect is None or self._closed:
                    return
                drive = _Drive(self._choice, rect, priority)
                self._driven.append(drive)
            cell: Cell | None = None
            try:
                cell = self._see(drive)
            except Exception as error:  # whatever it is, the session must go on serving
                self._give_up(drive, error)
            with self._wake:
                self._driven.remove(drive)
                if cell is not None:
                    self._kept.put(drive.choice.key(rect), cell)
                self._wake.notify_all()
            if cell is not None and not drive.ahead:
                self._heard(drive.choice.number, rect, cell)
                self._ready(cell)

    def _give_up(self, drive: _Drive, error: Exception) -> None:
        """Wait for another choice or view; cells under way would only fail for the same reason."""
        with self._wake:
            tell = not drive.control.stopped and drive.choice is self._choice and not drive.ahead
            if not drive.control.stopped:
                self.error = error
            if drive.choice is self._choice:
                self._rest()
        if tell:
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

    def _see(self, drive: _Drive) -> Cell | None:
        """See to a cell; None if it was stopped."""
        with self._loading:  # networks are loaded, and rates measured, once
            self._name(drive.choice)
            with self._wake:
                kept = self._kept.get(drive.choice.key(drive.rect))
            if kept is not None or drive.control.stopped:
                return kept
            scene = self._scene(drive)
            looker = self._looker(drive)
        return self._run(drive, scene, looker)

    def _scene(self, drive: _Drive) -> Scene:
        choice, budget, rate = drive.choice, drive.choice.budget, None
        if budget is not None:
            part = drive.rect.area / self.pyramid.rect.area
            budget = budget.part(part)
            rate = self._rates.get(choice.digests or ())
        scene, _, rate = build_scene(
            self.pyramid,
            choice.networks,
            choice.strategy,
            region=drive.rect,
            budget=budget,
            rate=rate,
            hints=choice.hints,
        )
        if rate is not None:
            self._rates[choice.digests or ()] = rate
        return scene

    def _looker(self, drive: _Drive) -> Looker:
        networks = drive.choice.networks
        looker = Looker(
            self.pyramid,
            networks,
            networks.device,
            drive.rect,
            cache=self._cache,
            control=drive.control,
            focus=lambda: self._centre,
        )
        with self._wake:
            drive.looker, looker.priority = looker, drive.priority
        return looker

    def _run(self, cell: _Drive, scene: Scene, looker: Looker) -> Cell | None:
        choice, rect = cell.choice, cell.rect

        def tell(update: Update) -> None:
            if cell.ahead:
                return
            if isinstance(update, Seen) and update.status == "done":
                with self._wake:
                    self.computed += 1
            if not cell.control.stopped:
                self._heard(choice.number, rect, update)

        sink = Keep()
        if not cell.ahead:
            self._heard(choice.number, rect, None)
        plan = choice.strategy.plan(scene, choice.params)
        answer = drive(plan, looker, sink, budget=scene.budget, watch=tell)
        return None if answer is None else Cell(rect, tuple(sink.seen), tuple(sink.shown), answer)


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
