"""Result of inference on one patch, and its serialization.

An `InferenceResult` is the unit of everything that is stored: the cache keeps it under the hash of
its request, a run's journal keeps all results of a request, overlays are painted from it.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hrviewer.checksum import DamagedCopyError, verify, with_checksum
from hrviewer.engine.canvas import Box
from hrviewer.engine.cost import Cost
from hrviewer.errors import short_message
from hrviewer.geometry import Patch, Rect
from hrviewer.objects import DetectedObjects

__all__ = ["InferenceResult", "deserialize", "release_in_order", "serialize"]


@dataclass(frozen=True, slots=True, eq=False)
class InferenceResult:
    """Result of inference on one patch, with its cost; policies get it as `PatchResult`.

    Parameters
    ----------
    patch : Patch
        The patch, its core clipped to the region.
    role : str
        Role of the network.
    value : ndarray of float64, shape (k,)
        Prediction for the core; NaN if inference failed.
    map : ndarray of float32, shape (k, rows, columns)
        Output over `box`; one NaN cell if inference failed. Embeddings are in float16.
    box : tuple of float
        Extent of `map`, ``(y, x, h, w)`` in level-0 pixels; at least the core.
    cost : Cost
        Cost of the inference, also where the result is reused.
    status : {"done", "cached", "failed", "skipped"}
        Whether it was computed, reused, failed, or needed no inference since its core lies outside
        the mask.
    error : str
        Message of the failure, one line.
    cost_weights : ndarray, optional
        Distribution of the cost over the core, ``(rows, columns)``, summing to 1; evenly if None.
    objects : DetectedObjects, optional
        Of a detector, all candidates for objects in the input, the halo included.
    """

    patch: Patch
    role: str
    value: NDArray[np.float64]
    map: NDArray[np.floating[Any]]
    box: Box
    cost: Cost
    status: Literal["done", "cached", "failed", "skipped"] = "done"
    error: str = ""
    cost_weights: NDArray[np.float64] | None = field(default=None)
    objects: DetectedObjects | None = field(default=None)

    def as_cached(self) -> InferenceResult:
        """Return the result with the status ``"cached"``, unless it failed."""
        return self if self.status in ("failed", "skipped") else replace(self, status="cached")


def serialize(results: Sequence[InferenceResult]) -> bytes:
    """Return results as bytes: a line with the checksum, and an ``.npz`` file without pickles.

    Arrays of one data type are concatenated into one member: thousands of tokens would be thousands
    of members.
    """
    rows: list[dict[str, Any]] = []
    numbers: dict[str, list[NDArray[Any]]] = {}
    for result in results:
        weights = [] if result.cost_weights is None else [result.cost_weights]
        columns = () if result.objects is None else result.objects.columns
        arrays = [result.value, result.map, *columns, *weights]
        for array in arrays:
            numbers.setdefault(array.dtype.char, []).append(array.ravel())
        rows.append(
            {
                "core": result.patch.core.astuple(),
                "scale": result.patch.scale,
                "halo": result.patch.halo,
                "role": result.role,
                "box": result.box,
                "cost": result.cost.amounts,
                "status": result.status,
                "error": result.error,
                "columns": len(columns),
                "arrays": [(array.dtype.char, array.shape) for array in arrays],
            }
        )
    members = {name: np.concatenate(parts) for name, parts in numbers.items()}
    members["rows"] = np.frombuffer(json.dumps(rows).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **members)
    return with_checksum(buffer.getvalue())


def deserialize(data: bytes) -> list[InferenceResult]:
    """Return the results in bytes from `serialize`.

    Raises
    ------
    UnfitCopyError
        If they are damaged, or another version of hrviewer wrote them.
    """
    content = verify(data)
    try:
        return read_members(content)
    except Exception as error:  # a forged checksum: any error of the parsers
        raise DamagedCopyError(short_message(error)) from None


def read_members(data: bytes) -> list[InferenceResult]:
    """Return the results in an ``.npz`` file."""
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        if any(member.compress_type != zipfile.ZIP_STORED for member in file.zip.infolist()):
            raise ValueError("a member is compressed")
        members: dict[str, NDArray[Any]] = dict(file)
    rows = json.loads(members.pop("rows").tobytes())
    read = dict.fromkeys(members, 0)

    def array(name: str, shape: Sequence[int]) -> NDArray[Any]:
        first, read[name] = read[name], read[name] + math.prod(shape)
        found: NDArray[Any] = members[name][first : read[name]].reshape(shape)
        return found

    results = []
    for row in rows:
        value, plane, *more = (array(*dtype_and_shape) for dtype_and_shape in row["arrays"])
        columns, weights = more[: row["columns"]], more[row["columns"] :]
        results.append(
            InferenceResult(
                patch=Patch(Rect(*row["core"]), row["scale"], row["halo"]),
                role=row["role"],
                value=value,
                map=plane,
                box=tuple(row["box"]),
                cost=Cost(*row["cost"]),
                status=row["status"],
                error=row["error"],
                cost_weights=weights[0] if weights else None,
                objects=DetectedObjects.from_columns(columns) if columns else None,
            )
        )
    return results


def release_in_order(
    results: Iterator[tuple[int, InferenceResult]],
) -> Iterator[tuple[int, InferenceResult]]:
    """Yield results in the order of the request, each as soon as all before it are there."""
    waiting: dict[int, InferenceResult] = {}
    next_index = 0
    for index, result in results:
        waiting[index] = result
        while next_index in waiting:
            yield next_index, waiting.pop(next_index)
            next_index += 1
