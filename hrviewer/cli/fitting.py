"""A head of one's own: fitted to the codes of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from hrviewer.cli.plumbing import Json, app, command, region_of, say, say_json
from hrviewer.geometry import Rect

__all__ = ["fit"]


@command(app)
def fit(
    run: Annotated[Path, typer.Argument(metavar="RUN.run.zarr")],
    truth: Annotated[
        str, typer.Option(metavar="FILE|auto", help="What is there: points, boxes or outlines.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The pack that the head makes.")],
    task: Annotated[
        Literal["density", "segmentation"],
        typer.Option(
            help="density counts objects; segmentation says what places are, from labels of some."
        ),
    ] = "density",
    region: Annotated[
        Rect | None,
        typer.Option(
            parser=region_of,
            metavar="Y,X,H,W",
            help="Where the truth is known; in all of the run's region otherwise.",
        ),
    ] = None,
    kind: Annotated[
        str | None, typer.Option("--class", help="Of the truth; all objects otherwise.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Fit a head to the codes of a run, from truth or from labels."""
    from dataclasses import asdict

    from hrviewer.runs import Run, fit_head

    fitted = fit_head(Run(run), truth, out, task=task, region=region, kind=kind)
    if as_json:
        say_json({**asdict(fitted), "path": str(fitted.path)})
        return
    say(
        ("fitted to", fitted.learned),
        ("left out", fitted.left_out),
        ("use it", f"--strategy compression --model {fitted.path}+MODEL, where MODEL encoded"),
    )
