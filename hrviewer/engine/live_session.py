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
from hrviewer.engine.patch_result import InferenceResult
from hrviewer.engine.pipeline import InferencePipeline
from hrviewer.engine.plan_runner import Update, run_plan
from hrviewer.engine.plan_setup import LoadedModels, build_context
from hrviewer.engine.priors import Priors, prior_fingerprints
from hrviewer.engine.run_control import RunControl
from hrviewer.engine.viewport_cells import (
    CellCache,
    CellCollector,
    ViewportCell,
    neighbours,
    visible_cells,
)
from hrviewer.geometry import Rect
from hrviewer.models import Network
from hrviewer.pyramid import Pyramid
from hrviewer.strategies import Params, PlanContext, Strategy

__all__ = ["LiveSession"]

CONCURRENT_CELLS = 2
"""Cells in view that are under way at once."""

SHARED_CACHE_BYTES = 64 << 20
"""Bytes of looks that cells share, where no cache was given."""

OnUpdate = Callable[[int, Rect, "Update | ViewportCell | None"], None]


@dataclass(slots=True, eq=False)
class _Selection:
    """How to look, and what that is called in keys; nobody knows before networks are loaded."""

    number: int
    models: LoadedModels
    strategy: Strategy
    params: Params
    budget: Budget | None
    settings_key: tuple[str, ...]
    priors: Priors
    model_keys: tuple[str, ...] | None = None

    def key(self, rect: Rect) -> tuple[Any, ...] | None:
        return None if self.model_keys is None else (rect, *self.settings_key, *self.model_keys)


@dataclass(slots=True, eq=False)
class _CellJob:
    """A cell under way."""

    selection: _Selection
    rect: Rect
    priority: Priority
    control: RunControl = field(default_factory=RunControl)
    pipeline: InferencePipeline | None = None

    @property
    def prefetching(self) -> bool:
        """Whether nobody sees it yet."""
        return self.priority is Priority.PREFETCH

    def promote(self) -> None:
        """Come into view."""
        self.priority = Priority.LIVE
        if self.pipeline is not None:
            self.pipeline.priority = Priority.LIVE


