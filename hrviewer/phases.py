"""Phases of a run, announced to displays of progress: loading, measuring, inference."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

__all__ = ["LOADING", "MEASURING", "Phase", "announce", "listening"]

LOADING = "loading"
MEASURING = "measuring back ends, once"


@dataclass(frozen=True, slots=True)
class Phase:
    """A phase that begins.

    Parameters
    ----------
    name : str
        ``loading``, ``measuring back ends, once`` or ``inference``.
    run : str
        The run in a batch of runs; empty for a single run.
    """

    name: str
    run: str = ""


_listeners: list[Callable[[Phase], None]] = []
_lock = threading.Lock()


def announce(name: str) -> None:
    """Announce a phase from code that knows no run, on any thread."""
    with _lock:
        listeners = list(_listeners)
    for listener in listeners:
        listener(Phase(name))


@contextmanager
def listening(listener: Callable[[Phase], None]) -> Iterator[None]:
    """Call `listener` with the phases that are announced meanwhile, on their threads."""
    with _lock:
        _listeners.append(listener)
    try:
        yield
    finally:
        with _lock:
            _listeners.remove(listener)
