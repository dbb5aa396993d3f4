"""A head of one's own: fitted to the codes of a run, or of several."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from hrviewer.cli.common import Json, app, command, region_of, say, say_json
from hrviewer.errors import UserError
from hrviewer.geometry import Rect

__all__ = ["fit"]


@command(app)
def fit(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN.run.zarr…")],
    truth: Annotated[
        str, typer.Option(metavar="FILE|auto", help="What is there: points, boxes or outlines.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The pack that the head makes.")],
    task: Annotated[
        Literal["density", "segmentation", "classification"],
        typer.Option(
            help="density counts objects; segmentation says what places are, from labels of some; "
            "classification what an image is, from several runs and a CSV of image and label."
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
    """Fit a head to the codes of runs, from truth or labels."""
    from dataclasses import asdict

    from hrviewer.runs import Fitted, Run, fit_head, fit_images

    fitted: Fitted
    if task == "classification":
        from hrviewer.io.ground_truth.image_labels import label_of, read_image_labels

        if region is not None or kind is not None:
            raise UserError("an image's label is that of all of its run: --region and --class go")
        given, opened = read_image_labels(truth), [Run(run) for run in runs]
        labels = [label_of(run.header["image"]["path"], given) for run in opened]
        fitted = fit_images(opened, labels, out)
    elif len(runs) > 1:
        raise UserError("several runs are fitted to with --task classification only: give one")
    else:
        fitted = fit_head(Run(runs[0]), truth, out, task=task, region=region, kind=kind)
    if as_json:
        say_json({**asdict(fitted), "path": str(fitted.path)})
        return
    say(
        ("fitted to", fitted.learned),
        ("left out", fitted.left_out),
        ("use it", f"--strategy compression --model {fitted.path}+MODEL, where MODEL encoded"),
    )
