"""Command ``measure``: regions measured on the maps of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hrviewer.cli.common import JsonOption, app, command, print_json, print_rows

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
    from hrviewer.runs.region_table import describe_region, write_region_table
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
