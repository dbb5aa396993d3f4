"""Running a plan: budget, replay, recording, stopping."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from hrviewer.engine.inference_result import InferenceResult
from hrviewer.engine.pipeline import InferencePipeline, InferenceRequest, request_digest
from hrviewer.engine.run_control import RunStopped
from hrviewer.phases import Phase
from hrviewer.strategies import Estimate, PatchRequest, Plan, Publish, Request, Response

__all__ = ["Callback", "Progress", "Sink", "Update", "run_plan"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a run.

    Parameters
    ----------
    done, requested : int
        Patches finished, and requested so far.
    flops : float
        Nominal FLOPs so far.
    """

    done: int
    requested: int
    flops: float


T = TypeVar("T")

Update = InferenceRequest | InferenceResult | Publish | Progress | Phase
Callback = Callable[[Update], None]


class Sink(Protocol):
    """Destination of a run: a folder, or memory."""

    def replay(self, number: int, name: str) -> Sequence[InferenceResult] | None:
        """Return the results of request `number` from an earlier session, None if unfinished.

        `name` is the request's digest; a `HrviewerError` is raised if that session made another
        request.
        """
        ...

    def commit(
        self, number: int, name: str, request: InferenceRequest, results: Sequence[InferenceResult]
    ) -> None:
        """Store one finished request."""
        ...

    def restore(self, request: InferenceRequest, results: Sequence[InferenceResult]) -> None:
        """Record a replayed request."""
        ...

    def record_partial(self, request: InferenceRequest, results: Sequence[InferenceResult]) -> None:
        """Record the results of a request that was stopped; a resumed run makes it again."""
        ...

    def publish(self, publication: Publish) -> None:
        """Record a saliency map or an estimate that the strategy published."""
        ...


def run_plan(
    plan: Plan,
    pipeline: InferencePipeline,
    sink: Sink,
    *,
    budget: float = float("inf"),
    on_event: Callback | None = None,
) -> Estimate | None:
    """Run a plan to its end, or until it is stopped.

    Parameters
    ----------
    plan : generator
        The strategy's policy.
    pipeline : InferencePipeline
        Runs inference.
    sink : Sink
        Destination of the run; finished requests are replayed from it.
    budget : float
        FLOPs in total; of a request that exceeds it only a prefix is run, and ``stop`` is set.
    on_event : callable, optional
        Called on this thread with every request, its results as they arrive, what is published,
        and the progress.

    Returns
    -------
    Estimate or None
        None if the user stopped the run.
    """
    emit = on_event or (lambda update: None)
    spent, number, done, requested, stop = 0.0, 0, 0, 0, False
    response: Response | None = None
    request: Request | None = None
    arrived: dict[int, InferenceResult] = {}
    try:
        while True:
            try:
                request = next(plan) if response is None else plan.send(response)
            except StopIteration as end:
                estimate: Estimate = end.value
                return estimate
            if isinstance(request, Publish):
                sink.publish(request)
                emit(request)
                response = Response((), spent, budget - spent, stop)
                continue
            if not pipeline.control.wait():
                raise RunStopped
            costs = pipeline.flops(request)
            count = 0 if stop else affordable_prefix(request, costs, budget - spent)
            if count < len(costs):
                log.info("the budget of %.3g FLOP ends the run after request %d", budget, number)
                stop = True
                if not isinstance(request, PatchRequest) or count == 0:
                    response = Response((), spent, budget - spent, stop)
                    continue
                request = subset(request, range(count))
            requested += count
            name = request_digest(request)
            log.debug("request %d: %s %s, %d parts", number, type(request).__name__, name, count)
            emit(request)
            replayed = sink.replay(number, name)
            if replayed is not None:
                for result in replayed:
                    pipeline.mark_as_read(result)
                    emit(result)
                sink.restore(request, replayed)
                results = list(replayed)
                done += len(results)
            else:
                flops = spent
                for index, result in pipeline.run(request):
                    arrived[index] = result
                    emit(result)
                    done += 1
                    flops += costs[index]
                    emit(Progress(done, requested, flops))
                results = [arrived[i] for i in range(count)]
                arrived = {}
                sink.commit(number, name, request, results)
            number += 1
            spent += sum(costs[:count])
            emit(Progress(done, requested, spent))
            response = Response(tuple(results), spent, budget - spent, stop)
    except RunStopped:
        log.info("stopped in request %d, after %d patches", number, done)
        if arrived and request is not None and not isinstance(request, Publish):
            indices = sorted(arrived)
            part = subset(request, indices) if isinstance(request, PatchRequest) else request
            sink.record_partial(part, [arrived[i] for i in indices])
        return None
    finally:
        plan.close()


def affordable_prefix(request: InferenceRequest, costs: Sequence[float], budget: float) -> int:
    """Return how many of a request's parts, from the first, fit into `budget` FLOPs."""
    group = request.group if isinstance(request, PatchRequest) else None
    count, total = 0, 0.0
    for i, cost in enumerate(costs):
        total += cost
        # Rounding must not cut off the last patch of an exact budget.
        if total > budget * (1 + 1e-9):
            break
        # Tokens of one input are run together.
        if group is None or i + 1 == len(costs) or group[i + 1] != group[i]:
            count = i + 1
    return count


def subset(request: PatchRequest, indices: Sequence[int]) -> PatchRequest:
    """Return a request for some of a request's patches."""

    def select(items: tuple[T, ...] | None) -> tuple[T, ...] | None:
        return tuple(items[i] for i in indices) if items else None

    return replace(
        request,
        patches=tuple(request.patches[i] for i in indices),
        group=select(request.group),
        scores=select(request.scores),
    )
