"""A head of one's own: fitted to the codes of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hrviewer.cli.plumbing import Json, app, command, region_of, say, say_json
from hrviewer.geometry import Rect

__all__ = ["fit"]


@command(app)
def fit(
    run: Annotated[Path, typer.Argument(metavar="RUN.run.zarr")],
    truth: Annotated[
        str, typer.Option(metavar="FILE|auto", help="What is there: points or boxes.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The pack that the head makes.")],
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
    """Fit a head to the codes of a run, from truth."""
    from dataclasses import asdict

    from hrviewer.runs import Run, fit_head

    fitted = fit_head(Run(run), truth, out, region=region, kind=kind)
    if as_json:
        say_json({**asdict(fitted), "path": str(fitted.path)})
        return
    errors = (
        f"error {fitted.error:.1%} of a block's count, sum off by {fitted.bias:+.1%}, "
        f"correlation {fitted.correlation:.3f}"
    )
    say(
        ("fitted to", f"{fitted.objects:,} objects in {fitted.cells:,} cells"),
        ("left out", errors),
        ("use it", f"--strategy compression --model {fitted.path}+MODEL, where MODEL encoded"),
    )
