"""Running a plan: budget, replay, recording, stopping."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Container, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar, cast

from hrviewer.engine.inference_result import InferenceResult
from hrviewer.engine.pipeline import InferencePipeline, InferenceRequest, request_digest
from hrviewer.engine.run_clock import RunClock
from hrviewer.engine.run_control import RunStopped
from hrviewer.phases import Phase
from hrviewer.strategies import Estimate, PatchRequest, Plan, Publish, Response, WarpRequest

__all__ = ["Callback", "FinishedRequest", "Progress", "Sink", "Update", "run_plan"]

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


@dataclass(frozen=True, slots=True)
class FinishedRequest:
    """The results of a request.

    Parameters
    ----------
    results : tuple of InferenceResult
        In the order of the request; fewer than it has parts if the clock ended the run in it.
    seconds : float
        Wall time of the run until its end, without pauses.
    """

    results: tuple[InferenceResult, ...]
    seconds: float = 0.0


class Sink(Protocol):
    """Destination of a run: a folder, or memory."""

    def replay(self, number: int, name: str) -> FinishedRequest | None:
        """Return what an earlier session stored of request `number`, None if it was unfinished.

        `name` is the request's digest; a `HrviewerError` is raised if that session made another
        request, unless results that failed there were replaced by new ones.
        """
        ...

    def commit(
        self,
        number: int,
        name: str,
        request: InferenceRequest,
        finished: FinishedRequest,
        replayed: Container[int] = (),
    ) -> None:
        """Store one finished request; the results with indices in `replayed` are not new."""
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
    clock: RunClock | None = None,
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
        Destination of the run; finished requests are replayed from it, and patches of them that
        failed are run again.
    budget : float
        FLOPs in total; of a request that exceeds it only a prefix is run, and ``stop`` is set.
    clock : RunClock, optional
        If it has a limit, that ends the run in the same way, instead of the FLOPs: those are what
        the limit is expected to pay for. Where it ended the run is stored, so that replaying does
        not depend on the clock.
    on_event : callable, optional
        Called on this thread with every request, its results as they arrive, what is published,
        and the progress.

    Returns
    -------
    Estimate or None
        None if the user stopped the run.
    """
    runner = _PlanRunner(pipeline, sink, budget, clock or RunClock(), on_event)
    try:
        return runner.run(plan)
    except RunStopped:
        log.info("stopped in request %d, after %d patches", runner.number, runner.done)
        runner.record_partial()
        return None
    finally:
        plan.close()
        pipeline.close()