class LiveSession:
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
    on_cell : callable, optional
        Told of every finished cell in view, on a thread of the session.
    on_update : callable, optional
        Told, on such a thread, the number of the choice, a cell's place, and: None when it is
        begun, updates as they come, and the `Cell` when it is finished. Cells that are looked at
        ahead are heard of when they come into view.
    on_error : callable, optional
        Told why nothing can be looked at; the session then waits for another choice or view.
    max_bytes : int
        How many bytes of finished cells are kept, about.
    prefetch : bool
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
        models: LoadedModels,
        strategy: Strategy,
        params: Params,
        *,
        on_cell: Callable[[ViewportCell], None] = lambda cell: None,
        on_update: OnUpdate = lambda number, rect, update: None,
        on_error: Callable[[Exception], None] = lambda error: None,
        budget: Budget | None = None,
        cache: ResultCache | None = None,
        max_bytes: int = 512 << 20,
        prefetch: bool = False,
    ) -> None:
        self.pyramid = pyramid
        self._on_cell, self._on_update, self._on_error = on_cell, on_update, on_error
        self._cache = ResultCache(memory_bytes=SHARED_CACHE_BYTES) if cache is None else cache
        self._prefetch = prefetch
        self._cells = CellCache(max_bytes)
        self._model_keys: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._flops_rates: dict[tuple[str, ...], float] = {}
        self._selection = _make_selection(0, models, strategy, params, budget)
        self._queue: list[Rect] = []
        self._prefetch_queue: list[Rect] = []
        self._view_center: tuple[float, float] | None = None
        self._jobs: list[_CellJob] = []
        self._condition = threading.Condition()
        self._load_lock = threading.Lock()
        self._closed = False
        self.computed = 0
        self.error: Exception | None = None
        priorities = [Priority.LIVE] * CONCURRENT_CELLS + [Priority.PREFETCH] * prefetch
        self._threads = [
            threading.Thread(target=self._run_jobs, args=(p,), name="hrviewer-live", daemon=True)
            for p in priorities
        ]
        for thread in self._threads:
            thread.start()

    def follow_view(self, view: Rect, scale: float) -> list[ViewportCell]:
        """Follow a new view; return the cells of it that are already there."""
        wanted = visible_cells(view, scale, self.pyramid.rect)
        near = neighbours(view, scale, self.pyramid.rect) if self._prefetch else []
        there = []
        with self._condition:
            self._view_center = view.center
            self._queue = []
            for rect in wanted:
                cell = self._cells.get(self._selection.key(rect))
                under_way = self._job_for(rect)
                if cell is not None:
                    there.append(cell)
                elif under_way is not None:
                    under_way.promote()
                else:
                    self._queue.append(rect)
            stay = {*wanted} if self._queue else {*wanted, *near}
            for under_way in self._jobs:
                if under_way.rect not in stay:
                    under_way.control.stop()
            self._prefetch_queue = [
                rect
                for rect in near
                if self._cells.get(self._selection.key(rect)) is None
                and self._job_for(rect) is None
            ]
            self._condition.notify_all()
        return there

    def select(
        self,
        strategy: Strategy,
        params: Params,
        budget: Budget | None = None,
        models: LoadedModels | None = None,
        priors: Priors | None = None,
    ) -> int:
        """Look differently from now on, and wait for a view; return the choice's number.

        Finished cells of other choices are kept, under the digests of their networks.
        """
        with self._condition:
            if models is not None and models is not self._selection.models:
                self._model_keys.clear()
            models = models or self._selection.models
            number = self._selection.number + 1
            self._selection = _make_selection(number, models, strategy, params, budget, priors)
            self._selection.model_keys = self._model_keys.get(required_roles(strategy))
            self._cancel_jobs()
            return self._selection.number

    def idle_now(self) -> None:
        """Do nothing until there is a new view."""
        with self._condition:
            self._cancel_jobs()

    @property
    def pending(self) -> int:
        """How many cells in view are not finished."""
        with self._condition:
            return len(self._queue) + sum(
                not drive.prefetching and not drive.control.stopped for drive in self._jobs
            )

    def is_idle(self) -> bool:
        """Tell whether nothing is left to do, in view or next to it, and nothing runs."""
        with self._condition:
            return not (self._queue or self._prefetch_queue or self._jobs)

    def close(self, *, wait: bool = True) -> None:
        """Stop at the next batch."""
        with self._condition:
            self._closed = True
            self._cancel_jobs()
            self._condition.notify_all()
        for thread in self._threads if wait else ():
            if threading.current_thread() is not thread:
                thread.join()

    # With the lock.

    def _cancel_jobs(self) -> None:
        self._queue, self._prefetch_queue = [], []
        for under_way in self._jobs:
            under_way.control.stop()

    def _job_for(self, rect: Rect) -> _CellJob | None:
        """Return what is under way to a cell."""
        return next(
            (
                found
                for found in self._jobs
                if found.selection is self._selection
                and found.rect == rect
                and not found.control.stopped
            ),
            None,
        )

    def _next(self, priority: Priority) -> Rect | None:
        """Take the next cell out of its queue; what is ahead waits until the view is done."""
        if priority is Priority.LIVE:
            return self._queue.pop(0) if self._queue else None
        busy = self._queue or any(not drive.prefetching for drive in self._jobs)
        return None if busy or not self._prefetch_queue else self._prefetch_queue.pop(0)

    # On the session's threads.

    def _run_jobs(self, priority: Priority) -> None:
        while True:
            with self._condition:
                while (rect := self._next(priority)) is None and not self._closed:
                    self._condition.wait()
                if rect is None or self._closed:
                    return
                drive = _CellJob(self._selection, rect, priority)
                self._jobs.append(drive)
            cell: ViewportCell | None = None
            try:
                cell = self._process(drive)
            except Exception as error:  # whatever it is, the session must go on serving
                self._report_error(drive, error)
            with self._condition:
                self._jobs.remove(drive)
                if cell is not None:
                    self._cells.put(drive.selection.key(rect), cell)
                self._condition.notify_all()
            if cell is not None and not drive.prefetching:
                self._on_update(drive.selection.number, rect, cell)
                self._on_cell(cell)

    def _report_error(self, job: _CellJob, error: Exception) -> None:
        """Wait for another choice or view; cells under way would only fail for the same reason."""
        with self._condition:
            tell = (
                not job.control.stopped and job.selection is self._selection and not job.prefetching
            )
            if not job.control.stopped:
                self.error = error
            if job.selection is self._selection:
                self._cancel_jobs()
        if tell:
            self._on_error(error)

    def _load_models(self, selection: _Selection) -> None:
        """Load what a choice needs, and so learn the digests that its cells are kept under."""
        if selection.model_keys is None:
            roles = required_roles(selection.strategy)
            needed = {role: _network_key(selection.models[role]) for role in roles}
            others = {
                role: card.sha256 or card.cache_key
                for role, card in selection.models.bundle.roles.items()
                if role not in needed
            }
            digests = tuple(f"{role} {name}" for role, name in sorted((needed | others).items()))
            with self._condition:
                selection.model_keys = digests
                if selection.models is self._selection.models:
                    self._model_keys[roles] = digests

    def _process(self, job: _CellJob) -> ViewportCell | None:
        """See to a cell; None if it was stopped."""
        with self._load_lock:  # networks are loaded, and rates measured, once
            self._load_models(job.selection)
            with self._condition:
                kept = self._cells.get(job.selection.key(job.rect))
            if kept is not None or job.control.stopped:
                return kept
            scene = self._build_context(job)
            looker = self._build_pipeline(job)
        return self._run_cell(job, scene, looker)

    def _build_context(self, job: _CellJob) -> PlanContext:
        choice, budget, rate = job.selection, job.selection.budget, None
        if budget is not None:
            part = job.rect.area / self.pyramid.rect.area
            budget = budget.scaled(part)
            rate = self._flops_rates.get(choice.model_keys or ())
        scene, _, rate = build_context(
            self.pyramid,
            choice.models,
            choice.strategy,
            region=job.rect,
            budget=budget,
            rate=rate,
            priors=choice.priors,
        )
        if rate is not None:
            self._flops_rates[choice.model_keys or ()] = rate
        return scene

    def _build_pipeline(self, job: _CellJob) -> InferencePipeline:
        networks = job.selection.models
        looker = InferencePipeline(
            self.pyramid,
            networks,
            networks.device,
            job.rect,
            cache=self._cache,
            control=job.control,
            focus=lambda: self._view_center,
        )
        with self._condition:
            job.pipeline, looker.priority = looker, job.priority
        return looker

    def _run_cell(
        self, job: _CellJob, context: PlanContext, pipeline: InferencePipeline
    ) -> ViewportCell | None:
        choice, rect = job.selection, job.rect

        def tell(update: Update) -> None:
            if job.prefetching:
                return
            if isinstance(update, InferenceResult) and update.status == "done":
                with self._condition:
                    self.computed += 1
            if not job.control.stopped:
                self._on_update(choice.number, rect, update)

        sink = CellCollector()
        if not job.prefetching:
            self._on_update(choice.number, rect, None)
        plan = choice.strategy.plan(context, choice.params)
        answer = run_plan(plan, pipeline, sink, budget=context.budget, on_event=tell)
        return (
            None
            if answer is None
            else ViewportCell(rect, tuple(sink.results), tuple(sink.published), answer)
        )


def _network_key(network: Network) -> str:
    """Return what a network's answers depend on."""
    return f"{network.digest} {network.backend} {network.device} {network.precision}"


def required_roles(strategy: Strategy) -> tuple[str, ...]:
    """Return the roles that a strategy cannot do without."""
    return tuple(sorted({"main", *strategy.roles}))


def _make_selection(
    number: int,
    models: LoadedModels,
    strategy: Strategy,
    params: Params,
    budget: Budget | None,
    priors: Priors | None = None,
) -> _Selection:
    told = str(prior_fingerprints(priors or {}))
    name = strategy.id, params.model_dump_json(), str(budget), told
    return _Selection(number, models, strategy, params, budget, name, priors or {})
