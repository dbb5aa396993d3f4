"""Files out: runs as other tools read them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hrviewer.cli.plumbing import app, command

__all__ = ["export"]


@command(app)
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN.run.zarr")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where; nothing may be there yet.")],
    to: Annotated[
        str | None, typer.Option(help="geojson or ome-zarr; by the name's ending otherwise.")
    ] = None,
) -> None:
    """Write a run as GeoJSON (patches) or OME-Zarr (maps)."""
    from hrviewer.exchange import export
    from hrviewer.runs import Run

    typer.echo(export(Run(run), out, to))
