"""Reusable buffers for network inputs.

Fresh memory is expensive: touching a large array's pages for the first time can take longer than
filling them.
"""

from __future__ import annotations

import math
import threading
from typing import cast

import numpy as np
from numpy.typing import NDArray

__all__ = ["BufferPool"]

MAX_BYTES = 64 << 20
"""Default bound of the free buffers."""


class BufferPool:
    """A pool of float32 buffers in which inputs are prepared; thread-safe.

    Parameters
    ----------
    max_bytes : int
        Bound of the free buffers, in bytes; those released beyond it are dropped.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._free: list[NDArray[np.float32]] = []
        self._lock = threading.Lock()

    def acquire(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return a contiguous array with arbitrary content."""
        size = math.prod(shape)
        with self._lock:
            fits = [i for i, flat in enumerate(self._free) if flat.size >= size]
            if fits:
                flat = self._free.pop(min(fits, key=lambda i: self._free[i].size))
            else:
                if self._free:
                    self._free.pop()  # replaced by a larger one, so that buffers do not add up
                flat = np.empty(size, np.float32)
        return flat[:size].reshape(shape)

    def release(self, array: NDArray[np.float32]) -> None:
        """Return an array from `acquire` to the pool when it is no longer used."""
        flat = cast(NDArray[np.float32], array.base)
        with self._lock:
            if flat.nbytes + sum(each.nbytes for each in self._free) <= self._max_bytes:
                self._free.append(flat)
