"""Measurement of a run's maps within regions, without inference.

The output of a cell on a region's border is shared by area, so that regions which make up another
one sum to it. Of a detector the objects count whose center is inside.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from hrviewer.geometry import Rect
from hrviewer.io.exportable import Exportable
from hrviewer.io.object_table import has_objects, read_objects
from hrviewer.io.run_maps import RunMap, open_map
from hrviewer.io.run_patches import read_patches
from hrviewer.regions import Region, cell_areas, points_inside
from hrviewer.runs.estimates import EstimateDict, estimate_of_part
from hrviewer.runs.run_regions import read_parts
from hrviewer.strategies.estimation.tile_sample import MIN_COVERAGE

__all__ = ["RegionCostDict", "RegionDict", "measure_map", "measure_regions", "sum_map"]

BLOCK_CELLS = 1 << 21
"""Cells of a map that are measured at once."""

ALIGNED_ROWS = 256
"""Blocks of more rows begin at multiples of this, so that a stored chunk is read once."""

Floats = NDArray[np.float64]


class RegionCostDict(TypedDict):
    """The part of a run's nominal cost that its cost map has in a region."""

    flops: float
    seconds: float
    """Of all stages together."""
    bytes_read: float
    pixels_read: float


class RegionDict(TypedDict):
    """The measurements of one region."""

    name: str
    label: str
    area: float
    """Area inside the image, square level-0 pixels."""
    data_area: float
    """The part of it that counts, tissue with data, to a cell's precision; densities are of it."""
    tissue_area: NotRequired[float]
    """The part of it that is tissue, where the run left out the rest."""
    coverage: float
    """The part of the area in which the run has predictions, 0 to 1."""
    estimate: EstimateDict | None
    """None if most of the region has no predictions. Its interval has equal ends where inference
    was exhaustive: maps of other runs bear none for a part of the image."""
    cost: RegionCostDict


def measure_regions(run: Exportable, regions: Sequence[Region]) -> list[RegionDict]:
    """Return the measurements of regions from the maps of a run.

    If the run corrected its estimate, so that the map does not sum to it, parts of the map are
    corrected in proportion.

    Parameters
    ----------
    run : Exportable
        The run.
    regions : sequence of Region
        They may overlap, and reach beyond the image: what lies outside does not count.

    Returns
    -------
    list of RegionDict
        One for each region, in order.

    Raises
    ------
    HrviewerError
        If the run has no maps.
    """
    header = run.header
    image = Rect(0, 0, *header["image"]["shape"])
    extent = Rect(*header["region"])
    own, tissue = read_parts(run)
    drawn = Region.union(own) if own else None
    measure = measure_function(run)
    cost = open_map(run, "cost")
    cost = replace(cost, cells=np.asarray(cost.cells[:]))  # of at most 1024 cells a side
    processed = None if header.get("coverage", 100) >= 100 else processed_cores(run)
    counting = header.get("counting_area", extent.area)
    gaps = header.get("data_area") is not None and header["data_area"] < counting * (1 - 1e-9)
    rows: list[RegionDict] = []
    for region in regions:
        visible, inside = region.clip(image), region.clip(extent)
        if inside is not None and drawn is not None:
            inside = inside.intersect(drawn)
        spent = inside
        if tissue is not None:
            visible_tissue = visible.intersect(tissue) if visible else None
            inside = inside.intersect(tissue) if inside else None
        else:
            visible_tissue = visible
        area = visible.area if visible else 0.0
        to_count = visible_tissue.area if visible_tissue else 0.0
        amounts, known = (None, 0.0) if inside is None else measure(inside)
        covered = 0.0 if inside is None else covered_area(inside, processed)
        coverage = min(1.0, covered / to_count) if to_count else float(area > 0)
        if math.isclose(coverage, 1.0, rel_tol=1e-9):
            coverage = 1.0
        data_area = to_count - (covered - min(known, covered)) if gaps else to_count
        row: RegionDict = {
            "name": region.name,
            "label": region.label,
            "area": area,
            "data_area": data_area,
            "coverage": coverage,
            "estimate": part_estimate(header, amounts, data_area, coverage),
            "cost": part_cost(cost, spent, extent),
        }
        if tissue is not None:
            row["tissue_area"] = to_count
        rows.append(row)
    return rows


