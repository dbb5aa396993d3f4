"""The run in progress: starting, pausing, resuming and stopping it, and its progress.

A run keeps the settings and the image that it was started with, also when others are selected;
it ends with its image.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from psygnal import Signal

from hrviewer.app.image_session import ImageSession, Status
from hrviewer.app.resources import Resources
from hrviewer.app.services.background import Background
from hrviewer.app.services.run_worker import RunEvent, RunFailed, RunFinished, RunStarted, RunWorker
from hrviewer.app.settings import ResolvedRun
from hrviewer.app.state import AppState
from hrviewer.formatting import NO_ESTIMATE, describe_estimate
from hrviewer.paths import unused_path
from hrviewer.phases import LOADING
from hrviewer.runs import Run, estimate_to_dict
from hrviewer.runs.region_table import describe_region
from hrviewer.strategies import Strategy, aggregation_of
from hrviewer.units import format_duration, format_si

__all__ = ["RunService", "format_cost", "format_run_cost", "list_notes", "report_run"]

CACHED_RATIO = 1.5
"""Nominal seconds over those of a run, from which both are displayed."""


class RunService:
    """Runs what is selected.

    Parameters
    ----------
    state : AppState
        Has the settings and gets the results.
    background : Background
        Brings the worker's events.
    resources : Resources
        Models, cache and folders.
    """

    stop_requested = Signal()

    def __init__(self, state: AppState, background: Background, resources: Resources) -> None:
        self._state, self._background, self._resources = state, background, resources
        self._worker: RunWorker | None = None
        self._image: ImageSession | None = None
        self._started: RunStarted | None = None
        self._out: Path | None = None
        self._launch_number = 0
        self._abandoned: list[threading.Thread] = []
        state.image_closed.connect(self._on_image_closed)

    @property
    def is_running(self) -> bool:
        """Whether there is a run that has not ended."""
        return self._worker is not None

    def start(self, *, out: Path | None = None, strategy: Strategy | None = None) -> None:
        """Run what is selected.

        Parameters
        ----------
        out : Path, optional
            The run's folder; a new one by default.
        strategy : Strategy, optional
            Another strategy with its default parameters instead of the selected one.
        """
        if self._worker is None:
            with self._state.reporting_errors():
                resolved = self._state.resolve(strategy=strategy)
                self._launch(resolved, out or self._new_run_path(resolved))

    def pause(self) -> None:
        """Pause after the current batch."""
        if self._worker is not None and self._state.run_state == "running":
            self._worker.pause()
            self._state.set_run_state("paused")

    def resume(self) -> None:
        """Resume a paused run, or the stopped run on the current image."""
        state = self._state
        if self._worker is not None:
            if state.run_state == "paused":
                self._worker.resume()
                state.set_run_state("running")
            return
        run = state.resumable_run
        if run is not None:
            with state.reporting_errors():
                resolved = state.settings.resolve_resumed(state.require_image(), run)
                self._launch(resolved, run.path, resume=True)

    def stop(self) -> None:
        """Stop after the current batch; results so far are kept. A loading run ends at once."""
        self.stop_requested.emit()
        if self._worker is not None:
            self._worker.stop()
            if self._started is None:
                self._abandon()
            else:
                self._state.set_run_state("stopping")

    def tick(self) -> None:
        """Report progress."""
        worker, started, image = self._worker, self._started, self._image
        if worker is None or image is None:
            return
        if started is not None:
            self._report_progress(worker, started, image)
        elif self._state.run_state == "starting":
            self._state.set_status(image, Status(0.0, describe_loading(worker)))

    def close(self) -> list[threading.Thread]:
        """Report nothing more; return the threads that end within one batch or when they loaded."""
        worker, self._worker, self._started = self._worker, None, None
        if worker is not None:
            worker.stop()
            self._abandoned.append(worker.thread)
        return [thread for thread in self._abandoned if thread.is_alive()]

    def _launch(self, resolved: ResolvedRun, out: Path | None, *, resume: bool = False) -> None:
        state, image = self._state, resolved.image
        models = self._resources.models_for(resolved.model, resolved.device, resolved.precision)
        cache = self._resources.result_cache()
        state.run_starting.emit()
        state.set_status(image, Status(0.0, "loading the model"))
        self._image = image
        self._out = None if resume else out
        self._launch_number += 1
        self._worker = RunWorker(
            lambda: (resolved.spec(), models),
            partial(self._post, self._launch_number),
            out=out,
            resume=resume,
            cache=cache,
        )
        state.set_run_state("starting")

    def _abandon(self) -> None:
        """End a run whose model is still being loaded, which nothing can interrupt."""
        image, out = self._image, self._out
        assert self._worker is not None
        self._abandoned = [thread for thread in self._abandoned if thread.is_alive()]
        self._abandoned.append(self._worker.thread)
        self._worker = self._image = None
        self._launch_number += 1  # what it still announces is of no run
        if out is not None:
            with suppress(OSError):  # not empty: it has begun after all, and can be resumed
                out.rmdir()
        if image is not None and not image.closed:
            self._state.set_status(image, Status(0.0, ""))
        self._state.set_run_state("idle")

    def _post(self, number: int, event: RunEvent) -> None:
        """Hand an event over; on the worker's thread."""
        self._background.post(partial(self._handle_event, number, event))

    def _handle_event(self, number: int, event: RunEvent) -> None:
        state, image = self._state, self._image
        if number != self._launch_number or self._worker is None or image is None:
            return
        if isinstance(event, RunStarted):
            self._started = event
            # Until here the results of before are displayed: a run that cannot begin leaves them.
            state.show_results(image, event.maps)
            state.set_notes(image, [])
            state.set_estimate(image, NO_ESTIMATE, "")
            if state.run_state == "starting":
                state.set_run_state("running")
            return
        if self._started is not None:
            self._started.maps.completion.is_final = True
        self._worker = self._started = self._image = None
        if isinstance(event, RunFailed):
            if not image.closed:
                state.report_error(event.message)
                state.set_status(image, Status(0.0, ""))
        elif isinstance(event, RunFinished) and event.run is not None and not image.closed:
            image.run = event.run
            report_run(state, image, event.run, list_notes(event.run))
        elif not image.closed:
            state.set_status(image, Status(0.0, ""))
        state.set_run_state("idle")

    def _on_image_closed(self, image: ImageSession) -> None:
        if image is self._image:
            self.stop()

    def _report_progress(self, worker: RunWorker, started: RunStarted, image: ImageSession) -> None:
        """Report the progress of the run, and its estimate so far."""
        state, record, budget = self._state, started.maps.record, started.spec.budget
        if not worker.thread.is_alive():
            return
        flops, seconds = worker.progress.flops, worker.elapsed_seconds
        fraction = flops / started.expected_flops
        if budget is not None and budget.unit == "seconds":
            fraction = max(fraction, seconds / budget.amount)
        fraction = min(fraction, 0.99)
        left = "…"
        if state.run_state == "paused":
            left = "paused"
        elif fraction > 0:
            left = f"{format_duration(seconds * (1 - fraction) / fraction)} left"
        state.set_status(image, Status(fraction, f"{worker.progress.done:,} patches · {left}"))
        estimate = None
        if record.estimate is not None:
            found = estimate_to_dict(
                started.card,
                record.estimate,
                record.interval,
                started.maps.region,
                started.spec.pyramid.pixel_size,
                data_area=None if (mask := started.spec.part[1]) is None else mask.area,
                synthetic=started.spec.pyramid.synthetic_name,
                main=started.spec.bundle.roles.get("main"),
                class_intervals=record.class_intervals,
                aggregation=aggregation_of(started.spec.params),
            )
            estimate = replace(describe_estimate(found), extent="so far")
        total = record.cost_map.total
        state.set_estimate(image, estimate, format_cost(total.flops, seconds, total.pixels))

    def _new_run_path(self, resolved: ResolvedRun) -> Path | None:
        """Claim a new folder for a run; None leaves it to the run."""
        folder = self._resources.run_folder
        if folder is None:
            return None
        stem = f"{Path(resolved.image.name).stem}-{resolved.strategy.id}"
        return unused_path(folder, stem, ".run.zarr")


