"""Arrays that are written into again and again.

Memory that the system has just handed out is dear: touching a large input's pages for the first
time can take longer than filling them.
"""

from __future__ import annotations

import math
import threading
from typing import cast

import numpy as np
from numpy.typing import NDArray

__all__ = ["BufferPool"]

MAX_BYTES = 64 << 20
"""The most bytes that lie ready."""


class BufferPool:
    """What inputs are prepared in.

    Parameters
    ----------
    max_bytes : int
        Bytes that lie ready at most; what is given back beyond that is let go.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._free: list[NDArray[np.float32]] = []
        self._lock = threading.Lock()

    def acquire(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return a contiguous array that holds anything."""
        size = math.prod(shape)
        with self._lock:
            fits = [i for i, flat in enumerate(self._free) if flat.size >= size]
            if fits:
                flat = self._free.pop(min(fits, key=lambda i: self._free[i].size))
            else:
                flat = np.empty(size, np.float32)
        return flat[:size].reshape(shape)

    def release(self, array: NDArray[np.float32]) -> None:
        """Take back what `take` returned, when nobody reads it any more."""
        flat = cast(NDArray[np.float32], array.base)
        with self._lock:
            if flat.nbytes + sum(each.nbytes for each in self._free) <= self._max_bytes:
                self._free.append(flat)
