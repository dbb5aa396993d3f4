"""Heads for codes of any encoder, fitted in seconds to what a person gives.

`kept` is what a head is fitted to; `counts` learns how many objects there are, from truth, by
ridge regression; `classes` what a place is, from labels, by logistic regression; `images` what a
whole image is, from one label for each of several, by attention; `writing` makes a pack of a head.
All say how wrong they are where they were not fitted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from hrviewer.errors import HrviewerError
from hrviewer.geometry import Rect
from hrviewer.ground_truth import GroundTruth
from hrviewer.io.features import Feature
from hrviewer.io.ground_truth import read_features
from hrviewer.pyramid import open_pyramid
from hrviewer.runs.evaluation import load_ground_truth
from hrviewer.runs.heads.counting_head import fit_counting_head
from hrviewer.runs.heads.embeddings import Embeddings, read_embeddings
from hrviewer.runs.heads.image_classifier import fit_image_classifier
from hrviewer.runs.heads.place_classifier import fit_place_classifier
from hrviewer.runs.heads.save_bundle import FittedHead
from hrviewer.runs.run import Run

__all__ = [
    "Embeddings",
    "FitTask",
    "FittedHead",
    "fit_counting_head",
    "fit_head",
    "fit_image_classifier",
    "fit_place_classifier",
    "read_embeddings",
]

FitTask = Literal["density", "segmentation"]


def fit_head(
    run: Run,
    truth: str | Path | GroundTruth,
    out: Path,
    *,
    task: FitTask = "density",
    region: Rect | None = None,
    class_name: str | None = None,
) -> FittedHead:
    """Fit a head to the codes that a run kept, and write it as a pack.

    Parameters
    ----------
    run : Run
        Of the strategy ``compression``, with or without a head.
    truth : str, Path or Truth
        ``auto`` for a scene's own, a file of points, boxes or outlines, or the objects.
    out : Path
        The pack's folder; nothing may be there yet.
    task : {"density", "segmentation"}
        How many objects there are, or what a place is: then the truth labels places, by points
        or outlines, and may leave others out.
    region : Rect, optional
        Where the truth is known, in level-0 pixels; the run's region by default.
    class_name : str, optional
        The class that is counted; all objects by default.

    Raises
    ------
    UserError
        If the run kept no codes, there is nothing to fit to, or scikit-learn is missing.
    """
    kept = read_embeddings(run)
    where = run.region if region is None else region & run.region
    if task == "segmentation":
        if class_name is not None:
            raise HrviewerError("a class is chosen to be counted: a map of classes has all of them")
        return fit_place_classifier(kept, read_labels(run, truth), out, region=where)
    objects = truth
    if not isinstance(objects, GroundTruth):
        with open_pyramid(run.header["image"]["path"]) as pyramid:
            objects = load_ground_truth(objects, pyramid)
    return fit_counting_head(kept, objects, out, region=where, class_name=class_name)


def read_labels(run: Run, truth: str | Path | GroundTruth) -> list[Feature]:
    """Return what is labelled, with its outlines where they are told."""
    if not isinstance(truth, GroundTruth) and str(truth) != "auto":
        return read_features(truth, run.header["image"]["path"], run.image_shape)
    if not isinstance(truth, GroundTruth):
        with open_pyramid(run.header["image"]["path"]) as pyramid:
            truth = load_ground_truth(truth, pyramid)
    points: list[list[float]] = truth.points.tolist()
    return [
        Feature("point", truth.classes[k], point=(y, x))
        for (y, x), k in zip(points, truth.class_ids, strict=True)
    ]