def describe_loading(worker: RunWorker) -> str:
    """Return what a run does before its first patch, and for how long."""
    phase = "loading the model" if worker.phase == LOADING else worker.phase
    seconds = worker.loading_seconds
    return f"{phase} · {format_duration(seconds)}" if seconds >= 1 else phase


def list_notes(run: Run) -> list[str]:
    """Return the notes of a run, first why it is incomplete."""
    rows = run.header.get("regions", ())
    notes = [f"{row['name']}: {describe_region(row, run.pixel_size)}" for row in rows]
    notes += run.header["notes"]
    if not run.complete:
        reason = run.incomplete or "not finished"
        notes.insert(0, f"incomplete: {reason}; Resume continues")
    if run.estimate is None and run.coverage < 100:
        notes.insert(0, f"{run.coverage:g} % of the region were processed")
    return notes


def report_run(state: AppState, image: ImageSession, run: Run, notes: list[str]) -> None:
    """Put a run's estimate, cost and notes on its image."""
    state.set_status(image, Status(1.0, "done") if run.complete else Status(0.0, "incomplete"))
    state.set_estimate(
        image,
        describe_estimate(run.estimate),
        format_run_cost(run),
    )
    state.set_notes(image, notes)
    state.run_shown.emit(run)
    if state.run_state == "idle":  # a reopened run may be one that can be resumed
        state.run_state_changed.emit("idle")


def format_run_cost(run: Run) -> str:
    """Return a run's cost in a line, with the seconds that it took."""
    cost = run.cost
    seconds = float(run.header.get("spent", cost)["wall_s"])
    line = format_cost(cost["flops"], seconds, cost["pixels_read"])
    if cost["wall_s"] > CACHED_RATIO * seconds + 1:
        line += f" · {format_duration(cost['wall_s'])} without cached results"
    return line


def format_cost(flops: float, seconds: float, pixels: float) -> str:
    """Return a cost in a line."""
    return f"{format_si(flops, 'FLOP')} · {format_duration(seconds)} · {pixels / 1e6:,.1f} MP read"
