"""Carrying a plan out: budget, replay, recording, stopping."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from hrviewer.engine.patch_result import Seen
from hrviewer.engine.pipeline import Looker, digest
from hrviewer.engine.run_control import Stopped
from hrviewer.strategies import Answer, Look, Plan, Request, Result, Show, Think, Warp

__all__ = ["Progress", "Sink", "Update", "Watch", "drive"]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run has come.

    Parameters
    ----------
    done, asked : int
        Looks finished, and asked for so far.
    flops : float
        Nominal FLOPs so far.
    """

    done: int
    asked: int
    flops: float


T = TypeVar("T")

Update = Look | Warp | Think | Seen | Show | Progress
Watch = Callable[[Update], None]


class Sink(Protocol):
    """Where a run is written."""

    def replay(self, number: int, name: str) -> Sequence[Seen] | None:
        """Return what request `number` gave in an earlier session, None if it was not finished.

        `name` is the request's digest; UserError if that session asked something else.
        """
        ...

    def commit(
        self, number: int, name: str, request: Look | Warp | Think, seen: Sequence[Seen]
    ) -> None:
        """Keep one finished request."""
        ...

    def restore(self, request: Look | Warp | Think, seen: Sequence[Seen]) -> None:
        """Record a replayed request."""
        ...

    def leave(self, request: Look | Warp | Think, seen: Sequence[Seen]) -> None:
        """Record what came of a request that was stopped; it will be asked again."""
        ...

    def show(self, show: Show) -> None:
        """Record what the strategy published."""
        ...


def drive(
    plan: Plan,
    looker: Looker,
    sink: Sink,
    *,
    budget: float = float("inf"),
    watch: Watch | None = None,
) -> Answer | None:
    """Carry a plan out.

    Parameters
    ----------
    plan : generator
        The strategy's policy.
    looker : Looker
        Does the looking.
    sink : Sink
        Where it is written; finished requests are replayed from it.
    budget : float
        FLOPs for everything; a look that passes it is answered as a prefix, with ``stop``.
    watch : callable, optional
        Told of every request, then of its looks as they come, of what is shown, and of progress;
        on this thread.

    Returns
    -------
    Answer or None
        None if the person stopped the run.
    """
    tell = watch or (lambda update: None)
    spent, number, done, asked, stop = 0.0, 0, 0, 0, False
    result: Result | None = None
    request: Request | None = None
    found: dict[int, Seen] = {}
    try:
        while True:
            try:
                request = next(plan) if result is None else plan.send(result)
            except StopIteration as end:
                answer: Answer = end.value
                return answer
            if isinstance(request, Show):
                sink.show(request)
                tell(request)
                result = Result((), spent, budget - spent, stop)
                continue
            if not looker.control.wait():
                raise Stopped
            costs = looker.flops(request)
            paid = 0 if stop else affordable(request, costs, budget - spent)
            if paid < len(costs):
                stop = True
                if not isinstance(request, Look) or paid == 0:
                    result = Result((), spent, budget - spent, stop)
                    continue
                request = some(request, range(paid))
            asked += paid
            name = digest(request)
            tell(request)
            kept = sink.replay(number, name)
            if kept is not None:
                for look in kept:
                    looker.mark_read(look)
                    tell(look)
                sink.restore(request, kept)
                seen = list(kept)
                done += len(seen)
            else:
                reached = spent
                for index, look in looker.look(request):
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
            result = Result(tuple(seen), spent, budget - spent, stop)
    except Stopped:
        if found and request is not None and not isinstance(request, Show):
            which = sorted(found)
            part = some(request, which) if isinstance(request, Look) else request
            sink.leave(part, [found[i] for i in which])
        return None
    finally:
        plan.close()


def affordable(request: Look | Warp | Think, costs: Sequence[float], left: float) -> int:
    """Return how many of a request's parts, from the first, `left` FLOPs pay for."""
    group = request.group if isinstance(request, Look) else None
    paid, total = 0, 0.0
    for i, cost in enumerate(costs):
        total += cost
        # Rounding must not cut off the last patch of an exact budget.
        if total > left * (1 + 1e-9):
            break
        # Tokens of one input are paid together.
        if group is None or i + 1 == len(costs) or group[i + 1] != group[i]:
            paid = i + 1
    return paid


def some(request: Look, which: Sequence[int]) -> Look:
    """Return some of a look's patches, by their indices."""

    def chosen(items: tuple[T, ...] | None) -> tuple[T, ...] | None:
        return tuple(items[i] for i in which) if items else None

    return replace(
        request,
        patches=tuple(request.patches[i] for i in which),
        group=chosen(request.group),
        scores=chosen(request.scores),
    )
