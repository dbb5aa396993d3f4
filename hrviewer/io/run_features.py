"""What a run found, as features: its patches, its output's contours and objects, its drawings.

Patches and objects are yielded as they are read, so that any number of them passes in bounded
memory. Contours are traced on the whole map, coarsened to at most `TRACED` cells.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hrviewer.errors import HrviewerError
from hrviewer.io.annotations import read_annotations
from hrviewer.io.exportable import Exportable, WriterSettings
from hrviewer.io.features import Feature, Polygon, area_of, rectangle, signed_area
from hrviewer.io.run_maps import RunMap, coarsen, open_map

__all__ = [
    "STAGE_COLUMNS",
    "FeatureOptions",
    "FeatureSelection",
    "detected_objects",
    "id_namespace",
    "iter_features",
    "patch_rows",
    "planned_patches",
    "provenance",
]

STAGE_COLUMNS = ("read_s", "prepare_s", "infer_s", "post_s")

MAX_TRACED_CELLS = 16_000_000
BAND = 256
"""Rows of cells in which objects are looked for together."""


class FeatureOptions(WriterSettings):
    """How contours and points are found in the output."""

    threshold: float = Field(
        0.5,
        gt=0,
        title="Threshold",
        description="For contours: from which value a cell is inside; of a density, as a part of "
        "its largest value",
    )
    spacing: float = Field(
        8.0, gt=0, le=4096, title="Spacing", description="For points: px between objects, at least"
    )


class FeatureSelection(FeatureOptions):
    """Which of a run's features are written."""

    patches: bool = Field(True, title="Patches", description="Where the network looked")
    contours: bool = Field(
        False, title="Contours", description="Outlines of where the output is above a threshold"
    )
    points: bool = Field(
        False, title="Points", description="Objects: the peaks of a density, a detector's finds"
    )
    annotations: bool = Field(True, title="Annotations", description="What a person drew")


def iter_features(run: Exportable, selection: FeatureSelection) -> Iterator[Feature]:
    """Yield a run's features: patches, contours, points, annotations, each in their order.

    Raises
    ------
    UserError
        If the run does not hold what is asked for.
    """
    if selection.patches:
        yield from map(patch_feature, patch_rows(run.path / "patches.parquet"))
    if selection.contours:
        yield from iter_contours(run, selection.threshold)
    if selection.points:
        yield from iter_points(run, selection.spacing)
    if selection.annotations:
        yield from read_annotations(run.path)


# Patches.


def patch_rows(table: Path) -> Iterator[dict[str, Any]]:
    """Yield a table's rows, a batch in memory at a time."""
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(table)
    except (OSError, ValueError) as error:
        raise HrviewerError(f"{table.parent} holds no readable patches: {error}") from None
    with file:
        for batch in file.iter_batches(batch_size=4096):
            yield from batch.to_pylist()


def patch_feature(row: dict[str, Any]) -> Feature:
    """Return a look."""
    measured = {
        "value": row["value"],
        "score": row["score"],
        "FLOPs": row["flops"],
        "ms": 1000 * sum(row[stage] for stage in STAGE_COLUMNS),
        "order": row["order"],
        "scale": row["scale"],
    }
    return Feature(
        "patch",
        row["role"],
        (rectangle(row["y"], row["x"], row["h"], row["w"]),),
        name=f"{row['role']} {row['order']}",
        number=row["id"],
        # A table's NaN comes as null.
        measurements={
            name: value
            for name, value in measured.items()
            if value is not None and math.isfinite(value)
        },
        metadata={"status": row["status"]},
    )


# Contours.


def iter_contours(run: Exportable, threshold: float) -> Iterator[Feature]:
    """Yield the outlines of where each class's output reaches a threshold.

    One feature per connected part (by edges), with its holes. Lorensen's and Cline's marching
    squares, as scikit-image has them, between the centres of the cells.
    """
    shown = open_map(run, "output")
    values, cell = coarsen(shown, MAX_TRACED_CELLS)
    height, width = run.header["image"]["shape"]
    size = run.header["image"]["pixel_size"]
    numbers = count()
    for plane, label in zip(values, shown.labels, strict=True):
        level = threshold * float(np.nanmax(plane, initial=0.0)) if shown.additive else threshold
        if level > 0:
            for polygon, measured in trace_outlines(
                np.nan_to_num(plane), level, cell, shown.additive
            ):
                clipped = tuple(np.clip(ring, 0, (height, width)) for ring in polygon)
                number, area = next(numbers), area_of((clipped,))
                areas = {"area px^2": area}
                if size:
                    areas["area µm^2"] = area * size[0] * size[1]
                yield Feature("contour", label, (clipped,), name=f"{label} {number}",
                              number=number, measurements=areas | measured)  # fmt: skip


def trace_outlines(
    plane: NDArray[np.float32], level: float, cell: float, additive: bool
) -> Iterator[tuple[Polygon, dict[str, float]]]:
    """Yield the polygon of every connected part, and what it holds."""
    from skimage.measure import find_contours, label

    inside = np.pad(plane >= level, 1)
    if not inside.any():
        return
    padded = np.pad(plane, 1)
    parts = label(inside, connectivity=1)
    flat = parts.ravel()
    sums = np.bincount(flat, padded.ravel().astype(np.float64))
    sizes = np.bincount(flat)
    tops = np.zeros(len(sizes))
    np.maximum.at(tops, flat, padded.ravel())
    outer: dict[int, NDArray[np.float64]] = {}
    holes: dict[int, list[NDArray[np.float64]]] = {}
    # Just below the level, so that cells that are exactly on it have an outline around them.
    below = float(np.nextafter(np.float32(level), np.float32(0)))
    for line in find_contours(padded, below, fully_connected="low", positive_orientation="high"):
        ring = line[:-1]
        part = int(parts[inside_cell(ring[0], inside)])
        # Padding moved everything by a cell, and a cell's centre lies half a cell in.
        corners = (ring - 0.5) * cell
        known = outer.get(part)
        if known is None:
            outer[part] = corners
        elif abs(signed_area(corners)) > abs(signed_area(known)):
            outer[part] = corners
            holes.setdefault(part, []).append(known)
        else:
            holes.setdefault(part, []).append(corners)
    for part in sorted(outer):
        held = {"sum": float(sums[part])} if additive else {"mean": float(sums[part] / sizes[part])}
        rings = (outer[part], *holes.get(part, ()))
        yield rings, held | {"max": float(tops[part])}


