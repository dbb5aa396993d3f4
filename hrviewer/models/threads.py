"""How many threads a network may take: all cores, or its part where several are run at once.

What a convolution says depends, in its last bits, on how many threads share it. So the number
follows from how a network is run, never from what else happens to run at the time.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

__all__ = [
    "PerThreadCount",
    "available_cores",
    "recommended_streams",
    "share_cores",
    "thread_limit",
]

MAX_STREAMS = 4
"""The most inputs that are run at once on a CPU."""

_thread_state = threading.local()
_T = TypeVar("_T")


def available_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def recommended_streams() -> int:
    """Return how many inputs are best run at once on this machine's cores."""
    return min(MAX_STREAMS, available_cores())


@contextmanager
def share_cores(parts: int) -> Iterator[None]:
    """Have what this thread runs take one of `parts` equal parts of the cores."""
    before = getattr(_thread_state, "parts", None)
    _thread_state.parts = parts
    try:
        yield
    finally:
        _thread_state.parts = before


def thread_limit() -> int | None:
    """Return how many threads what this thread runs may take; None where nobody has said."""
    parts: int | None = getattr(_thread_state, "parts", None)
    return None if parts is None else max(1, available_cores() // parts)


class PerThreadCount(Generic[_T]):
    """What is made for a fixed number of threads: one for each number that is asked for.

    Parameters
    ----------
    make : callable
        Makes one, from the number of threads.
    thread_count : int, optional
        The number that all callers take, whatever their part of the cores.
    """

    def __init__(self, make: Callable[[int], _T], thread_count: int | None = None) -> None:
        self._make, self._thread_count = make, thread_count
        self._instances: dict[int, _T] = {}
        self._lock = threading.Lock()

    def get(self) -> _T:
        """Return the one for the calling thread's part of the cores."""
        count = self._thread_count or thread_limit() or available_cores()
        with self._lock:
            if count not in self._instances:
                self._instances[count] = self._make(count)
            return self._instances[count]
