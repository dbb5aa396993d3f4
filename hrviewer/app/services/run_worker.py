"""One run on a thread.

Invariants: the thread touches neither the state nor a front end; its events are handed to `emit`,
and predictions are written into the result maps in place. After `stop` the thread ends within one
batch and leaves a run folder that can be opened.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hrviewer.app.maps.result_maps import ResultMaps, empty_result_maps
from hrviewer.engine import (
    LoadedModels,
    Progress,
    ResultCache,
    RunControl,
    Update,
    answering_network,
    model_info,
    native_scale,
)
from hrviewer.errors import HrviewerError
from hrviewer.models import ModelCard
from hrviewer.phases import LOADING, Phase, listening
from hrviewer.runs import Run, RunSpec
from hrviewer.strategies import ModelInfo, exhaustive_tile

__all__ = ["RunEvent", "RunFailed", "RunFinished", "RunStarted", "RunWorker"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunStarted:
    """Models are loaded and inference begins.

    Parameters
    ----------
    spec : RunSpec
        The run's specification.
    maps : ResultMaps
        Maps that its predictions are written to.
    card : ModelCard
        Card of the network whose predictions are the run's estimate.
    expected_flops : float
        Expected cost.
    """

    spec: RunSpec
    maps: ResultMaps
    card: ModelCard
    expected_flops: float


@dataclass(frozen=True)
class RunFinished:
    """The run ended or was stopped; None if it had not begun."""

    run: Run | None


@dataclass(frozen=True)
class RunFailed:
    """The run cannot be done; one line for the user."""

    message: str


RunEvent = RunStarted | RunFinished | RunFailed


class RunWorker:
    """A run on its thread.

    Parameters
    ----------
    prepare : callable
        Returns the specification and the models; called on the thread, for it may read.
    emit : callable
        Called on the thread with every event, `RunFinished` or `RunFailed` the last.
    out : Path, optional
        The run's folder.
    resume : bool
        Whether to resume the run in that folder.
    cache : ResultCache, optional
        Results of earlier inference.
    """

    def __init__(
        self,
        prepare: Callable[[], tuple[RunSpec, LoadedModels]],
        emit: Callable[[RunEvent], None],
        *,
        out: Path | None = None,
        resume: bool = False,
        cache: ResultCache | None = None,
    ) -> None:
        self._prepare, self._emit = prepare, emit
        self._out, self._resume, self._cache = out, resume, cache
        self.control = RunControl()
        self.progress = Progress(0, 0, 0.0)
        self._maps: ResultMaps | None = None
        self._created_at, self._started_at = time.perf_counter(), 0.0
        self.phase = LOADING
        self.thread = threading.Thread(target=self._run, name="hrviewer-run", daemon=True)
        self.thread.start()

    def pause(self) -> None:
        """Pause after the current batch."""
        self.control.pause()

    def resume(self) -> None:
        """Resume after a pause."""
        self.control.resume()

    def stop(self) -> None:
        """End within one batch."""
        self.control.stop()

    @property
    def elapsed_seconds(self) -> float:
        """Duration of inference, without set-up and pauses, as `Run.cost` gives it."""
        if not self._started_at:
            return 0.0
        return time.perf_counter() - self._started_at - self.control.paused_seconds

    @property
    def loading_seconds(self) -> float:
        """Seconds since the worker began."""
        return time.perf_counter() - self._created_at

    def _run(self) -> None:
        try:
            with listening(self._on_phase):
                result = self._infer()
            self._emit(RunFinished(result))
        except HrviewerError as error:
            self._emit(RunFailed(str(error)))
        except Exception as error:
            log.exception("a run failed")
            self._emit(RunFailed(f"the run failed: {type(error).__name__}: {error}"))

    def _infer(self) -> Run | None:
        spec, models = self._prepare()
        models = models.for_image(spec.pyramid)
        network = models["main"]
        if self.control.stopped:
            return None
        native, _ = native_scale(network.card, spec.pyramid)
        card = answering_network(models, spec.strategy).card
        self._maps = empty_result_maps(spec.pyramid, network, card, spec.part[0])
        flops = expected_flops(spec, model_info(network), native)
        self._emit(RunStarted(spec, self._maps, card, flops))
        run = spec.run(
            models,
            out=self._out,
            resume=self._resume,
            cache=self._cache,
            on_event=self._on_update,
            control=self.control,
        )
        self._maps.load_objects(run)
        return run

    def _on_phase(self, phase: Phase) -> None:
        self.phase = phase.name

    def _on_update(self, update: Update) -> None:
        if isinstance(update, Phase):
            self._on_phase(update)
            if update.name == "inference":
                self._started_at = time.perf_counter()
        elif isinstance(update, Progress):
            self.progress = update
        elif self._maps is not None:
            self._maps.update(update)


def expected_flops(spec: RunSpec, main: ModelInfo, native: float) -> float:
    """Return a run's expected FLOPs: inference on the whole region once, or the budget."""
    within, mask = spec.part
    region = within & spec.pyramid.rect if within else spec.pyramid.rect
    whole = main.flops_per_pixel() * (mask or region).area / native**2
    card = main.card.input
    tile = getattr(spec.params, "tile", 0)
    if not tile:
        automatic = spec.strategy.id == "patches"
        tile = exhaustive_tile(main, region, native) if automatic else card.tile
    inner = max(1, card.tile - 2 * main.halo) if card.fixed else tile
    outer = card.tile if card.fixed else tile + 2 * main.halo
    limit = math.inf
    if spec.budget is not None and spec.budget.unit != "seconds":
        limit = spec.budget.flops(main, lambda: math.inf, whole)
    elif spec.budget is None and spec.strategy.default_budget is not None:
        limit = spec.strategy.default_budget * whole
    return max(1.0, min(limit, whole * (outer / inner) ** 2))
