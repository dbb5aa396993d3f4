"""Features of a run: patches, contours and objects of the predictions, annotations.

Patches and objects are yielded while they are read, in bounded memory. Contours are traced on the
complete map, coarsened to at most `MAX_TRACED_CELLS` cells.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, ClassVar, Literal
from uuid import NAMESPACE_URL, UUID, uuid5

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hrviewer.errors import ParameterError, RunError
from hrviewer.io.annotations import read_annotations
from hrviewer.io.density_points import ObjectPoint, iter_density_points
from hrviewer.io.exportable import Exportable, WriterSettings
from hrviewer.io.features import Feature, Polygon, area_of, rectangle, signed_area
from hrviewer.io.object_features import iter_objects
from hrviewer.io.object_table import has_objects
from hrviewer.io.prediction_columns import most_likely_class, select_columns
from hrviewer.io.run_maps import RunMap, coarsen, most_likely, open_map
from hrviewer.io.run_patches import PATCH_COLUMNS, open_table, require_whole

__all__ = [
    "STAGE_COLUMNS",
    "FeatureOptions",
    "FeatureSelection",
    "detected_objects",
    "id_namespace",
    "iter_features",
    "patch_rows",
    "planned_patches",
    "prediction_columns",
    "provenance",
]

STAGE_COLUMNS = ("read_s", "prepare_s", "infer_s", "post_s")

DEFAULT_THRESHOLD = 0.5
"""Of contours, where classes do not exclude one another."""

MAX_TRACED_CELLS = 16_000_000

BATCH_ROWS = 4096
"""Rows of a patch table that are in memory at once."""

BAND = 256
"""Rows of cells that are searched for objects at once."""


class FeatureOptions(WriterSettings):
    """Options for extracting contours and points from the predictions."""

    special_value_text: ClassVar[Mapping[str, str]] = {
        "threshold": "automatic",
        "score": "the run's",
        "overlap": "the run's",
    }
    threshold: float = Field(
        0.0,
        ge=0,
        title="Threshold",
        description="For contours: smallest value inside; for a density, as a fraction of its "
        "maximum after smoothing. 0 outlines the areas of the most likely class where classes "
        "exclude one another, and takes 0.5 otherwise",
    )
    smoothing: float = Field(
        32.0, ge=0, le=4096, title="Smoothing",
        description="For contours of a density: px over which it is averaged first (the standard "
        "deviation of a Gaussian)",
    )  # fmt: skip
    min_area: float = Field(
        1024.0, ge=0, title="Least area",
        description="For contours of a density: px² below which an outline is left out",
    )  # fmt: skip
    spacing: float = Field(
        8.0,
        gt=0,
        le=4096,
        title="Spacing",
        description="For points of a density: diameter of an object in px, about",
    )
    score: float = Field(
        0.0, ge=0, le=1, title="Score",
        description="For objects: least score, down to 0.05; 0 takes the run's",
    )  # fmt: skip
    overlap: float = Field(
        0.0, ge=0, le=1, title="Overlap",
        description="For objects: two of one class that overlap by more are one; 0 takes the run's",
    )  # fmt: skip
    merging: Literal["as run", "core", "all", "union"] = Field(
        "as run",
        title="Merging",
        description="For objects: how those on the borders of tiles are merged",
    )

    @property
    def thresholds(self) -> dict[str, Any]:
        """Settings of `MergeSettings` that differ from the run's."""
        given = {"score": self.score, "overlap": self.overlap, "merging": self.merging}
        return {name: value for name, value in given.items() if value not in (0, "as run")}

    def check_objects(self, run: Exportable) -> bool:
        """Return whether a run has objects; refuse thresholds of objects for one without.

        Raises
        ------
        ParameterError
            If a threshold has no effect.
        """
        found = has_objects(run)
        if self.thresholds and not found:
            given = ", ".join(self.thresholds)
            raise ParameterError(f"this run has no objects, so {given} has no effect: leave it out")
        return found


class FeatureSelection(FeatureOptions):
    """Kinds of features to export."""

    patches: bool = Field(True, title="Patches", description="Patches with their predictions")
    contours: bool = Field(
        False, title="Contours", description="Outlines of predictions above the threshold"
    )
    points: bool = Field(
        False, title="Points", description="Peaks of a density, or centers of objects"
    )
    objects: bool = Field(
        True, title="Objects", description="Detected objects with class and score, if there are any"
    )
    annotations: bool = Field(
        True, title="Annotations", description="Shapes and points drawn by the user"
    )


