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

from hrviewer.app.maps.result_maps import Picture
from hrviewer.engine import (
    Control,
    Networks,
    Progress,
    ResultCache,
    Update,
    kind_of,
    native_scale,
    role_of,
    speaker,
)
from hrviewer.errors import UserError
from hrviewer.models import Card
from hrviewer.runs import Job, Run
from hrviewer.strategies import Role

__all__ = ["Began", "Ended", "Event", "Failed", "Status", "Work"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Status:
    """How far a run has come: a part of 0 to 1, and words."""

    fraction: float
    words: str


@dataclass(frozen=True)
class Began:
    """Networks are loaded; there is something to draw.

    Parameters
    ----------
    job : Job
        What is carried out.
    picture : Picture
        What it draws into.
    card : Card
        Of the network that answers.
    flops : float
        What is expected to be spent.
    """

    job: Job
    picture: Picture
    card: Card
    flops: float


@dataclass(frozen=True)
class Ended:
    """The run came to its end, or was stopped; None if it had not begun."""

    run: Run | None


@dataclass(frozen=True)
class Failed:
    """It cannot be done; one line for the person."""

    message: str


Event = Began | Ended | Failed


class Work:
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
        prepare: Callable[[], tuple[Job, Networks]],
        *,
        out: Path | None = None,
        resume: bool = False,
        cache: ResultCache | None = None,
    ) -> None:
        self._prepare, self._out, self._resume, self._cache = prepare, out, resume, cache
        self.control = Control()
        self.events: deque[Event] = deque()
        self.progress = Progress(0, 0, 0.0)
        self._picture: Picture | None = None
        self._began = 0.0
        self._held = 0.0
        self._held_since: float | None = None
        self.thread = threading.Thread(target=self._serve, name="hrviewer-run", daemon=True)
        self.thread.start()

    def pause(self) -> None:
        """Hold after the batch in flight."""
        self.control.pause()
        self._held_since = time.perf_counter()

    def resume(self) -> None:
        """Go on."""
        if self._held_since is not None:
            self._held += time.perf_counter() - self._held_since
            self._held_since = None
        self.control.resume()

    def stop(self) -> None:
        """End within one batch."""
        self.control.stop()

    @property
    def seconds(self) -> float:
        """How long it has been at work, pauses left out."""
        if not self._began:
            return 0.0
        now = self._held_since or time.perf_counter()
        return now - self._began - self._held

    def _serve(self) -> None:
        try:
            job, networks = self._prepare()
            networks = networks.on(job.pyramid)
            network = networks["main"]
            if self.control.stopped:
                self.events.append(Ended(None))
                return
            native, _ = native_scale(network.card, job.pyramid)
            card = speaker(networks, job.strategy).card
            self._picture = Picture(
                job.pyramid.rect,
                network.stride * native,
                kind_of(card),
                card.output.classes or [f"{i}" for i in range(card.answers)],
                job.pyramid.pixel_size,
                job.region,
            )
            main = role_of(network)
            self._began = time.perf_counter()
            self.events.append(Began(job, self._picture, card, expected(job, main, native)))
            run = job.run(
                networks,
                out=self._out,
                resume=self._resume,
                cache=self._cache,
                watch=self._watch,
                control=self.control,
            )
            self.events.append(Ended(run))
        except UserError as error:
            self.events.append(Failed(str(error)))
        except Exception as error:
            log.exception("a run failed")
            self.events.append(Failed(f"the run failed: {type(error).__name__}: {error}"))

    def _watch(self, update: Update) -> None:
        if isinstance(update, Progress):
            self.progress = update
        elif self._picture is not None:
            self._picture.take(update)


def expected(job: Job, main: Role, native: float) -> float:
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
