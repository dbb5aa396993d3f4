"""The run that is at work: beginning, holding, going on and ending it, and telling of it.

A run goes on with what was chosen when it began, whatever is chosen meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from napari.layers import Image

from hrviewer.app.services.run_worker import Began, Ended, Failed, Status, Work
from hrviewer.engine import Budget, Networks
from hrviewer.errors import UserError
from hrviewer.runs import Job, Run, describe, parse_params, sentence
from hrviewer.strategies import Strategy, get_strategy
from hrviewer.units import duration, si
from hrviewer.viewer.image.image_layer import plane_of, pyramid_of

if TYPE_CHECKING:
    from hrviewer.viewer.controller import Controller

__all__ = ["Running", "State"]

State = Literal["idle", "starting", "running", "paused", "stopping"]


class Running:
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
        self.state: State = "idle"
        self._work: Work | None = None
        self._began: Began | None = None

    @property
    def at_work(self) -> bool:
        """Whether there is a run that has not ended."""
        return self._work is not None

    def start(self, out: Path | None, other: Strategy | None = None) -> None:
        """Run what is chosen, or another strategy as it is by default, all else as chosen."""
        if self._work is not None:
            return
        controller = self._controller
        with controller.telling():
            base = controller.need_base()
            pack = controller.pack
            if pack is None:
                raise UserError("choose a model first")
            strategy = other or controller.strategy
            params = parse_params(strategy, {} if other else controller.params)
            budget = Budget.parse(controller.budget) if controller.budget.strip() else None
            region, hints = controller.rect(), {} if other else controller.hints()
            plane, networks = plane_of(controller.viewer, base), controller.networks_of(pack)

            def prepare() -> tuple[Job, Networks]:
                pyramid = pyramid_of(base, plane)
                job = Job(pyramid, pack, strategy, params, region, budget, hints=hints)
                return job, networks

            self._launch(prepare, out or self._path(base, strategy))

    def go_on(self, run: Run) -> None:
        """Go on with a run as it was begun, whatever is chosen now."""
        controller = self._controller
        with controller.telling():
            base, pack, header = controller.need_base(), controller.pack, run.header
            if pack is None:
                raise UserError(f"choose the model that the run was begun with: {header['model']}")
            strategy = get_strategy(header["strategy"])
            params = parse_params(strategy, header["params"])
            budget = Budget.parse(header["budget"]) if header["budget"] else None
            networks, plane = controller.networks_of(pack), plane_of(controller.viewer, base)
            hints = controller.hints() if header.get("hints") else {}

            def prepare() -> tuple[Job, Networks]:
                pyramid, seed = pyramid_of(base, plane), header["seed"]
                job = Job(pyramid, pack, strategy, params, run.region, budget, seed, hints)
                return job, networks

            self._launch(prepare, run.path, resume=True)

    def pause(self) -> None:
        """Hold after the batch in flight."""
        if self._work is not None and self.state == "running":
            self._work.pause()
            self._set("paused")

    def resume(self) -> None:
        """Go on after a pause."""
        if self._work is not None and self.state == "paused":
            self._work.resume()
            self._set("running")

    def stop(self) -> None:
        """End within one batch; what was seen stays."""
        if self._work is not None:
            self._work.stop()
            self._set("stopping")

    def close(self) -> threading.Thread | None:
        """Tell nothing any more; return the thread that ends within one batch, if there is one."""
        work, self._work, self._began = self._work, None, None
        if work is None:
            return None
        work.stop()
        return work.thread

    def tick(self) -> None:
        """Take in what happened on the run's thread."""
        work = self._work
        if work is None:
            return
        over = not work.thread.is_alive()
        while work.events:
            self._take(work.events.popleft())
        if self._began is not None:
            self._tell(work, self._began)
        if over and not work.events:
            self._work = self._began = None
            self._set("idle")

    def report(self, run: Run, notes: list[str]) -> None:
        """Say what a run came to."""
        controller, cost = self._controller, run.cost
        status = Status(1.0, "done") if run.complete else Status(0.0, "")
        controller.progressed.emit(status)
        spent = cost_words(cost["flops"], cost["wall_s"], cost["pixels_read"])
        controller.answered.emit(sentence(run.estimate), spent)
        controller.noted.emit(notes)
        controller.overlays_changed.emit()
        if self.state == "idle":  # a reopened run may be one that can go on
            controller.state_changed.emit("idle")

    def _launch(
        self, prepare: Callable[[], tuple[Job, Networks]], out: Path | None, *, resume: bool = False
    ) -> None:
        controller = self._controller
        cache = controller.results()
        controller.live.turn(False)
        controller.reopener.cancel()
        controller.noted.emit([])
        controller.progressed.emit(Status(0.0, "loading the network"))
        self._work = Work(prepare, out=out, resume=resume, cache=cache)
        self._set("starting")

    def _take(self, event: Began | Ended | Failed) -> None:
        controller = self._controller
        if isinstance(event, Began):
            self._began = event
            controller.drawing.put_away()
            controller.run = None
            if controller.base is not None:
                controller.draw(controller.base, event.picture)
            if self.state == "starting":
                self._set("running")
        elif isinstance(event, Ended):
            controller.run = event.run
            if self._began is not None:
                self._began.picture.course.over = True
            if event.run is not None:
                notes = [*event.run.header["notes"]]
                if not event.run.complete:
                    notes.append("stopped: what was seen is kept, and Resume goes on")
                self.report(event.run, notes)
                controller.drawing.show(event.run)
        else:
            controller.fail(event.message)

    def _tell(self, work: Work, began: Began) -> None:
        """Say how far a run has come, and what it has found so far."""
        record = began.picture.record
        flops, seconds = work.progress.flops, work.seconds
        budget = began.job.budget
        fraction = flops / began.flops
        if budget is not None and budget.unit == "seconds":
            fraction = max(fraction, seconds / budget.amount)
        fraction = min(fraction, 0.99)
        left = f"{duration(seconds * (1 - fraction) / fraction)} left" if fraction > 0.02 else "…"
        if self.state == "paused":
            left = "paused"
        if not work.thread.is_alive():
            return
        controller = self._controller
        controller.progressed.emit(Status(fraction, f"{work.progress.done:,} looks · {left}"))
        if record.estimate is not None:
            region, pixel_size = began.picture.region, began.job.pyramid.pixel_size
            found = describe(began.card, record.estimate, record.interval, region, pixel_size)
            controller.answered.emit(sentence(found) + " so far", "")
        total = record.ledger.total
        controller.answered.emit("", cost_words(total.flops, seconds, total.pixels))

    def _path(self, base: Image, strategy: Strategy) -> Path | None:
        """Return a folder that does not exist yet; None leaves it to the run."""
        folder = self._controller.folder
        if folder is None:
            return None
        folder.mkdir(parents=True, exist_ok=True)
        stem = f"{Path(base.name).stem}-{strategy.id}"
        names = (f"{stem}-{n}.run.zarr" for n in count(2))
        paths = (folder / name for name in chain([f"{stem}.run.zarr"], names))
        return next(path for path in paths if not path.exists())

    def _set(self, state: State) -> None:
        if state != self.state:
            self.state = state
            self._controller.state_changed.emit(state)


def cost_words(flops: float, seconds: float, pixels: float) -> str:
    """Return a cost in a line."""
    return f"{si(flops, 'FLOP')} · {duration(seconds)} · {pixels / 1e6:,.1f} MP read"
