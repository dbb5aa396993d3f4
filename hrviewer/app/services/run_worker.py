"""One run on a thread of its own.

Invariants: the thread never touches the viewer; what it has to say waits in `Work.events` until
the window's thread takes it, the picture is drawn in place. After `stop` the thread ends within
one batch, and leaves a run folder that can be opened.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hrviewer.app.maps.result_maps import ResultMaps
from hrviewer.engine import (
    LoadedModels,
    Progress,
    ResultCache,
    RunControl,
    Update,
    answering_network,
    map_kind,
    model_info,
    native_scale,
)
from hrviewer.errors import HrviewerError
from hrviewer.models import ModelCard
from hrviewer.runs import Run, RunSpec
from hrviewer.strategies import ModelInfo

__all__ = ["RunEvent", "RunFailed", "RunFinished", "RunStarted", "RunWorker", "Status"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Status:
    """How far a run has come: a part of 0 to 1, and words."""

    fraction: float
    message: str


@dataclass(frozen=True)
class RunStarted:
    """Networks are loaded; there is something to draw.

    Parameters
    ----------
    job : Job
        What is carried out.
    maps : Picture
        What it draws into.
    card : Card
        Of the network that answers.
    expected_flops : float
        What is expected to be spent.
    """

    job: RunSpec
    maps: ResultMaps
    card: ModelCard
    expected_flops: float


@dataclass(frozen=True)
class RunFinished:
    """The run came to its end, or was stopped; None if it had not begun."""

    run: Run | None


@dataclass(frozen=True)
class RunFailed:
    """It cannot be done; one line for the person."""

    message: str


RunEvent = RunStarted | RunFinished | RunFailed


class RunWorker:
    """A run on its thread.

    Parameters
    ----------
    prepare : callable
        Returns what to do, and the networks; called on the thread, for it may read.
    out : Path, optional
        The run's folder.
    resume : bool
        Whether to go on with the run in that folder.
    cache : ResultCache, optional
        What was seen before.
    """

    def __init__(
        self,
        prepare: Callable[[], tuple[RunSpec, LoadedModels]],
        *,
        out: Path | None = None,
        resume: bool = False,
        cache: ResultCache | None = None,
    ) -> None:
        self._prepare, self._out, self._resume, self._cache = prepare, out, resume, cache
        self.control = RunControl()
        self.events: deque[RunEvent] = deque()
        self.progress = Progress(0, 0, 0.0)
        self._maps: ResultMaps | None = None
        self._started_at = 0.0
        self._paused_seconds = 0.0
        self._paused_at: float | None = None
        self.thread = threading.Thread(target=self._run, name="hrviewer-run", daemon=True)
        self.thread.start()

    def pause(self) -> None:
        """Hold after the batch in flight."""
        self.control.pause()
        self._paused_at = time.perf_counter()

    def resume(self) -> None:
        """Go on."""
        if self._paused_at is not None:
            self._paused_seconds += time.perf_counter() - self._paused_at
            self._paused_at = None
        self.control.resume()

    def stop(self) -> None:
        """End within one batch."""
        self.control.stop()

    @property
    def elapsed_seconds(self) -> float:
        """How long it has been at work, pauses left out."""
        if not self._started_at:
            return 0.0
        now = self._paused_at or time.perf_counter()
        return now - self._started_at - self._paused_seconds

    def _run(self) -> None:
        try:
            job, networks = self._prepare()
            networks = networks.for_image(job.pyramid)
            network = networks["main"]
            if self.control.stopped:
                self.events.append(RunFinished(None))
                return
            native, _ = native_scale(network.card, job.pyramid)
            card = answering_network(networks, job.strategy).card
            self._maps = ResultMaps(
                job.pyramid.rect,
                network.stride * native,
                map_kind(card),
                card.output.classes or [f"{i}" for i in range(card.prediction_channels)],
                job.pyramid.pixel_size,
                job.region,
            )
            main = model_info(network)
            self._started_at = time.perf_counter()
            self.events.append(RunStarted(job, self._maps, card, expected_flops(job, main, native)))
            run = job.run(
                networks,
                out=self._out,
                resume=self._resume,
                cache=self._cache,
                on_event=self._on_update,
                control=self.control,
            )
            self.events.append(RunFinished(run))
        except HrviewerError as error:
            self.events.append(RunFailed(str(error)))
        except Exception as error:
            log.exception("a run failed")
            self.events.append(RunFailed(f"the run failed: {type(error).__name__}: {error}"))

    def _on_update(self, update: Update) -> None:
        if isinstance(update, Progress):
            self.progress = update
        elif self._maps is not None:
            self._maps.update(update)


def expected_flops(job: RunSpec, main: ModelInfo, native: float) -> float:
    """Return the FLOPs that a run will about spend: looking at everything once, or its budget."""
    region = job.region & job.pyramid.rect if job.region else job.pyramid.rect
    whole = main.flops_per_pixel() * region.area / native**2
    card = main.card.input
    inner = max(1, card.tile - 2 * main.halo) if card.fixed else card.tile
    outer = card.tile if card.fixed else card.tile + 2 * main.halo
    limit = math.inf
    if job.budget is not None and job.budget.unit != "seconds":
        limit = job.budget.flops(main, lambda: math.inf, whole)
    elif job.budget is None and job.strategy.default_budget is not None:
        limit = job.strategy.default_budget * whole
    return max(1.0, min(limit, whole * (outer / inner) ** 2))
