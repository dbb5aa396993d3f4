"""Measurement of a run's maps within regions, without inference.

The output of a cell on a region's border is shared by area, so that regions which make up another
one sum to it. Of a detector the objects count whose center is inside.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from hrviewer.geometry import Rect
from hrviewer.io.exportable import Exportable
from hrviewer.io.object_table import has_objects, read_objects
from hrviewer.io.run_maps import open_map
from hrviewer.io.run_patches import read_patches
from hrviewer.regions import Region, points_inside
from hrviewer.runs.estimates import EstimateDict, estimate_of_part
from hrviewer.runs.region_intervals import set_part_intervals
from hrviewer.runs.region_sums import (
    densities_of_best,
    densities_of_counts,
    densities_of_values,
    sum_regions,
)
from hrviewer.runs.run_regions import read_parts
from hrviewer.strategies.estimation.tile_sample import MIN_COVERAGE

__all__ = ["RegionCostDict", "RegionDict", "measure_regions"]

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
    """None if most of the region has no predictions. Its intervals have equal ends where inference
    was exhaustive, and follow from those of the run elsewhere; see `region_intervals`."""
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
    image, extent = Rect(0, 0, *header["image"]["shape"]), Rect(*header["region"])
    own, tissue = read_parts(run)
    drawn = Region.union(own) if own else None
    processed = None if header.get("coverage", 100) >= 100 else processed_cores(run)
    counting = header.get("counting_area") or extent.area
    gaps = header.get("data_area") is not None and header["data_area"] < counting * (1 - 1e-9)
    visible = [region.clip(image) for region in regions]
    spent = [within(region.clip(extent), drawn) for region in regions]
    to_count = [within(region, tissue) for region in visible]
    inside = [within(region, tissue) for region in spent]
    measured = [i for i, region in enumerate(inside) if region is not None]
    found = [region for region in inside if region is not None]
    amounts, known = measure_amounts(run, found)
    costs = part_costs(run, spent, extent)
    at = {i: n for n, i in enumerate(measured)}
    rows: list[RegionDict] = []
    for i, region in enumerate(regions):
        part = inside[i]
        area, wanted = area_of(visible[i]), area_of(to_count[i])
        covered = 0.0 if part is None else covered_area(part, processed)
        coverage = min(1.0, covered / wanted) if wanted else float(area > 0)
        if math.isclose(coverage, 1.0, rel_tol=1e-9):
            coverage = 1.0
        data_area = wanted
        if gaps:
            data_area -= covered - (min(float(known[at[i]]), covered) if i in at else 0.0)
        values = amounts[at[i]] if amounts is not None and i in at else None
        estimate = part_estimate(header, values, data_area, coverage)
        if estimate is not None and math.isclose(area_of(part), wanted, rel_tol=1e-9):
            set_part_intervals(estimate, header, data_area, coverage)
        row: RegionDict = {
            "name": region.name,
            "label": region.label,
            "area": area,
            "data_area": data_area,
            "coverage": coverage,
            "estimate": estimate,
            "cost": costs[i],
        }
        if tissue is not None:
            row["tissue_area"] = wanted
        rows.append(row)
    return rows


def within(region: Region | None, part: Region | None) -> Region | None:
    """Return what of a region lies in a part of the image; None stands for nothing, or for all."""
    return region if region is None or part is None else region.intersect(part)


def area_of(region: Region | None) -> float:
    """Return the area of a region, 0 of none."""
    return 0.0 if region is None else region.area


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


def measure_amounts(run: Exportable, regions: Sequence[Region]) -> tuple[Floats | None, Floats]:
    """Return amounts by class, and the areas that have predictions, as the run's kind asks for.

    Returns
    -------
    amounts : ndarray, shape (n, k), or None
        NaN where a mean has nothing to be of; None without an estimate.
    known : ndarray, shape (n,)
        Square level-0 pixels.
    """
    estimate, extent = run.header["estimate"], Rect(*run.header["region"])
    if estimate is None:
        return None, np.array([region.area for region in regions])
    output = open_map(run, "output")
    densities = DENSITIES.get(estimate["kind"], densities_of_values)
    amounts, known = sum_regions(output.cells, output.cell, regions, extent, densities)
    if densities is densities_of_values:
        amounts = np.divide(
            amounts, known[:, None], out=np.full_like(amounts, np.nan), where=known[:, None] > 0
        )
    if has_objects(run):
        amounts = count_objects(run, regions)
    return amounts, known


DENSITIES = {"count": densities_of_counts, "area": densities_of_best}
"""By the kind of an estimate; of others, values are averaged over the area."""


def count_objects(run: Exportable, regions: Sequence[Region]) -> Floats:
    """Return the number of detected objects by region and class, ``(n, k)``."""
    _, objects, classes = read_objects(run)
    centers, class_ids = objects.centers, objects.class_ids
    counts = np.zeros((len(regions), len(classes)))
    for row, region in zip(counts, regions, strict=True):
        box = region.bounds
        near = np.flatnonzero(
            ((centers >= (box.y, box.x)) & (centers <= (box.y1, box.x1))).all(axis=1)
        )
        found = class_ids[near[points_inside(region, centers[near])]]
        row[:] = np.bincount(found, minlength=len(classes))
    return counts


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


def part_costs(
    run: Exportable, regions: Sequence[Region | None], extent: Rect
) -> list[RegionCostDict]:
    """Return the cost within regions, each cell's shared by area; None stands for none."""
    cost = open_map(run, "cost")
    cells = np.nan_to_num(np.asarray(cost.cells[:], np.float64))  # at most 1024 cells a side
    totals = np.zeros((len(regions), len(cells)))
    known = [i for i, region in enumerate(regions) if region is not None]
    found = [region for region in regions if region is not None]
    totals[known] = sum_regions(cells, cost.cell, found, extent)[0]
    costs: list[RegionCostDict] = []
    for total in totals.tolist():
        amounts = dict(zip(cost.labels, total, strict=True))
        costs.append(
            {
                "flops": amounts["flops"],
                "seconds": sum(v for name, v in amounts.items() if name.endswith("_s")),
                "bytes_read": amounts["bytes"],
                "pixels_read": amounts["pixels"],
            }
        )
    return costs
