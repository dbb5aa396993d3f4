"""Command ``hot-spots``: the fields of a run that have most objects."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hrviewer.cli.common import JsonOption, app, command, print_json, print_rows

__all__ = ["hot_spots"]


@command(app, name="hot-spots")
def hot_spots(
    run: Annotated[Path, typer.Argument(metavar="RUN.run.zarr")],
    size: Annotated[
        str,
        typer.Option("--size", metavar="AREA", help="Area of a field: 0.2mm2, 1ha, 250000px."),
    ] = "1mm2",
    number: Annotated[int, typer.Option("--number", "-n", min=1, max=1000)] = 5,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="FILE", help="New table, .csv or .parquet, or .geojson."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the fields of a run that have most objects, without overlap, the fullest first."""
    from hrviewer.io.atomic_write import require_new_path
    from hrviewer.runs import Run
    from hrviewer.runs.hot_spots import hot_spots as find
    from hrviewer.runs.hot_spots import indistinct_ranks, parse_field_size
    from hrviewer.runs.region_table import describe_region, write_region_table

    if out is not None:
        require_new_path(out)
    opened = Run(run)
    regions, rows = find(opened, parse_field_size(size, opened.pixel_size), number)
    doubtful = indistinct_ranks(rows)
    if out is not None:
        path = write_region_table(out, regions, rows, opened.pixel_size)
    if as_json:
        print_json({"run": str(opened.path), "hot_spots": rows, "indistinct_ranks": doubtful})
    elif out is not None:
        typer.echo(path)
    else:
        print_rows(
            *((row["name"], describe_region(row, opened.pixel_size)) for row in rows),
            *(("note", f"ranks {a} and {b} cannot be distinguished") for a, b in doubtful),
        )
