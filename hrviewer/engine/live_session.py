"""Live inference on the viewport: small runs on the cells of a fixed lattice.

A few cells run at once, so that reading one overlaps with inference on another and the device's
batches are formed across them; the one nearest to the view's center begins first. A newer view
cancels the cells that only the older one needed. When all cells in view are finished, those around
it are prefetched one after another, at the lowest priority on the device.

Invariants: the lock is never held during reading, inference or callbacks, so `follow_view`,
`select` and `idle_now` return at once; only complete cells are cached, by all that they depend on.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hrviewer.engine.budget import Budget
from hrviewer.engine.cache import ResultCache
from hrviewer.engine.device_scheduler import Priority
from hrviewer.engine.inference_result import InferenceResult
from hrviewer.engine.loaded_models import LoadedModels
from hrviewer.engine.pipeline import InferencePipeline
from hrviewer.engine.plan_runner import Update, run_plan
from hrviewer.engine.plan_setup import build_context
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
from hrviewer.strategies import Params, PlanContext, Rates, Strategy

__all__ = ["LiveSession"]

log = logging.getLogger(__name__)

CONCURRENT_CELLS = 2
"""Cells in view that run at once."""

SHARED_CACHE_BYTES = 64 << 20
"""Size of the cache through which cells share results, where none is given."""

OnUpdate = Callable[[int, Rect, "Update | ViewportCell | None"], None]


@dataclass(slots=True, eq=False)
class _Selection:
    """Selected models, strategy and settings, with their keys once networks are loaded."""

    number: int
    models: LoadedModels
    strategy: Strategy
    params: Params
    budget: Budget | None
    settings_key: tuple[str, ...]
    priors: Priors
    model_keys: tuple[str, ...] | None = None
    whole: PlanContext | None = None

    def key(self, rect: Rect) -> tuple[Any, ...] | None:
        return None if self.model_keys is None else (rect, *self.settings_key, *self.model_keys)


@dataclass(slots=True, eq=False)
class _CellJob:
    """The run of a cell, in progress."""

    selection: _Selection
    rect: Rect
    priority: Priority
    control: RunControl = field(default_factory=RunControl)
    pipeline: InferencePipeline | None = None

    @property
    def prefetching(self) -> bool:
        """Whether the cell is outside the view."""
        return self.priority is Priority.PREFETCH

    def promote(self) -> None:
        """Raise the priority when the cell comes into view."""
        self.priority = Priority.LIVE
        if self.pipeline is not None:
            self.pipeline.priority = Priority.LIVE


class LiveSession:
    """Runs one strategy at a time on the cells of a viewport.

    Parameters
    ----------
    pyramid, models, strategy, params
        Image, loaded models, strategy and its parameters.
    budget : Budget, optional
        Of the whole image: a cell gets its share by area. The strategy's default otherwise.
    cache : ResultCache, optional
        Also serves results of runs on the whole image and of cells left half done. Results that
        several cells request (as a scout's on the whole image) are shared through it.
    on_update : callable, optional
        Called on a thread of the session with the number of the selection, a cell's rectangle,
        and: None when the cell begins, updates as they arrive, and the `ViewportCell` when it is
        finished. For prefetched cells it is called once they come into view.
    on_error : callable, optional
        Called with the reason why inference fails; the session then waits for another selection
        or view.
    max_bytes : int
        Approximate bound of the finished cells, in bytes.
    prefetch : bool
        Whether cells around the view are run when there is nothing else to do.

    Attributes
    ----------
    computed : int
        Results in view that were computed, not reused.
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
        on_update: OnUpdate = lambda number, rect, update: None,
        on_error: Callable[[Exception], None] = lambda error: None,
        budget: Budget | None = None,
        cache: ResultCache | None = None,
        max_bytes: int = 512 << 20,
        prefetch: bool = False,
    ) -> None:
        self.pyramid = pyramid
        self._on_update, self._on_error = on_update, on_error
        self._cache = ResultCache(memory_bytes=SHARED_CACHE_BYTES) if cache is None else cache
        self._prefetch = prefetch
        self._cells = CellCache(max_bytes)
        self._model_keys: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._rates: dict[tuple[str, ...], Rates] = {}
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
        """Run on the cells of a new view; return those that are already finished."""
        wanted = visible_cells(view, scale, self.pyramid.rect)
        near = neighbours(view, scale, self.pyramid.rect) if self._prefetch else []
        finished = []
        with self._condition:
            self._view_center = view.center
            self._queue = []
            for rect in wanted:
                cell = self._cells.get(self._selection.key(rect))
                job = self._job_for(rect)
                if cell is not None:
                    finished.append(cell)
                elif job is not None:
                    job.promote()
                else:
                    self._queue.append(rect)
            needed = {*wanted} if self._queue else {*wanted, *near}
            for job in self._jobs:
                if job.rect not in needed:
                    job.control.stop()
            self._prefetch_queue = [
                rect
                for rect in near
                if self._cells.get(self._selection.key(rect)) is None
                and self._job_for(rect) is None
            ]
            self._condition.notify_all()
        return finished

    def select(
        self,
        strategy: Strategy,
        params: Params,
        budget: Budget | None = None,
        models: LoadedModels | None = None,
        priors: Priors | None = None,
    ) -> int:
        """Select another strategy, and wait for a view; return the selection's number.

        Finished cells of other selections stay in the cache, by the digests of their networks.
        """
        with self._condition:
            if models is not None and models is not self._selection.models:
                self._model_keys.clear()
            models = models or self._selection.models
            number = self._selection.number + 1
            self._selection = _make_selection(number, models, strategy, params, budget, priors)
            self._selection.model_keys = self._model_keys.get(required_roles(strategy))
            self._cancel_jobs()
            log.debug("selection %d: %s", number, strategy.id)
            return number

    def idle_now(self) -> None:
        """Cancel everything until there is a new view."""
        with self._condition:
            self._cancel_jobs()

    @property
    def pending(self) -> int:
        """Number of unfinished cells in view."""
        with self._condition:
            return len(self._queue) + sum(
                not job.prefetching and not job.control.stopped for job in self._jobs
            )

    def is_idle(self) -> bool:
        """Return whether nothing runs or is queued, in view or around it."""
        with self._condition:
            return not (self._queue or self._prefetch_queue or self._jobs)

    def close(self, *, wait: bool = True) -> None:
        """Stop after the current batch."""
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
        for job in self._jobs:
            job.control.stop()

    def _job_for(self, rect: Rect) -> _CellJob | None:
        """Return the running job of a cell, if any."""
        return next(
            (
                job
                for job in self._jobs
                if job.selection is self._selection and job.rect == rect and not job.control.stopped
            ),
            None,
        )

    def _next(self, priority: Priority) -> Rect | None:
        """Take the next cell out of its queue; prefetching waits until the view is finished."""
        if priority is Priority.LIVE:
            return self._queue.pop(0) if self._queue else None
        busy = self._queue or any(not job.prefetching for job in self._jobs)
        return None if busy or not self._prefetch_queue else self._prefetch_queue.pop(0)

    # On the session's threads.

    def _run_jobs(self, priority: Priority) -> None:
        while True:
            with self._condition:
                while (rect := self._next(priority)) is None and not self._closed:
                    self._condition.wait()
                if rect is None or self._closed:
                    return
                job = _CellJob(self._selection, rect, priority)
                self._jobs.append(job)
            cell: ViewportCell | None = None
            try:
                cell = self._process(job)
            except Exception as error:  # the session goes on after any error
                self._report_error(job, error)
            with self._condition:
                self._jobs.remove(job)
                if cell is not None:
                    self._cells.put(job.selection.key(rect), cell)
                self._condition.notify_all()
            if cell is not None and not job.prefetching:
                self._on_update(job.selection.number, rect, cell)

    def _report_error(self, job: _CellJob, error: Exception) -> None:
        """Cancel the other cells, which would fail for the same reason, and report the error."""
        with self._condition:
            report = (
                not job.control.stopped and job.selection is self._selection and not job.prefetching
            )
            if not job.control.stopped:
                self.error = error
            if job.selection is self._selection:
                self._cancel_jobs()
        log.debug("cell %s failed", job.rect, exc_info=error)
        if report:
            self._on_error(error)

    def _load_models(self, selection: _Selection) -> None:
        """Load the networks of a selection, whose digests are part of its cells' keys."""
        if selection.model_keys is None:
            roles = required_roles(selection.strategy)
            needed = {role: _network_key(selection.models[role]) for role in roles}
            others = {
                role: card.sha256 or card.cache_key
                for role, card in selection.models.bundle.roles.items()
                if role not in needed
            }
            keys = tuple(f"{role} {name}" for role, name in sorted((needed | others).items()))
            with self._condition:
                selection.model_keys = keys
                if selection.models is self._selection.models:
                    self._model_keys[roles] = keys

    def _process(self, job: _CellJob) -> ViewportCell | None:
        """Return the finished cell, from the cache or by running it; None if it was stopped."""
        with self._load_lock:  # networks are loaded, and rates measured, once
            self._load_models(job.selection)
            with self._condition:
                cached = self._cells.get(job.selection.key(job.rect))
            if cached is not None or job.control.stopped:
                return cached
            if job.selection.whole is None:
                job.selection.whole = self._build_context(job.selection, self.pyramid.rect)
            context = self._build_context(job.selection, job.rect)
            pipeline = self._build_pipeline(job)
        return self._run_cell(job, context, job.selection.whole, pipeline)

    def _build_context(self, selection: _Selection, region: Rect) -> PlanContext:
        budget, rates = selection.budget, None
        if budget is not None:
            budget = budget.scaled(region.area / self.pyramid.rect.area)
            rates = self._rates.get(selection.model_keys or ())
        context, _, rates = build_context(
            self.pyramid,
            selection.models,
            selection.strategy,
            region=region,
            budget=budget,
            rates=rates,
            priors=selection.priors,
        )
        if rates is not None:
            self._rates[selection.model_keys or ()] = rates
        return context

    def _build_pipeline(self, job: _CellJob) -> InferencePipeline:
        models = job.selection.models
        pipeline = InferencePipeline(
            self.pyramid,
            models,
            models.device,
            job.rect,
            cache=self._cache,
            control=job.control,
            focus=lambda: self._view_center,
        )
        with self._condition:
            job.pipeline, pipeline.priority = pipeline, job.priority
        return pipeline

    def _run_cell(
        self,
        job: _CellJob,
        context: PlanContext,
        whole: PlanContext,
        pipeline: InferencePipeline,
    ) -> ViewportCell | None:
        selection, rect = job.selection, job.rect

        def on_event(update: Update) -> None:
            if job.prefetching:
                return
            if isinstance(update, InferenceResult) and update.status == "done":
                with self._condition:
                    self.computed += 1
            if not job.control.stopped:
                self._on_update(selection.number, rect, update)

        sink = CellCollector()
        if not job.prefetching:
            self._on_update(selection.number, rect, None)
        context, params = selection.strategy.as_part(context, whole, selection.params)
        plan = selection.strategy.plan(context, params)
        estimate = run_plan(plan, pipeline, sink, budget=context.budget, on_event=on_event)
        if estimate is None:
            return None
        return ViewportCell(rect, tuple(sink.results), tuple(sink.published), estimate)


def _network_key(network: Network) -> str:
    """Return a key of all that a network's predictions depend on."""
    return f"{network.digest} {network.backend} {network.device} {network.precision}"


def required_roles(strategy: Strategy) -> tuple[str, ...]:
    """Return the roles that a strategy always needs, sorted."""
    return tuple(sorted({"main", *strategy.roles}))


def _make_selection(
    number: int,
    models: LoadedModels,
    strategy: Strategy,
    params: Params,
    budget: Budget | None,
    priors: Priors | None = None,
) -> _Selection:
    fingerprints = str(prior_fingerprints(priors or {}))
    key = strategy.id, params.model_dump_json(), str(budget), fingerprints
    return _Selection(number, models, strategy, params, budget, key, priors or {})