class _PlanRunner:
    """Progress of a plan: what it spent, and the request in flight."""

    def __init__(
        self,
        pipeline: InferencePipeline,
        sink: Sink,
        budget: float,
        clock: RunClock,
        on_event: Callback | None,
    ) -> None:
        self._pipeline, self._sink, self._budget, self._clock = pipeline, sink, budget, clock
        self._emit: Callback = on_event or (lambda update: None)
        self._timed = math.isfinite(clock.limit)
        self.number = self.done = self._requested = 0
        self._spent, self._seconds, self._stop = 0.0, 0.0, False
        self._in_flight: InferenceRequest | None = None
        self._arrived: dict[int, InferenceResult] = {}

    def run(self, plan: Plan) -> Estimate:
        """Run the plan to its end."""
        response: Response | None = None
        self._clock.start()
        while True:
            try:
                request = next(plan) if response is None else plan.send(response)
            except StopIteration as end:
                estimate: Estimate = end.value
                return estimate
            results: tuple[InferenceResult, ...] = ()
            if isinstance(request, Publish):
                self._sink.publish(request)
                self._emit(request)
            elif not self._pipeline.control.wait():
                raise RunStopped
            else:
                results = self._fulfil(request)
            response = Response(results, self._spent, self._remaining, self._stop)

    @property
    def _remaining(self) -> float:
        """FLOPs left; of a limit of seconds, those that the time left is expected to pay for."""
        if not self._timed or math.isinf(self._budget):
            return self._budget - self._spent
        return self._budget * max(0.0, 1 - self._seconds / self._clock.limit)

    def record_partial(self) -> None:
        """Record the results of the request in flight."""
        if self._arrived and self._in_flight is not None:
            indices = sorted(self._arrived)
            request = subset(self._in_flight, indices)
            self._sink.record_partial(request, [self._arrived[i] for i in indices])

    def _fulfil(self, request: InferenceRequest) -> tuple[InferenceResult, ...]:
        """Return the results of a request, or of the prefix that the budget pays for."""
        costs = self._pipeline.flops(request)
        limit = math.inf if self._timed else self._budget - self._spent
        count = 0 if self._stop else affordable_prefix(request, costs, limit)
        if count < len(costs):
            if not self._stop:
                log.info("the budget of %.3g FLOP ends in request %d", self._budget, self.number)
            self._stop = True
            if not isinstance(request, PatchRequest) or count == 0:
                return ()
            request = subset(request, range(count))
        self._requested += count
        name = request_digest(request)
        log.debug("request %d: %s %s, %d parts", self.number, type(request).__name__, name, count)
        self._emit(request)
        replayed = self._sink.replay(self.number, name)
        if replayed is None:
            results = self._run(request, costs[:count])
        else:
            results = self._replay(request, name, replayed)
        if len(results) < count:
            log.info("%.3g seconds end the run in request %d", self._clock.limit, self.number)
            self._stop = True
            request = subset(request, range(len(results)))
            self._requested -= count - len(results)
        if replayed is None:
            self._arrived = {}
            self._seconds = seconds = self._clock.elapsed
            self._sink.commit(self.number, name, request, FinishedRequest(results, seconds))
            # The last request's results will take as long.
            self._clock.reserve = max(self._clock.reserve, self._clock.elapsed - seconds)
        self.number += 1
        self._spent += sum(costs[: len(results)])
        self._emit(Progress(self.done, self._requested, self._spent))
        return results

    def _run(
        self, request: InferenceRequest, costs: Sequence[float]
    ) -> tuple[InferenceResult, ...]:
        """Run inference until the clock ends it; return the results, a prefix of the request's."""
        self._in_flight, self._arrived, flops = request, {}, self._spent
        if self._clock.expired:
            return ()
        times: list[float] = []
        following = self._affordable_following(request, sum(costs))
        running = cast(
            "Generator[tuple[int, InferenceResult]]", self._pipeline.run(request, following)
        )
        with closing(running) as arriving:
            for index, result in arriving:
                self._arrived[index] = result
                self._emit(result)
                self.done += 1
                flops += costs[index]
                self._emit(Progress(self.done, self._requested, flops))
                times.append(self._clock.elapsed)
                # Where half the time to the next result is left, it would end the run later than
                # the limit by as much as this one ends it earlier.
                between = (times[-1] - times[0]) / max(len(times) - 1, 1)
                if self._timed and self._clock.expires_at(times[-1] + between / 2):
                    break
        count = next(i for i in range(len(costs) + 1) if i not in self._arrived)
        groups = request.group if isinstance(request, PatchRequest) else None
        while groups is not None and 0 < count < len(costs) and groups[count] == groups[count - 1]:
            count -= 1  # tokens of one input
        self.done -= len(self._arrived) - count
        return tuple(self._arrived[i] for i in range(count))

    def _affordable_following(self, request: InferenceRequest, cost: float) -> WarpRequest | None:
        """Return the warp that comes after a request, if it is certain that it is to be run."""
        following = request.following if isinstance(request, WarpRequest) else None
        if following is None or self._timed:
            return None
        left = self._budget - self._spent - cost
        costs = self._pipeline.flops(following)
        return following if affordable_prefix(following, costs, left) else None

    def _replay(
        self, request: InferenceRequest, name: str, finished: FinishedRequest
    ) -> tuple[InferenceResult, ...]:
        """Return the results of an earlier session; patches that failed there are run again."""
        results = list(finished.results)
        self._clock.start(finished.seconds)
        self._seconds = finished.seconds
        again: list[int] = []
        if isinstance(request, PatchRequest):
            if request.group is None:
                again = [i for i, result in enumerate(results) if result.status == "failed"]
            request = subset(request, range(len(results)))
        for i, result in enumerate(results):
            if i not in again:
                self._pipeline.mark_as_read(result)
                self._emit(result)
        self.done += len(results)
        if not again:
            self._sink.restore(request, results)
            return finished.results
        log.info("%d patches of request %d, which failed, are run again", len(again), self.number)
        for index, result in self._pipeline.run(subset(request, again)):
            results[again[index]] = result
            self._emit(result)
        done = FinishedRequest(tuple(results), self._clock.elapsed)
        kept = set(range(len(results))).difference(again)
        self._sink.commit(self.number, name, request, done, kept)
        return done.results


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


def subset(request: InferenceRequest, indices: Sequence[int]) -> InferenceRequest:
    """Return a request for some of a request's patches; one without patches is not divided."""
    if not isinstance(request, PatchRequest):
        return request

    def select(items: tuple[T, ...] | None) -> tuple[T, ...] | None:
        return tuple(items[i] for i in indices) if items else None

    return replace(
        request,
        patches=tuple(request.patches[i] for i in indices),
        group=select(request.group),
        scores=select(request.scores),
    )
