"""Prior maps: maps over the whole image that a strategy starts from, by name."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.errors import ParameterError
from hrviewer.strategies import Strategy

__all__ = ["Priors", "prior_fingerprints", "validate_priors"]

Priors = Mapping[str, NDArray[np.floating]]


def validate_priors(
    strategy: Strategy, priors: Mapping[str, Any] | None
) -> dict[str, NDArray[np.floating]]:
    """Return prior maps as float32, after checking that the strategy takes them.

    Raises
    ------
    ParameterError
        If the strategy takes no prior map of that name, or one is not a 2-D map of numbers.
    """
    found: dict[str, NDArray[np.floating]] = {}
    for name, value in (priors or {}).items():
        if name not in strategy.priors:
            known = ", ".join(strategy.priors) or "none"
            raise ParameterError(f"{strategy.id} takes no prior map {name!r}; it takes: {known}")
        array = np.asarray(value)
        if array.ndim != 2 or not array.size or array.dtype.kind not in "buif":
            raise ParameterError(
                f"the prior map {name!r} must be a map over the whole image, (rows, columns), not "
                f"{array.dtype} of shape {array.shape}"
            )
        found[name] = array.astype(np.float32)
    return found


def prior_fingerprints(priors: Priors) -> dict[str, str]:
    """Return a hash of each prior map, by its name."""
    return {
        name: hashlib.blake2b(
            repr(array.shape).encode() + np.ascontiguousarray(array).tobytes(), digest_size=16
        ).hexdigest()
        for name, array in sorted(priors.items())
    }
