"""What one look gave, and how it is written down.

A `Seen` is the unit of everything that is kept: the cache stores it under the hash of what was
asked, a run's journal stores a request's worth of them, overlays are painted from it.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hrviewer.engine.canvas import Box
from hrviewer.engine.cost import Cost
from hrviewer.geometry import Patch, Rect

__all__ = ["InferenceResult", "deserialize", "serialize"]


@dataclass(frozen=True, slots=True, eq=False)
class InferenceResult:
    """What one look gave. It serves policies as their `Handle`.

    Parameters
    ----------
    patch : Patch
        Where was looked.
    role : str
        With which network.
    value : ndarray of float64, shape (k,)
        The core's answer; NaN if the look failed.
    map : ndarray of float32, shape (k, rows, columns)
        The output over `box`; one NaN cell if the look failed. Codes are in float16.
    box : tuple of float
        What `map` covers, ``(y, x, h, w)`` in level-0 pixels; at least the core.
    cost : Charge
        What it cost when it was computed.
    status : {"done", "cached", "failed"}
        How it came.
    error : str
        Why it failed.
    cost_weights : ndarray, optional
        How the charge falls over the core, ``(rows, columns)``, summing to 1; evenly if None.
    """

    patch: Patch
    role: str
    value: NDArray[np.float64]
    map: NDArray[np.floating[Any]]
    box: Box
    cost: Cost
    status: Literal["done", "cached", "failed"] = "done"
    error: str = ""
    cost_weights: NDArray[np.float64] | None = field(default=None)

    def as_cached(self) -> InferenceResult:
        """Return it as something that need not be computed again."""
        return self if self.status == "failed" else replace(self, status="cached")


def serialize(results: Sequence[InferenceResult]) -> bytes:
    """Write looks as one ``.npz``, without pickles.

    Their arrays lie one after another, as a member for each type of number: thousands of tokens
    would be thousands of members.
    """
    rows: list[dict[str, Any]] = []
    numbers: dict[str, list[NDArray[Any]]] = {}
    for look in results:
        arrays = [look.value, look.map, *([] if look.cost_weights is None else [look.cost_weights])]
        for array in arrays:
            numbers.setdefault(array.dtype.char, []).append(array.ravel())
        rows.append(
            {
                "core": look.patch.core.astuple(),
                "scale": look.patch.scale,
                "halo": look.patch.halo,
                "role": look.role,
                "box": look.box,
                "cost": look.cost.amounts,
                "status": look.status,
                "error": look.error,
                "arrays": [(array.dtype.char, array.shape) for array in arrays],
            }
        )
    members = {name: np.concatenate(parts) for name, parts in numbers.items()}
    members["rows"] = np.frombuffer(json.dumps(rows).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **members)
    return buffer.getvalue()


def deserialize(data: bytes) -> list[InferenceResult]:
    """Read what `pack_seen` wrote."""
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        members: dict[str, NDArray[Any]] = dict(file)
    rows = json.loads(members.pop("rows").tobytes())
    read = dict.fromkeys(members, 0)

    def array(name: str, shape: Sequence[int]) -> NDArray[Any]:
        first, read[name] = read[name], read[name] + math.prod(shape)
        found: NDArray[Any] = members[name][first : read[name]].reshape(shape)
        return found

    seen = []
    for row in rows:
        value, plane, *spread = (array(*about) for about in row["arrays"])
        seen.append(
            InferenceResult(
                patch=Patch(Rect(*row["core"]), row["scale"], row["halo"]),
                role=row["role"],
                value=value,
                map=plane,
                box=tuple(row["box"]),
                cost=Cost(*row["cost"]),
                status=row["status"],
                error=row["error"],
                cost_weights=spread[0] if spread else None,
            )
        )
    return seen