def iter_features(run: Exportable, selection: FeatureSelection) -> Iterator[Feature]:
    """Yield a run's patches, contours, points, objects and annotations, in this order.

    Raises
    ------
    HrviewerError
        If the run lacks the data.
    """
    detected = selection.check_objects(run)
    if selection.patches:
        yield from map(patch_feature, patch_rows(run.path / "patches.parquet"))
    if selection.contours:
        yield from iter_contours(run, selection)
    if selection.points:
        yield from iter_points(run, selection)
    if selection.objects and detected:
        yield from iter_objects(run, selection.thresholds)
    if selection.annotations:
        yield from read_annotations(run.path)


# Patches.


def patch_rows(table: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a patch table, one batch in memory at a time."""
    try:
        with open_table(table, PATCH_COLUMNS) as file:
            for batch in file.iter_batches(batch_size=BATCH_ROWS):
                require_whole(batch, PATCH_COLUMNS, table)
                yield from batch.to_pylist()
    except FileNotFoundError:
        raise RunError(f"{table.parent} has no table of patches: resume the run first") from None


def prediction_columns(run: Exportable) -> list[str]:
    """Return the columns of a run's patch table that hold the predictions per class."""
    try:
        with open_table(run.path / "patches.parquet", PATCH_COLUMNS) as file:
            return select_columns(file.schema_arrow.names)
    except FileNotFoundError:
        raise RunError(f"{run.path} has no table of patches: resume the run first") from None


def patch_feature(row: dict[str, Any]) -> Feature:
    """Convert a row of the patch table to a feature."""
    measured = {
        "value": row["value"],
        "score": row["score"],
        "FLOPs": row["flops"],
        "ms": 1000 * sum(row[stage] for stage in STAGE_COLUMNS),
        "order": row["order"],
        "scale": row["scale"],
        **{name: row[name] for name in select_columns(row)},
    }
    likely = most_likely_class(row)
    return Feature(
        "patch",
        row["role"],
        (rectangle(row["y"], row["x"], row["h"], row["w"]),),
        name=f"{row['role']} {row['order']}",
        number=row["id"],
        # NaN in a table is read as None.
        measurements={
            name: value
            for name, value in measured.items()
            if value is not None and math.isfinite(value)
        },
        metadata={"status": row["status"]} | ({"class": likely} if likely else {}),
    )


# Contours.


def iter_contours(run: Exportable, options: FeatureOptions) -> Iterator[Feature]:
    """Yield outlines of the areas in which a class's prediction reaches the threshold.

    With a threshold of 0 these are the areas in which the class is the most likely one, where
    classes exclude one another; otherwise it is one half.

    One feature per 4-connected component, with holes, by scikit-image's marching squares (Lorensen
    and Cline) between the cells' centres. A density, of which single cells are peaks, is smoothed
    before; its features state the level, per mm² or megapixel, and the sum inside.
    """
    from scipy.ndimage import gaussian_filter

    run_map = open_map(run, "output")
    values, cell = coarsen(run_map, MAX_TRACED_CELLS)
    height, width = run.header["image"]["shape"]
    size = run.header["image"]["pixel_size"]
    numbers = count()
    best = most_likely(values) if not options.threshold and run_map.exclusive else None
    for k, (plane, label) in enumerate(zip(np.nan_to_num(values), run_map.labels, strict=True)):
        traced, level, stated = plane, options.threshold or DEFAULT_THRESHOLD, {}
        if best is not None:
            level, traced = 0.5, (best == k).astype(np.float32)
        if run_map.additive:
            traced = gaussian_filter(plane, options.smoothing / cell, mode="constant")
            level *= float(traced.max(initial=0.0))
            unit, square = ("MP", 1e6) if size is None else ("mm^2", 1e6 / (size[0] * size[1]))
            stated = {f"level per {unit}": level / cell**2 * square}
        if level <= 0:
            continue
        for polygon, measured in trace_outlines(plane, level, cell, run_map.additive, traced):
            clipped = tuple(np.clip(ring, 0, (height, width)) for ring in polygon)
            area = area_of((clipped,))
            if run_map.additive and area < options.min_area:
                continue
            areas = {"area px^2": area}
            if size:
                areas["area µm^2"] = area * size[0] * size[1]
            number = next(numbers)
            yield Feature("contour", label, (clipped,), name=f"{label} {number}",
                          number=number, measurements=areas | measured | stated)  # fmt: skip


def trace_outlines(
    plane: NDArray[np.float32],
    level: float,
    cell: float,
    additive: bool,
    shape: NDArray[np.float32] | None = None,
) -> Iterator[tuple[Polygon, dict[str, float]]]:
    """Yield the polygon of every connected component, with its sum or mean and its maximum.

    Components are where `shape`, by default the plane itself, reaches the level.
    """
    from skimage.measure import find_contours, label

    shape = plane if shape is None else shape
    inside = np.pad(shape >= level, 1)
    if not inside.any():
        return
    padded = np.pad(plane, 1)
    parts = label(inside, connectivity=1)
    flat = parts.ravel()
    sums = np.bincount(flat, padded.ravel().astype(np.float64))
    sizes = np.bincount(flat)
    maxima = np.zeros(len(sizes))
    np.maximum.at(maxima, flat, padded.ravel())
    outer: dict[int, NDArray[np.float64]] = {}
    holes: dict[int, list[NDArray[np.float64]]] = {}
    # Just below the level, so that cells exactly at the level are enclosed.
    below = float(np.nextafter(np.float32(level), np.float32(0)))
    for line in find_contours(
        np.pad(shape, 1), below, fully_connected="low", positive_orientation="high"
    ):
        ring = line[:-1]
        part = int(parts[inside_cell(ring[0], inside)])
        # Padding shifts by one cell; a cell's centre is half a cell inside.
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
        amount = (
            {"sum": float(sums[part])} if additive else {"mean": float(sums[part] / sizes[part])}
        )
        rings = (outer[part], *holes.get(part, ()))
        yield rings, amount | {"max": float(maxima[part])}


def inside_cell(at: NDArray[np.float64], inside: NDArray[np.bool_]) -> tuple[int, int]:
    """Return the inner one of the two cells between whose centres a contour point lies."""
    low, high = np.floor(at).astype(int), np.ceil(at).astype(int)
    first, second = (int(low[0]), int(low[1])), (int(high[0]), int(high[1]))
    return first if inside[first] else second


# Objects.


def detected_objects(run: Exportable) -> list[Feature]:
    """Return the predicted objects of a run, with the model as author."""
    metadata = {"author": run.header["model"], "time": run.header["started"]}
    return [replace(point, metadata=metadata) for point in iter_points(run, FeatureOptions())]


def iter_points(run: Exportable, options: FeatureOptions) -> Iterator[Feature]:
    """Yield the objects of a counting run as points.

    Of a detector the centers of its objects. In a map of integers every object at its cell's
    centre. Of a density as many as the sum of each class, rounded: see `iter_density_points`.
    """
    if has_objects(run):
        for each in iter_objects(run, options.thresholds):
            yield replace(each, kind="point", point=each.center, polygons=())
        return
    run_map = open_map(run, "output")
    if not run_map.additive:
        raise ParameterError("this run does not count objects: choose contours instead of points")
    numbers = count()
    for label, at, mass in (
        iter_counted_objects(run_map)
        if are_integers(run_map)
        else iter_density_points(run_map, options.spacing)
    ):
        number = next(numbers)
        yield Feature("point", label, point=at, name=f"{label} {number}", number=number,
                      measurements={"mass": mass})  # fmt: skip


def are_integers(run_map: RunMap) -> bool:
    """Return whether all predictions are integers."""
    bands = (np.nan_to_num(band) for _, band in run_map.bands())
    return all(bool((values == np.rint(values)).all()) for values in bands)


def iter_counted_objects(run_map: RunMap) -> Iterator[ObjectPoint]:
    """Yield one point per predicted object of each cell."""
    for start, band in run_map.bands(BAND):
        values = np.nan_to_num(band).astype(int)
        for k, y, x in np.argwhere(values > 0).tolist():
            at = ((start + y + 0.5) * run_map.cell, (x + 0.5) * run_map.cell)
            for _ in range(values[k, y, x]):
                yield run_map.labels[k], at, 1.0


# Metadata of exports.


def provenance(run: Exportable) -> dict[str, Any]:
    """Return the origin of an export: image, model, strategy, parameters and estimate."""
    return {key: run.header[key] for key in ("image", "model", "strategy", "params", "estimate")}


def id_namespace(run: Exportable) -> UUID:
    """Return the namespace of a run's identifiers, which does not depend on its folder."""
    header = run.header
    parts = header["image"]["fingerprint"], header["strategy"], header["started"]
    return uuid5(NAMESPACE_URL, "hrviewer:" + "/".join(map(str, parts)))


def planned_patches(run: Exportable) -> int:
    """Return the number of planned patches, for progress."""
    return int(run.header.get("patches", {}).get("planned", 0))
