"""Command ``fit``: training of a head on the embeddings of compression runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from hrviewer.cli.common import JsonOption, app, command, parse_region, print_json, print_rows
from hrviewer.errors import ParameterError
from hrviewer.geometry import Rect

__all__ = ["fit"]


@command(app)
def fit(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN.run.zarr…")],
    truth: Annotated[
        str, typer.Option(metavar="FILE|auto", help="Ground truth: points, boxes or outlines.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder of the trained model.")],
    task: Annotated[
        Literal["density", "segmentation", "classification"],
        typer.Option(
            help="density counts objects; segmentation classifies areas, from labels of some; "
            "classification predicts an image's class, from several runs and a CSV of image and "
            "label."
        ),
    ] = "density",
    region: Annotated[
        Rect | None,
        typer.Option(
            parser=parse_region,
            metavar="Y,X,H,W",
            help="Annotated region, level-0 pixels; the run's whole region by default.",
        ),
    ] = None,
    kind: Annotated[
        str | None, typer.Option("--class", help="Class of the ground truth; all by default.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Train a head on the embeddings saved by compression runs."""
    from dataclasses import asdict

    from hrviewer.runs import FittedHead, Run, fit_head, fit_image_classifier

    fitted: FittedHead
    if task == "classification":
        from hrviewer.io.ground_truth.image_labels import find_image_label, read_image_labels

        if region is not None or kind is not None:
            raise ParameterError(
                "--task classification uses one label per image: leave out --region and --class"
            )
        by_image, opened_runs = read_image_labels(truth), [Run(run) for run in runs]
        labels = [find_image_label(run.header["image"]["path"], by_image) for run in opened_runs]
        fitted = fit_image_classifier(opened_runs, labels, out)
    elif len(runs) > 1:
        raise ParameterError("several runs need --task classification: name one run")
    else:
        fitted = fit_head(Run(runs[0]), truth, out, task=task, region=region, class_name=kind)
    if as_json:
        print_json({**asdict(fitted), "path": str(fitted.path)})
        return
    print_rows(
        ("trained on", fitted.training_summary),
        ("validation", fitted.validation_summary),
        (
            "use",
            f"--strategy compression --model {fitted.path}+MODEL, with MODEL the run's encoder",
        ),
    )
