"""Command ``measure``: regions measured on the maps of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hrviewer.cli.common import JsonOption, app, command, print_json, print_rows
from hrviewer.errors import ParameterError

if TYPE_CHECKING:
    from hrviewer.regions import Region
    from hrviewer.runs import Run
    from hrviewer.runs.agreement import Agreement

__all__ = ["measure"]


@command(app)
def measure(
    run: Annotated[Path, typer.Argument(metavar="RUN.run.zarr")],
    regions: Annotated[
        list[Path],
        typer.Argument(
            metavar="REGIONS…",
            help="Files of regions: GeoJSON, COCO, DSA, GeoPackage, shapefile, label map, CSV.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="FILE", help="New table, .csv or .parquet, or .geojson."
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="RUN|FILE|auto",
            help="Another run of the image, or ground truth: differences by region.",
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE.png", help="New plot of those differences."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure regions on the maps of a run: counts, areas, densities and cost of each."""
    from hrviewer.io.atomic_write import atomic_path, require_new_path
    from hrviewer.io.figures.plots import plot_agreement
    from hrviewer.runs import Run
    from hrviewer.runs.region_measurement import measure_regions
    from hrviewer.runs.region_table import describe_region, write_region_table

    if plot is not None and against is None:
        raise ParameterError("a plot is of differences: name the run or ground truth, --against")
    for path in filter(None, (out, plot)):
        require_new_path(path)
    opened = Run(run)
    found = opened.resolve_regions([*regions])
    rows = measure_regions(opened, found)
    agreement = None if against is None else compared(opened, against, found)
    if plot is not None and agreement is not None:
        with atomic_path(plot) as part:
            part.write_bytes(plot_agreement({f"{opened.path.stem} − {against}": agreement}))
    if out is not None:
        path = write_region_table(out, found, rows, opened.pixel_size)
    if as_json:
        compared_rows = {} if agreement is None else {"agreement": agreement.to_dict()}
        print_json({"run": str(opened.path), "regions": rows, **compared_rows})
    elif out is not None:
        typer.echo(path)
    else:
        print_rows(*((row["name"], describe_region(row, opened.pixel_size)) for row in rows))
        if agreement is not None:
            low, high = agreement.limits
            print_rows(
                *(
                    (
                        f"{each['name']}",
                        f"{each['difference']:+,.4g} against {each['reference']:,.4g}",
                    )
                    for each in agreement.table.to_dict("records")
                ),
                (
                    "mean",
                    f"{agreement.bias:+,.4g}; limits of agreement {low:+,.4g} to {high:+,.4g}",
                ),
            )


def compared(run: Run, against: str, regions: list[Region]) -> Agreement:
    """Return the agreement of a run with another one, or with ground truth."""
    from hrviewer.pyramid import reopen_pyramid
    from hrviewer.runs import Run
    from hrviewer.runs.agreement import region_agreement
    from hrviewer.runs.evaluation import load_ground_truth

    if against.endswith(".run.zarr"):
        return region_agreement(run, Run(against), regions)
    with reopen_pyramid(run.header["image"]) as pyramid:
        return region_agreement(run, load_ground_truth(against, pyramid), regions)
