"""Heads on the embeddings of any encoder, fitted in seconds to a user's annotations.

`counting_head` predicts counts, from ground truth, by ridge regression; `place_classifier` the
class of a place, from labels, by logistic regression; `image_classifier` the class of an image,
from one label per image, by attention pooling. All are cross-validated. `embeddings` reads the
embeddings of a run, `save_bundle` writes a head as a model bundle.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from hrviewer.errors import ParameterError
from hrviewer.geometry import Rect
from hrviewer.ground_truth import GroundTruth
from hrviewer.io.features import Feature
from hrviewer.io.ground_truth import read_features
from hrviewer.pyramid import reopen_pyramid
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
    """Fit a head to the embeddings of a run, and write it as a model bundle.

    Parameters
    ----------
    run : Run
        A run of the strategy ``compression``, with or without a head.
    truth : str, Path or GroundTruth
        Ground truth: ``auto`` for that of a synthetic image, a file of points, boxes or outlines,
        or the objects.
    out : Path
        Folder of the model bundle; it must not exist.
    task : {"density", "segmentation"}
        Counts of objects, or classes of places: then the ground truth labels some places, by
        points or outlines.
    region : Rect, optional
        The annotated area, in level-0 pixels; the run's region by default.
    class_name : str, optional
        The class to count; all objects by default.

    Raises
    ------
    HrviewerError
        If the run has no embeddings, there is too little to fit to, or scikit-learn is missing.
    """
    embeddings = read_embeddings(run)
    annotated = run.region if region is None else region & run.region
    if task == "segmentation":
        if class_name is not None:
            raise ParameterError(
                "class_name is for counts: a segmentation head predicts all classes"
            )
        return fit_place_classifier(embeddings, read_labels(run, truth), out, region=annotated)
    objects = truth
    if not isinstance(objects, GroundTruth):
        with reopen_pyramid(run.header["image"]) as pyramid:
            objects = load_ground_truth(objects, pyramid)
    return fit_counting_head(embeddings, objects, out, region=annotated, class_name=class_name)


def read_labels(run: Run, truth: str | Path | GroundTruth) -> list[Feature]:
    """Return labelled points and outlines."""
    if not isinstance(truth, GroundTruth) and str(truth) != "auto":
        return read_features(truth, run.header["image"]["path"], run.image_shape)
    if not isinstance(truth, GroundTruth):
        with reopen_pyramid(run.header["image"]) as pyramid:
            truth = load_ground_truth(truth, pyramid)
    points: list[list[float]] = truth.points.tolist()
    return [
        Feature("point", truth.classes[k], point=(y, x))
        for (y, x), k in zip(points, truth.class_ids, strict=True)
    ]
