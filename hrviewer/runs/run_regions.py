"""Regions and tissue of a run: the part of the image that counts, and its files in the folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from hrviewer.errors import ParameterError
from hrviewer.geometry import Rect
from hrviewer.io.atomic_write import replace_file
from hrviewer.io.exportable import Exportable
from hrviewer.io.geojson import as_geojson
from hrviewer.io.region_files import feature_of_region, read_regions
from hrviewer.pyramid import Pyramid
from hrviewer.regions import Region
from hrviewer.runs.completeness import data_notes
from hrviewer.runs.writer import reporting_disk_errors
from hrviewer.strategies import PlanContext

__all__ = [
    "REGIONS",
    "TISSUE",
    "UnfinishedRun",
    "area_notes",
    "counted_part",
    "counting_part",
    "read_parts",
    "write_parts",
]

REGIONS, TISSUE = "regions.geojson", "tissue.geojson"
"""Files in a run folder: the regions that were measured, and the tissue."""


@dataclass
class UnfinishedRun:
    """A run whose header is not written yet; see `Exportable`."""

    path: Path
    header: dict[str, Any]


def counting_part(
    image: Rect, region: Rect | None, regions: Sequence[Region], tissue: Region | None
) -> tuple[Rect | None, Region | None]:
    """Return the rectangle of a run, and the part of it that counts; None stands for all.

    Parameters
    ----------
    image : Rect
        The whole image.
    region : Rect, optional
        The region, if it is a rectangle.
    regions : sequence of Region
        What was drawn; only this counts, if there is any.
    tissue : Region, optional
        Only this counts, if given.

    Raises
    ------
    ParameterError
        If nothing is left.
    """
    part = Region.union(regions).clip(image) if regions else None
    if regions and part is None:
        raise ParameterError(
            f"the regions lie outside the image of {image.h} × {image.w} pixels: draw others"
        )
    within = (image if region is None else region & image) if part is None else part.bounds
    if part is not None and part.area == within.area:
        part = None
    if tissue is not None:
        inside = tissue.clip(within)
        part = inside if part is None or inside is None else inside.intersect(part)
        if part is None:
            raise ParameterError("there is no tissue in the region: choose tissue=off")
    return (region if part is None and not regions else within), part


def extent_notes(image: Rect, region: Rect | None) -> list[str]:
    """Return a note on a region that is not all inside its image.

    Examples
    --------
    >>> extent_notes(Rect(0, 0, 100, 100), Rect(50, 0, 100, 100))
    ['the region reaches beyond the image: 50 × 100 of its 100 × 100 pixels are inside']
    """
    if region is None or region & image == region:
        return []
    inside = region & image
    sizes = f"{inside.h:,} × {inside.w:,} of its {region.h:,} × {region.w:,} pixels are inside"
    return [f"the region reaches beyond the image: {sizes}"]


def counted_part(run: Exportable) -> Region | None:
    """Return the part of a run's rectangle that counts; None if all of it does."""
    regions, tissue = read_parts(run)
    if not regions and tissue is None:
        return None
    image = Rect(0, 0, *run.header["image"]["shape"])
    return counting_part(image, Rect(*run.header["region"]), regions, tissue)[1]


def write_parts(folder: Path, regions: Sequence[Region], tissue: Region | None) -> None:
    """Write the regions and the tissue of a run into its folder."""
    for name, parts in ((REGIONS, regions), (TISSUE, [tissue] if tissue else [])):
        if parts:
            features = [
                as_geojson(feature_of_region(part, i), uuid5(NAMESPACE_URL, f"hrviewer:{i}"))
                for i, part in enumerate(parts)
            ]
            content = {"type": "FeatureCollection", "features": features}
            with reporting_disk_errors(folder):
                replace_file(folder / name, json.dumps(content).encode("utf-8"))


def read_parts(run: Exportable) -> tuple[list[Region], Region | None]:
    """Read the regions and the tissue of a run; none where it has no such file."""
    height, width = run.header["image"]["shape"]
    found = [
        read_regions(path, run.header["image"]["path"], (height, width)) if path.is_file() else []
        for path in (run.path / REGIONS, run.path / TISSUE)
    ]
    return found[0], found[1][0] if found[1] else None


def area_notes(
    pyramid: Pyramid,
    region: Rect | None,
    tissue: Region | None,
    context: PlanContext,
    result: Mapping[str, Any],
    skipped: int,
) -> list[str]:
    """Return notes on what of the region counts: data, tissue, and what skipping the rest saved."""
    notes = extent_notes(pyramid.rect, region)
    notes += data_notes(pyramid, result["data_area"], context.area)
    if tissue is None:
        return notes
    share = context.area / context.region.area
    saved = f"{skipped:,} patches without any were skipped" if skipped else "no patch was skipped"
    missed = "nothing outside of it is counted, nor is tissue that its outline lacks"
    return [*notes, f"tissue is {share:.1%} of the region: {saved}; {missed}; densities are of it"]
