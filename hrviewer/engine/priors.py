"""What a policy is told beforehand: maps over the whole image, by name."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.errors import UserError
from hrviewer.strategies import Strategy

__all__ = ["Hints", "checked", "fingerprints"]

Hints = Mapping[str, NDArray[np.floating]]


def checked(strategy: Strategy, hints: Mapping[str, Any] | None) -> dict[str, NDArray[np.floating]]:
    """Return hints that a strategy takes.

    Raises
    ------
    UserError
        If it takes none of that name, or one is not a map of numbers.
    """
    found: dict[str, NDArray[np.floating]] = {}
    for name, value in (hints or {}).items():
        if name not in strategy.hints:
            known = ", ".join(strategy.hints) or "none"
            raise UserError(f"{strategy.id} takes no hint {name!r}; it takes: {known}")
        array = np.asarray(value)
        if array.ndim != 2 or not array.size or array.dtype.kind not in "buif":
            raise UserError(
                f"the hint {name!r} is a map over the whole image, (rows, columns), not "
                f"{array.dtype} of shape {array.shape}"
            )
        found[name] = array.astype(np.float32)
    return found


def fingerprints(hints: Hints) -> dict[str, str]:
    """Return a hash of each hint, by its name."""
    return {
        name: hashlib.blake2b(
            repr(array.shape).encode() + np.ascontiguousarray(array).tobytes(), digest_size=16
        ).hexdigest()
        for name, array in sorted(hints.items())
    }