def part_estimate(
    header: dict[str, Any], amounts: Floats | None, data_area: float, coverage: float
) -> EstimateDict | None:
    """Return the estimate for a region from what its covered part has on the map."""
    whole: EstimateDict | None = header["estimate"]
    if whole is None or amounts is None or coverage < MIN_COVERAGE or np.isnan(amounts).any():
        return None
    exhaustive = whole["exhaustive"] and coverage == 1
    if whole["kind"] in ("count", "area"):
        amounts = amounts * (map_correction(header) / coverage)
    size = header["image"]["pixel_size"]
    part = estimate_of_part(
        whole, amounts, data_area, None if size is None else (size[0], size[1]),
        exhaustive=exhaustive,
    )  # fmt: skip
    if "density_of" in whole:
        part["density_of"] = whole["density_of"]
    if coverage < 1:
        part["coverage"] = coverage
    return part


def map_correction(header: dict[str, Any]) -> float:
    """Return the estimate over the sum of the map, where the map covers the region."""
    estimate = header["estimate"]
    on_map = estimate.get("map_sum", 0.0)
    if estimate["exhaustive"] or header.get("coverage", 100) < 100 or not on_map > 0:
        return 1.0
    return float(estimate["value"]) / float(on_map)


# Amounts on the map of the output.

Measure = Callable[[Region], tuple[Floats | None, float]]
"""Returns the amounts of a region by class, and the area of it that has predictions."""


def measure_function(run: Exportable) -> Measure:
    """Return the function that measures a region, by the kind of the run's estimate."""
    estimate, extent = run.header["estimate"], Rect(*run.header["region"])
    if estimate is None:
        return lambda region: (None, region.area)
    output = open_map(run, "output")
    on_map = {"count": sum_shares, "area": sum_best}.get(estimate["kind"], sum_weighted)

    def measure(region: Region) -> tuple[Floats, float]:
        amounts, known = measure_map(output.cells, output.cell, region, extent, on_map)
        if on_map is sum_weighted:
            amounts = amounts / known if known else np.full(len(amounts), np.nan)
        return amounts, known

    if not has_objects(run):
        return measure
    _, objects, classes = read_objects(run)
    centers, class_ids = objects.centers, objects.class_ids

    def count(region: Region) -> tuple[Floats, float]:
        box = region.bounds
        near = np.flatnonzero(
            ((centers >= (box.y, box.x)) & (centers <= (box.y1, box.x1))).all(axis=1)
        )
        found = class_ids[near[points_inside(region, centers[near])]]
        return np.bincount(found, minlength=len(classes)).astype(float), measure(region)[1]

    return count


def measure_map(
    cells: Any,
    cell: float,
    region: Region,
    extent: Rect,
    on_map: Callable[[Floats, Floats, Floats], Floats] | None = None,
) -> tuple[Floats, float]:
    """Return the amounts of a region on a map, and the area of it that has predictions.

    Parameters
    ----------
    cells : array, shape (k, rows, columns)
        The map.
    cell : float
        Side of its cells, level-0 pixels.
    region : Region
        The region, which lies in `extent`.
    extent : Rect
        The run's rectangle.
    on_map : callable, optional
        Returns the amounts of a block, as `sum_shares` does by default.
    """
    amounts, known, on_map = np.zeros(cells.shape[0]), 0.0, on_map or sum_shares
    for values, areas, sizes in iter_blocks(cells, cell, region, extent):
        valid = np.isfinite(values).all(axis=0)
        within = np.where(valid, areas, 0.0)
        amounts += on_map(np.where(valid, values, 0.0), within, sizes)
        known += float(within.sum())
    return amounts, known


