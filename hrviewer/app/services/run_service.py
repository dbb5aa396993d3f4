"""The run that is at work: beginning, holding, going on and ending it, and telling of it.

A run goes on with what was chosen when it began, whatever is chosen meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from napari.layers import Image

from hrviewer.app.services.run_worker import RunFailed, RunFinished, RunStarted, RunWorker, Status
from hrviewer.engine import Budget, LoadedModels
from hrviewer.errors import HrviewerError
from hrviewer.paths import unused_path
from hrviewer.runs import Run, RunSpec, estimate_to_dict, format_estimate, parse_params
from hrviewer.strategies import Strategy, get_strategy
from hrviewer.units import format_duration, format_si
from hrviewer.viewer.image.image_layer import plane_of, pyramid_of

if TYPE_CHECKING:
    from hrviewer.viewer.controller import Controller

__all__ = ["RunService", "RunState"]

RunState = Literal["idle", "starting", "running", "paused", "stopping"]


class RunService:
    """Carries out what is chosen.

    Parameters
    ----------
    controller : Controller
        Knows what is chosen, and tells the person.

    Attributes
    ----------
    state : str
        What goes on.
    """

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self.state: RunState = "idle"
        self._worker: RunWorker | None = None
        self._started: RunStarted | None = None

    @property
    def is_running(self) -> bool:
        """Whether there is a run that has not ended."""
        return self._worker is not None

    def start(self, out: Path | None, override: Strategy | None = None) -> None:
        """Run what is chosen, or another strategy as it is by default, all else as chosen."""
        if self._worker is not None:
            return
        controller = self._controller
        with controller.reporting_errors():
            base = controller.require_image_layer()
            pack = controller.model
            if pack is None:
                raise HrviewerError("choose a model first")
            strategy = override or controller.strategy
            params = parse_params(strategy, {} if override else controller.params)
            budget = Budget.parse(controller.budget) if controller.budget.strip() else None
            region, hints = controller.selected_rect(), {} if override else controller.prior_maps()
            plane, networks = plane_of(controller.viewer, base), controller.loaded_models_for(pack)

            def prepare() -> tuple[RunSpec, LoadedModels]:
                pyramid = pyramid_of(base, plane)
                job = RunSpec(pyramid, pack, strategy, params, region, budget, priors=hints)
                return job, networks

            self._launch(prepare, out or self._new_run_path(base, strategy))

    def resume_run(self, run: Run) -> None:
        """Go on with a run as it was begun, whatever is chosen now."""
        controller = self._controller
        with controller.reporting_errors():
            base, pack, header = controller.require_image_layer(), controller.model, run.header
            if pack is None:
                raise HrviewerError(
                    f"choose the model that the run was begun with: {header['model']}"
                )
            strategy = get_strategy(header["strategy"])
            params = parse_params(strategy, header["params"])
            budget = Budget.parse(header["budget"]) if header["budget"] else None
            networks, plane = controller.loaded_models_for(pack), plane_of(controller.viewer, base)
            hints = controller.prior_maps() if header.get("priors") else {}

            def prepare() -> tuple[RunSpec, LoadedModels]:
                pyramid, seed = pyramid_of(base, plane), header["seed"]
                job = RunSpec(pyramid, pack, strategy, params, run.region, budget, seed, hints)
                return job, networks

            self._launch(prepare, run.path, resume=True)

    def pause(self) -> None:
        """Hold after the batch in flight."""
        if self._worker is not None and self.state == "running":
            self._worker.pause()
            self._set_state("paused")

    def resume(self) -> None:
        """Go on after a pause."""
        if self._worker is not None and self.state == "paused":
            self._worker.resume()
            self._set_state("running")

    def stop(self) -> None:
        """End within one batch; what was seen stays."""
        if self._worker is not None:
            self._worker.stop()
            self._set_state("stopping")

    def close(self) -> threading.Thread | None:
        """Tell nothing any more; return the thread that ends within one batch, if there is one."""
        work, self._worker, self._started = self._worker, None, None
        if work is None:
            return None
        work.stop()
        return work.thread

    def tick(self) -> None:
        """Take in what happened on the run's thread."""
        work = self._worker
        if work is None:
            return
        over = not work.thread.is_alive()
        while work.events:
            self._handle_event(work.events.popleft())
        if self._started is not None:
            self._report_progress(work, self._started)
        if over and not work.events:
            self._worker = self._started = None
            self._set_state("idle")

    def report_run(self, run: Run, notes: list[str]) -> None:
        """Say what a run came to."""
        controller, cost = self._controller, run.cost
        status = Status(1.0, "done") if run.complete else Status(0.0, "")
        controller.progress_changed.emit(status)
        spent = format_cost(cost["flops"], cost["wall_s"], cost["pixels_read"])
        controller.estimate_changed.emit(format_estimate(run.estimate), spent)
        controller.notes_changed.emit(notes)
        controller.overlays_changed.emit()
        if self.state == "idle":  # a reopened run may be one that can go on
            controller.state_changed.emit("idle")

    def _launch(
        self,
        prepare: Callable[[], tuple[RunSpec, LoadedModels]],
        out: Path | None,
        *,
        resume: bool = False,
    ) -> None:
        controller = self._controller
        cache = controller.get_cache()
        controller.live.set_enabled(False)
        controller.run_loader.cancel()
        controller.notes_changed.emit([])
        controller.progress_changed.emit(Status(0.0, "loading the network"))
        self._worker = RunWorker(prepare, out=out, resume=resume, cache=cache)
        self._set_state("starting")

    def _handle_event(self, event: RunStarted | RunFinished | RunFailed) -> None:
        controller = self._controller
        if isinstance(event, RunStarted):
            self._started = event
            controller.annotation_service.save_and_close()
            controller.run = None
            if controller.image_layer is not None:
                controller.show_overlays(controller.image_layer, event.maps)
            if self.state == "starting":
                self._set_state("running")
        elif isinstance(event, RunFinished):
            controller.run = event.run
            if self._started is not None:
                self._started.maps.completion.is_final = True
            if event.run is not None:
                notes = [*event.run.header["notes"]]
                if not event.run.complete:
                    notes.append("stopped: what was seen is kept, and Resume goes on")
                self.report_run(event.run, notes)
                controller.annotation_service.load(event.run)
        else:
            controller.report_error(event.message)

    def _report_progress(self, work: RunWorker, started: RunStarted) -> None:
        """Say how far a run has come, and what it has found so far."""
        record = started.maps.record
        flops, seconds = work.progress.flops, work.elapsed_seconds
        budget = started.job.budget
        fraction = flops / started.expected_flops
        if budget is not None and budget.unit == "seconds":
            fraction = max(fraction, seconds / budget.amount)
        fraction = min(fraction, 0.99)
        left = (
            f"{format_duration(seconds * (1 - fraction) / fraction)} left"
            if fraction > 0.02
            else "…"
        )
        if self.state == "paused":
            left = "paused"
        if not work.thread.is_alive():
            return
        controller = self._controller
        controller.progress_changed.emit(Status(fraction, f"{work.progress.done:,} looks · {left}"))
        if record.estimate is not None:
            region, pixel_size = started.maps.region, started.job.pyramid.pixel_size
            found = estimate_to_dict(
                started.card, record.estimate, record.interval, region, pixel_size
            )
            controller.estimate_changed.emit(format_estimate(found) + " so far", "")
        total = record.cost_map.total
        controller.estimate_changed.emit("", format_cost(total.flops, seconds, total.pixels))

    def _new_run_path(self, image_layer: Image, strategy: Strategy) -> Path | None:
        """Claim a new folder for a run; None leaves it to the run."""
        folder = self._controller.run_folder
        if folder is None:
            return None
        return unused_path(folder, f"{Path(image_layer.name).stem}-{strategy.id}", ".run.zarr")

    def _set_state(self, state: RunState) -> None:
        if state != self.state:
            self.state = state
            self._controller.state_changed.emit(state)


def format_cost(flops: float, seconds: float, pixels: float) -> str:
    """Return a cost in a line."""
    return f"{format_si(flops, 'FLOP')} · {format_duration(seconds)} · {pixels / 1e6:,.1f} MP read"
