"""Carrying a plan out: budget, replay, recording, stopping."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from hrviewer.engine.patch_result import InferenceResult
from hrviewer.engine.pipeline import InferencePipeline, request_digest
from hrviewer.engine.run_control import RunStopped
from hrviewer.phases import Phase
from hrviewer.strategies import (
    Estimate,
    FeatureRequest,
    PatchRequest,
    Plan,
    Publish,
    Request,
    Response,
    WarpRequest,
)

__all__ = ["Callback", "Progress", "Sink", "Update", "run_plan"]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run has come.

    Parameters
    ----------
    done, requested : int
        Looks finished, and asked for so far.
    flops : float
        Nominal FLOPs so far.
    """

    done: int
    requested: int
    flops: float


T = TypeVar("T")

Update = PatchRequest | WarpRequest | FeatureRequest | InferenceResult | Publish | Progress | Phase
Callback = Callable[[Update], None]


class Sink(Protocol):
    """Where a run is written."""

    def replay(self, number: int, name: str) -> Sequence[InferenceResult] | None:
        """Return what request `number` gave in an earlier session, None if it was not finished.

        `name` is the request's digest; UserError if that session asked something else.
        """
        ...

    def commit(
        self,
        number: int,
        name: str,
        request: PatchRequest | WarpRequest | FeatureRequest,
        results: Sequence[InferenceResult],
    ) -> None:
        """Keep one finished request."""
        ...

    def restore(
        self,
        request: PatchRequest | WarpRequest | FeatureRequest,
        results: Sequence[InferenceResult],
    ) -> None:
        """Record a replayed request."""
        ...

    def record_partial(
        self,
        request: PatchRequest | WarpRequest | FeatureRequest,
        results: Sequence[InferenceResult],
    ) -> None:
        """Record what came of a request that was stopped; it will be asked again."""
        ...

    def publish(self, publication: Publish) -> None:
        """Record what the strategy published."""
        ...


def run_plan(
    plan: Plan,
    pipeline: InferencePipeline,
    sink: Sink,
    *,
    budget: float = float("inf"),
    on_event: Callback | None = None,
) -> Estimate | None:
    """Carry a plan out.

    Parameters
    ----------
    plan : generator
        The strategy's policy.
    pipeline : Looker
        Does the looking.
    sink : Sink
        Where it is written; finished requests are replayed from it.
    budget : float
        FLOPs for everything; a look that passes it is answered as a prefix, with ``stop``.
    on_event : callable, optional
        Told of every request, then of its looks as they come, of what is shown, and of progress;
        on this thread.

    Returns
    -------
    Answer or None
        None if the person stopped the run.
    """
    tell = on_event or (lambda update: None)
    spent, number, done, asked, stop = 0.0, 0, 0, 0, False
    result: Response | None = None
    request: Request | None = None
    found: dict[int, InferenceResult] = {}
    try:
        while True:
            try:
                request = next(plan) if result is None else plan.send(result)
            except StopIteration as end:
                answer: Estimate = end.value
                return answer
            if isinstance(request, Publish):
                sink.publish(request)
                tell(request)
                result = Response((), spent, budget - spent, stop)
                continue
            if not pipeline.control.wait():
                raise RunStopped
            costs = pipeline.flops(request)
            paid = 0 if stop else affordable_prefix(request, costs, budget - spent)
            if paid < len(costs):
                stop = True
                if not isinstance(request, PatchRequest) or paid == 0:
                    result = Response((), spent, budget - spent, stop)
                    continue
                request = subset(request, range(paid))
            asked += paid
            name = request_digest(request)
            tell(request)
            kept = sink.replay(number, name)
            if kept is not None:
                for look in kept:
                    pipeline.mark_as_read(look)
                    tell(look)
                sink.restore(request, kept)
                seen = list(kept)
                done += len(seen)
            else:
                reached = spent
                for index, look in pipeline.run(request):
                    found[index] = look
                    tell(look)
                    done += 1
                    reached += costs[index]
                    tell(Progress(done, asked, reached))
                seen = [found[i] for i in range(paid)]
                found = {}
                sink.commit(number, name, request, seen)
            number += 1
            spent += sum(costs[:paid])
            tell(Progress(done, asked, spent))
            result = Response(tuple(seen), spent, budget - spent, stop)
    except RunStopped:
        if found and request is not None and not isinstance(request, Publish):
            which = sorted(found)
            part = subset(request, which) if isinstance(request, PatchRequest) else request
            sink.record_partial(part, [found[i] for i in which])
        return None
    finally:
        plan.close()


def affordable_prefix(
    request: PatchRequest | WarpRequest | FeatureRequest, costs: Sequence[float], budget: float
) -> int:
    """Return how many of a request's parts, from the first, `budget` FLOPs pay for."""
    group = request.group if isinstance(request, PatchRequest) else None
    paid, total = 0, 0.0
    for i, cost in enumerate(costs):
        total += cost
        # Rounding must not cut off the last patch of an exact budget.
        if total > budget * (1 + 1e-9):
            break
        # Tokens of one input are paid together.
        if group is None or i + 1 == len(costs) or group[i + 1] != group[i]:
            paid = i + 1
    return paid


def subset(request: PatchRequest, indices: Sequence[int]) -> PatchRequest:
    """Return some of a look's patches, by their indices."""

    def chosen(items: tuple[T, ...] | None) -> tuple[T, ...] | None:
        return tuple(items[i] for i in indices) if items else None

    return replace(
        request,
        patches=tuple(request.patches[i] for i in indices),
        group=chosen(request.group),
        scores=chosen(request.scores),
    )