def sum_map(cells: Any, cell: float, mask: Region | None, extent: Rect) -> float:
    """Return what a map adds up to where it counts, some rows at a time; see `measure_map`."""
    if mask is not None:
        return float(measure_map(cells, cell, mask, extent)[0].sum())
    step = max(1, BLOCK_CELLS // max(1, cells.shape[2]))
    rows = range(0, cells.shape[1], step)
    return float(sum(np.nansum(cells[:, row : row + step], dtype=np.float64) for row in rows))


def sum_shares(values: Floats, areas: Floats, sizes: Floats) -> Floats:
    """Return the sum of counts, each cell's shared by area."""
    shares = np.divide(areas, sizes, out=np.zeros_like(areas), where=sizes > 0)
    return np.asarray(np.einsum("kij,ij->k", values, shares))


def sum_weighted(values: Floats, areas: Floats, sizes: Floats) -> Floats:
    """Return the sum of values times area."""
    return np.asarray(np.einsum("kij,ij->k", values, areas))


def sum_best(values: Floats, areas: Floats, sizes: Floats) -> Floats:
    """Return the area of each class: that of the cells in which it is the most likely one."""
    best = values.argmax(axis=0) if len(values) > 1 else np.where(values[0] > 0.5, 0, 1)
    found = np.bincount(best.ravel(), areas.ravel(), len(values))
    return np.asarray(found[: len(values)], np.float64)


def iter_blocks(
    cells: Any, cell: float, region: Region, extent: Rect
) -> Iterator[tuple[Floats, Floats, Floats]]:
    """Yield the cells that a region touches, some rows at a time.

    Parameters
    ----------
    cells, cell, region
        See `measure_map`.
    extent : Rect
        The run's rectangle: cells on its border have values for the part inside only.

    Yields
    ------
    values : ndarray, shape (k, rows, columns)
        Values of the cells.
    areas, sizes : ndarray, shape (rows, columns)
        Area of the region in each cell, and of the cell in the extent, square level-0 pixels.
    """
    box = region.bounds & extent
    k, n, m = cells.shape
    top, left = math.floor(box.y / cell), math.floor(box.x / cell)
    bottom, right = min(n, math.ceil(box.y1 / cell)), min(m, math.ceil(box.x1 / cell))
    xs = np.clip(np.arange(left, right + 1) * cell, extent.x, extent.x1)
    step = max(1, BLOCK_CELLS // (k * max(1, right - left)))
    step = step // ALIGNED_ROWS * ALIGNED_ROWS or step
    for start in range(top // step * step, bottom, step):
        first, last = max(start, top), min(start + step, bottom)
        ys = np.clip(np.arange(first, last + 1) * cell, extent.y, extent.y1)
        areas = cell_areas(region, ys, xs)
        values = np.asarray(cells[:, first:last, left:right], np.float64)
        yield values, areas, np.outer(np.diff(ys), np.diff(xs))


# Coverage and cost.


def processed_cores(run: Exportable) -> NDArray[np.object_]:
    """Return the cores of the patches on which models of the bundle ran, as shapely's boxes."""
    import shapely

    table = read_patches(run.path)
    done = (table["status"] != "failed") & ~table["role"].str.startswith("@")
    y, x, h, w = (table.loc[done, name].to_numpy(float) for name in ("y", "x", "h", "w"))
    boxes: NDArray[np.object_] = np.asarray(shapely.box(x, y, x + w, y + h), object)
    return boxes


def covered_area(region: Region, processed: NDArray[np.object_] | None) -> float:
    """Return the area of a region in processed cores; None stands for cores everywhere."""
    import shapely

    if processed is None:
        return region.area
    tree = shapely.STRtree(processed)
    touching = processed[tree.query(region.shape, predicate="intersects")]
    return float(shapely.area(shapely.intersection(shapely.union_all(touching), region.shape)))


def part_cost(cost: RunMap, region: Region | None, extent: Rect) -> RegionCostDict:
    """Return the cost within a region, each cell's shared by area."""
    total = np.zeros(len(cost.labels))
    if region is not None:
        for values, areas, sizes in iter_blocks(cost.cells, cost.cell, region, extent):
            total += sum_shares(np.nan_to_num(values), areas, sizes)
    amounts = dict(zip(cost.labels, total.tolist(), strict=True))
    return {
        "flops": amounts["flops"],
        "seconds": sum(value for name, value in amounts.items() if name.endswith("_s")),
        "bytes_read": amounts["bytes"],
        "pixels_read": amounts["pixels"],
    }
