"""Command ``measure``: regions measured on the maps of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hrviewer.cli.common import JsonOption, app, command, print_json, print_rows

if TYPE_CHECKING:
    from hrviewer.runs.region_measurement import RegionDict

__all__ = ["measure"]


@command(app)
def measure(
    run: Annotated[Path, typer.Argument(metavar="RUN.run.zarr")],
    regions: Annotated[
        list[Path],
        typer.Argument(metavar="REGIONS…", help="Files of regions: GeoJSON, COCO, DSA, CSV."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="FILE", help="New table, .csv or .parquet, or .geojson."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure regions on the maps of a run: counts, areas, densities and cost of each."""
    from hrviewer.io.atomic_write import require_new_path
    from hrviewer.runs import Run
    from hrviewer.runs.region_measurement import measure_regions
    from hrviewer.runs.region_table import write_region_table
    from hrviewer.runs.settings import resolve_regions

    if out is not None:
        require_new_path(out)
    opened = Run(run)
    found = resolve_regions(regions, opened.header["image"]["path"], opened.image_shape)
    rows = measure_regions(opened, found)
    if out is not None:
        path = write_region_table(out, found, rows, opened.pixel_size)
    if as_json:
        print_json({"run": str(opened.path), "regions": rows})
    elif out is not None:
        typer.echo(path)
    else:
        print_rows(*((row["name"], describe_region(row, opened.pixel_size)) for row in rows))


def describe_region(row: RegionDict, pixel_size: tuple[float, float] | None) -> str:
    """Return the estimate and the area of a region as text."""
    from hrviewer.formatting import format_part
    from hrviewer.runs import format_estimate
    from hrviewer.units import format_area

    area = format_area(row["area"], pixel_size)
    if row["estimate"] is None:
        return f"no estimate: {format_part(row['coverage'])} of {area} has predictions"
    return f"{format_estimate(row['estimate'])}; in {area}"
