"""How many threads a network may take: all cores, or its part where several are run at once.

What a convolution says depends, in its last bits, on how many threads share it. So the number
follows from how a network is run, never from what else happens to run at the time.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["cores", "sharing", "threads"]

_own = threading.local()


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def sharing(parts: int) -> Iterator[None]:
    """Have what this thread runs take one of `parts` equal parts of the cores."""
    before = getattr(_own, "parts", None)
    _own.parts = parts
    try:
        yield
    finally:
        _own.parts = before


def threads() -> int | None:
    """Return how many threads what this thread runs may take; None where nobody has said."""
    parts: int | None = getattr(_own, "parts", None)
    return None if parts is None else max(1, cores() // parts)
