"""Threads per network: all cores, or an equal share of them where several run at once.

The last bits of a convolution's output depend on the number of threads that share it. So the
number follows from how a network is run, never from the current load.
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
    "core_limit",
    "current_share",
    "limit_cores",
    "recommended_streams",
    "share_cores",
    "thread_limit",
]

MAX_STREAMS = 4
"""Maximum number of inputs that are run at once on a CPU."""

_thread_state = threading.local()
_process_limit: int | None = None
_T = TypeVar("_T")


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    if _process_limit is not None:
        return _process_limit
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def core_limit() -> int | None:
    """Return the number of cores that `limit_cores` set; None if it did not."""
    return _process_limit


def limit_cores(cores: int | None) -> None:
    """Let networks of this process use a number of cores, for one of several that run at once.

    The system distributes processes over cores; this only sets how many threads compute.
    """
    global _process_limit
    _process_limit = cores


def recommended_streams() -> int:
    """Return the recommended number of inputs to run at once on this machine's cores."""
    return min(MAX_STREAMS, available_cores())


@contextmanager
def share_cores(parts: int) -> Iterator[None]:
    """Give the networks run by this thread one of `parts` equal shares of the cores."""
    before = getattr(_thread_state, "parts", None)
    _thread_state.parts = parts
    try:
        yield
    finally:
        _thread_state.parts = before


def current_share() -> int | None:
    """Return the number of parts of which this thread's networks have one; None: not limited."""
    parts: int | None = getattr(_thread_state, "parts", None)
    return parts


def thread_limit() -> int | None:
    """Return the number of threads for networks run by this thread; None if it is not limited."""
    parts = current_share()
    return None if parts is None else max(1, available_cores() // parts)


class PerThreadCount(Generic[_T]):
    """Objects built for a fixed number of threads: one for each number that is requested.

    Parameters
    ----------
    make : callable
        Builds one for a number of threads.
    thread_count : int, optional
        A fixed number for all callers, regardless of their share of the cores.
    """

    def __init__(self, make: Callable[[int], _T], thread_count: int | None = None) -> None:
        self._make, self._thread_count = make, thread_count
        self._instances: dict[int, _T] = {}
        self._lock = threading.Lock()

    def get(self) -> _T:
        """Return the object for the calling thread's share of the cores."""
        count = self._thread_count or thread_limit() or available_cores()
        with self._lock:
            if count not in self._instances:
                self._instances[count] = self._make(count)
            return self._instances[count]
