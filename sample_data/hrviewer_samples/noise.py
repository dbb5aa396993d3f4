"""Randomness that depends on where one is, and on nothing else.

Numbers are hashes of a seed and lattice coordinates, so that any part of an image can be made
without the rest. (Numba keeps compiled code by the file of the outermost function: after a
change here, touch the files that use it or remove their ``__pycache__``.)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numba import njit

__all__ = ["between", "compiled", "compiled_as", "damped", "mix", "uniform", "value_noise"]

F = TypeVar("F", bound=Callable[..., Any])

compiled: Callable[[F], F] = njit(cache=True, nogil=True, error_model="numpy")
"""Compiles a function when it is first called; division by zero is not checked."""


def compiled_as(signature: str) -> Callable[[F], F]:
    """Compile a function for these types only.

    Numba otherwise compiles it again for every constant that it is called with.
    """
    made: Callable[[F], F] = njit(signature, cache=True, nogil=True, error_model="numpy")
    return made


@compiled_as("uint64(uint64, int64, int64, int64)")
def mix(seed: Any, i: Any, j: Any, k: Any) -> Any:
    """Hash a seed, a cell ``(i, j)`` and a purpose `k` to 64 bits (the finaliser of splitmix64)."""
    h = (
        np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15)
        ^ np.uint64(np.int64(i)) * np.uint64(0xC2B2AE3D27D4EB4F)
        ^ np.uint64(np.int64(j)) * np.uint64(0x165667B19E3779F9)
        ^ np.uint64(k) * np.uint64(0xD6E8FEB86659FD93)
    )
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))


@compiled_as("float64(uint64, int64, int64, int64)")
def uniform(seed: Any, i: Any, j: Any, k: Any) -> Any:
    """Return a number in [0, 1) for a cell and a purpose."""
    return (mix(seed, i, j, k) >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@compiled_as("float64(uint64, int64, float64, float64)")
def between(h: Any, k: Any, low: Any, high: Any) -> Any:
    """Return the `k`-th number in [low, high) that belongs to an object with hash `h`."""
    return low + (high - low) * uniform(h, k, 0, 977)


@compiled_as("float64(uint64, float64, float64, int64)")
def value_noise(seed: Any, y: Any, x: Any, k: Any) -> Any:
    """Return smooth noise in [-1, 1] with features of about one unit, mean 0."""
    i, j = math.floor(y), math.floor(x)
    fy, fx = y - i, x - j
    fy, fx = fy * fy * (3 - 2 * fy), fx * fx * (3 - 2 * fx)
    i, j = int(i), int(j)
    a, b = uniform(seed, i, j, k), uniform(seed, i, j + 1, k)
    c, d = uniform(seed, i + 1, j, k), uniform(seed, i + 1, j + 1, k)
    top, low = a + (b - a) * fx, c + (d - c) * fx
    return 2.0 * (top + (low - top) * fy) - 1.0


@compiled
def damped(size: Any, pixel: Any) -> Any:
    """Return how much of a pattern with features of `size` survives a box filter of `pixel`."""
    t = pixel / size
    if t < 0.25:
        return 1.0
    return max(0.0, 1.0 - (t - 0.25) / 1.25)