def inside_cell(at: NDArray[np.float64], inside: NDArray[np.bool_]) -> tuple[int, int]:
    """Return the cell inside, of the two between whose centres a contour passes."""
    low, high = np.floor(at).astype(int), np.ceil(at).astype(int)
    first, second = (int(low[0]), int(low[1])), (int(high[0]), int(high[1]))
    return first if inside[first] else second


# Objects.


def detected_objects(run: Exportable) -> list[Feature]:
    """Return the objects that a run's network found, as it would have drawn them."""
    said = {"author": run.header["model"], "time": run.header["started"]}
    return [replace(point, metadata=said) for point in iter_points(run, FeatureOptions().spacing)]


def iter_points(run: Exportable, spacing: float) -> Iterator[Feature]:
    """Yield the objects that a counting network saw.

    Of a map of whole numbers, as detectors paint it, every object, at its cell's centre; of a
    density, its peaks: cells larger than all others within `spacing`, and than a tenth of the
    largest, at the centre of mass of what lies around.
    """
    shown = open_map(run, "output")
    if not shown.additive:
        raise HrviewerError("this run does not count: it has no points; choose contours")
    whole, top = scan_output(shown)
    numbers = count()
    for label, at, mass in (
        iter_counted_objects(shown) if whole else iter_peaks(shown, spacing, top / 10)
    ):
        number = next(numbers)
        yield Feature("point", label, point=at, name=f"{label} {number}", number=number,
                      measurements={"mass": mass})  # fmt: skip


def scan_output(run_map: RunMap) -> tuple[bool, float]:
    """Tell whether all values are whole numbers, and the largest."""
    whole, top = True, 0.0
    for _, band in run_map.bands():
        values = np.nan_to_num(band)
        whole = whole and bool((values == np.rint(values)).all())
        top = max(top, float(values.max()))
    return whole, top


ObjectPoint = tuple[str, tuple[float, float], float]


def iter_counted_objects(run_map: RunMap) -> Iterator[ObjectPoint]:
    """Yield as many objects as each cell counts."""
    for start, band in run_map.bands(BAND):
        values = np.nan_to_num(band).astype(int)
        for k, y, x in np.argwhere(values > 0).tolist():
            at = ((start + y + 0.5) * run_map.cell, (x + 0.5) * run_map.cell)
            for _ in range(values[k, y, x]):
                yield run_map.labels[k], at, 1.0


def iter_peaks(run_map: RunMap, spacing: float, minimum: float) -> Iterator[ObjectPoint]:
    """Yield a density's peaks."""
    from scipy.ndimage import maximum_filter, uniform_filter

    if minimum <= 0:
        return
    radius = max(1, round(spacing / run_map.cell / 2))
    side, rows = 2 * radius + 1, run_map.cells.shape[1]
    # A peak needs its surroundings, and those of the peaks that it might give way to.
    margin = 2 * radius
    for start in range(0, rows, BAND):
        low, high = max(0, start - margin), min(rows, start + BAND + margin)
        block = np.nan_to_num(np.asarray(run_map.cells[:, low:high], np.float64))
        for k, plane in enumerate(block):
            best = (plane >= maximum_filter(plane, side, mode="constant")) & (plane >= minimum)
            at = first_of_equal_cells(best)
            at = at[(at[:, 0] + low >= start) & (at[:, 0] + low < start + BAND)]
            y, x = np.indices(plane.shape, sparse=True)
            around = [
                uniform_filter(weighed, side, mode="constant") * side**2
                for weighed in (plane, plane * y, plane * x)
            ]
            for row, column in at.tolist():
                mass, my, mx = (float(values[row, column]) for values in around)
                yield (
                    run_map.labels[k],
                    ((my / mass + low + 0.5) * run_map.cell, (mx / mass + 0.5) * run_map.cell),
                    mass,
                )


def first_of_equal_cells(best: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return of equal cells that touch the first in reading order, ``(n, 2)``."""
    from scipy.ndimage import label

    at = np.argwhere(best)
    numbers, _ = label(best, np.ones((3, 3)))
    _, first = np.unique(numbers[best], return_index=True)
    return at[np.sort(first)]


# What every file says of the run.


def provenance(run: Exportable) -> dict[str, Any]:
    """Return where a file comes from."""
    return {key: run.header[key] for key in ("image", "model", "strategy", "params", "estimate")}


def id_namespace(run: Exportable) -> UUID:
    """Return what identifiers are derived from: the same of the same run, wherever it lies."""
    header = run.header
    parts = header["image"]["fingerprint"], header["strategy"], header["started"]
    return uuid5(NAMESPACE_URL, "hrviewer:" + "/".join(map(str, parts)))


def planned_patches(run: Exportable) -> int:
    """Return how many patches there are, for progress."""
    return int(run.header.get("patches", {}).get("planned", 0))
