"""A head of one's own: fitted to the codes of a run, or of several."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from hrviewer.cli.common import JsonOption, app, command, parse_region, print_json, print_rows
from hrviewer.errors import HrviewerError
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
            parser=parse_region,
            metavar="Y,X,H,W",
            help="Where the truth is known; in all of the run's region otherwise.",
        ),
    ] = None,
    kind: Annotated[
        str | None, typer.Option("--class", help="Of the truth; all objects otherwise.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Fit a head to the codes of runs, from truth or labels."""
    from dataclasses import asdict

    from hrviewer.runs import FittedHead, Run, fit_head, fit_image_classifier

    fitted: FittedHead
    if task == "classification":
        from hrviewer.io.ground_truth.image_labels import find_image_label, read_image_labels

        if region is not None or kind is not None:
            raise HrviewerError(
                "an image's label is that of all of its run: --region and --class go"
            )
        given, opened = read_image_labels(truth), [Run(run) for run in runs]
        labels = [find_image_label(run.header["image"]["path"], given) for run in opened]
        fitted = fit_image_classifier(opened, labels, out)
    elif len(runs) > 1:
        raise HrviewerError("several runs are fitted to with --task classification only: give one")
    else:
        fitted = fit_head(Run(runs[0]), truth, out, task=task, region=region, class_name=kind)
    if as_json:
        print_json({**asdict(fitted), "path": str(fitted.path)})
        return
    print_rows(
        ("fitted to", fitted.training_summary),
        ("left out", fitted.validation_summary),
        ("use it", f"--strategy compression --model {fitted.path}+MODEL, where MODEL encoded"),
    )
