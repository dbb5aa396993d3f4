"""Evaluation of runs against ground truth."""

from __future__ import annotations

from collections.abc import Callable, Container
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.errors import GroundTruthError
from hrviewer.geometry import Rect
from hrviewer.ground_truth import GroundTruth
from hrviewer.io.ground_truth import ImageRef, is_label_map, read_ground_truth
from hrviewer.io.ground_truth.datasets import find_ground_truth
from hrviewer.io.ground_truth.label_maps import iter_windows, open_labels
from hrviewer.io.ground_truth.slide_tables import SlideAnswer, read_slide_table
from hrviewer.io.object_table import has_objects, read_objects
from hrviewer.models import ModelCard
from hrviewer.objects import CANDIDATE_SCORE
from hrviewer.pyramid import Pyramid
from hrviewer.regions import points_inside
from hrviewer.runs.class_agreement import ClassDice, read_at
from hrviewer.runs.estimates import EvaluationDict
from hrviewer.runs.metrics import (
    GAME_LEVELS,
    average_precision,
    grid_counts,
    grid_errors,
    match_points,
    peaks,
    point_counts,
)
from hrviewer.runs.object_metrics import compares_outlines, has_boxes, object_precision
from hrviewer.runs.run import Run
from hrviewer.runs.run_regions import counted_part

__all__ = [
    "Evaluator",
    "evaluate_count",
    "load_ground_truth",
    "make_evaluator",
    "run_counts",
    "select_classes",
]

PEAKS_PER_OBJECT = 20
"""Peaks per object that are ranked: a precision below 1 in 20 contributes nothing."""

NO_COUNT: EvaluationDict = {"value": None, "error": None, "game": None, "source": ""}
"""Evaluation of a run that counts nothing, to be completed."""

Evaluator = Callable[[Run], EvaluationDict]
"""Evaluates a run; the result is ``Run.evaluation``."""


def make_evaluator(
    truth: str | Path | GroundTruth | None, pyramid: Pyramid, card: ModelCard | None
) -> Evaluator | None:
    """Return a function that evaluates runs; the ground truth is read before any inference.

    Parameters
    ----------
    truth : str, Path, GroundTruth or None
        ``auto`` for that of a synthetic image, a file, a folder of files named like their images,
        or the objects; None without ground truth.
    pyramid : Pyramid
        The image.
    card : ModelCard, optional
        Card of the answering model.

    Raises
    ------
    HrviewerError
        If there is no such ground truth, or the model's task has none.
    """
    if truth is None or card is None:
        return None
    if not isinstance(truth, GroundTruth):
        truth = file_for_image(truth, pyramid)
    table = not isinstance(truth, GroundTruth) and Path(truth).suffix.lower() == ".csv"
    if card.task == "regression" or (card.averaged and table):
        return make_slide_evaluator(truth, pyramid, card)
    if card.task == "segmentation" or card.averaged:
        return make_dice_evaluator(truth, pyramid, card)
    if not card.counts:
        raise GroundTruthError(
            f"{card.name!r} has the task {card.task}: its runs cannot be evaluated; leave out the "
            "ground truth"
        )
    objects = select_classes(load_ground_truth(truth, pyramid), card.output.classes)
    return lambda run: evaluate_count(run, objects)


def file_for_image(truth: str | Path, pyramid: Pyramid) -> str | Path:
    """Return an image's ground truth file in a folder of them."""
    if is_label_map(truth):
        return truth
    folder = Path(truth).expanduser()
    return find_ground_truth(folder, pyramid.path or pyramid.name) if folder.is_dir() else truth


def load_ground_truth(truth: str | Path | GroundTruth, pyramid: Pyramid) -> GroundTruth:
    """Return the objects of an image.

    Raises
    ------
    HrviewerError
        If they are not known, or the file belongs to another image.
    """
    if isinstance(truth, GroundTruth):
        return truth
    truth = file_for_image(truth, pyramid)
    if str(truth) == "auto":
        known = pyramid.ground_truth(pyramid.rect)
        if known is None:
            raise GroundTruthError(
                f"{pyramid.name} has no ground truth of its own, only synthetic images (sample:…) "
                "have: give a file"
            )
        return known
    return read_ground_truth(truth, pyramid.path or pyramid.name, pyramid.plane_shape)


def select_classes(truth: GroundTruth, known: Container[str]) -> GroundTruth:
    """Return the objects of the classes that a model has; all if no name is shared."""
    shared = [i for i, name in enumerate(truth.classes) if name in known]
    if not shared:
        return truth
    return truth.select(np.isin(truth.class_ids, shared))


def evaluate_count(run: Run, truth: GroundTruth) -> EvaluationDict:
    """Return a count's error, its GAME over the run's region, and its average precision.

    The last two are not given where only a part of the region was processed, or only a part of
    its rectangle counts. Where the ground truth has boxes, the precision is COCO's of a detector's
    boxes; of its outlines where both have any. Of a density, its peaks count as detections, the
    highest first, as in the evaluation of crowd localisation (Idrees et al., *Composition Loss for
    Counting, Density Map Estimation and Localization in Dense Crowds*, ECCV 2018).
    """
    inside, part = truth.clip(run.region), counted_part(run)
    if part is not None:
        inside = inside.select(points_inside(part, inside.points))
    cells, cell = run.map("output")
    whole = run.coverage >= 100 and part is None  # elsewhere the map is empty, or does not count
    value = None if run.estimate is None else run.estimate["value"]
    n = 2 ** max(GAME_LEVELS)
    expected = point_counts(inside.points, run.region, n)
    errors = grid_errors(run_counts(run, n), expected, GAME_LEVELS)
    evaluation: EvaluationDict = {
        "value": len(inside),
        "error": None if value is None else value - len(inside),
        "game": {str(level): error for level, error in errors.items()} if whole else None,
        "source": truth.source,
    }
    if whole and has_objects(run) and has_boxes(inside):
        _, objects, classes = read_objects(run, score=CANDIDATE_SCORE)
        evaluation["average_precision"] = object_precision(objects, classes, inside)
        outlined = compares_outlines(objects, inside)
        evaluation["average_precision_of"] = "outlines" if outlined else "boxes"
        return evaluation
    if whole and inside.boxes is not None:
        evaluation["precision"] = localization_precision(cells, cell, run.region, inside)
    return evaluation


def run_counts(run: Run, n: int) -> NDArray[np.float64]:
    """Return the counts of a run in n × n equal parts of its region."""
    if has_objects(run):
        return point_counts(read_objects(run)[1].centers, run.region, n)
    return grid_counts(*run.map("output"), run.region, n)


def localization_precision(
    cells: Any, cell: float, region: Rect, truth: GroundTruth
) -> float | None:
    """Return the average precision of a density's peaks; None without objects."""
    if truth.boxes is None or not len(truth):
        return None
    # Lower peaks do not change the result.
    points, heights = peaks(cells, cell, region, PEAKS_PER_OBJECT * len(truth))
    return average_precision(match_points(points, truth.boxes), heights, len(truth))


def make_dice_evaluator(
    truth: str | Path | GroundTruth, pyramid: Pyramid, card: ModelCard
) -> Evaluator:
    """Return a function that evaluates class maps against a label map."""
    if isinstance(truth, GroundTruth) or not is_label_map(truth):
        wanted = "a label map of class numbers, a TIFF or OME-Zarr"
        if card.task != "segmentation":
            wanted += ", or a CSV with a row per image, for the answer as a whole"
        raise GroundTruthError(f"{card.name!r}: the ground truth of a {card.task} is {wanted}")
    path = Path(truth).expanduser()
    if not path.exists():
        raise GroundTruthError(f"there is no ground truth in {path}: no such file or folder")
    image_ref = ImageRef(pyramid.path or pyramid.name, pyramid.plane_shape)
    open_labels(path, image_ref).close()
    names = list(card.output.classes) or [f"class {i}" for i in range(card.output_channels)]
    exclusive = len(names) > 1 and card.task != "multi-label"
    return lambda run: evaluate_dice(run, path, image_ref, ClassDice(names, exclusive=exclusive))


def evaluate_dice(run: Run, path: Path, image_ref: ImageRef, scores: ClassDice) -> EvaluationDict:
    """Return the Dice coefficient of every class, pixel by pixel over the run's region.

    A pixel of the label map holds the number of its class in the card; with a single class, it
    holds 1 inside it. A pixel outside the processed patches is of no class.
    """
    cells, cell = run.map("output")
    single, part = len(scores.names) == 1, counted_part(run)
    with open_labels(path, image_ref) as labels:
        for window in iter_windows(labels.plane_shape):
            rect = window & run.region
            if rect.empty:
                continue
            expected = labels.levels[0].read(rect.y, rect.y1, rect.x, rect.x1)[..., 0]
            expected = expected.astype(np.int64) - single
            ys, xs = (np.arange(a, b) + 0.5 for a, b in ((rect.y, rect.y1), (rect.x, rect.x1)))
            predicted = read_at(cells, cell, ys, xs)
            if part is not None:
                places = np.stack(np.meshgrid(ys, xs, indexing="ij"), axis=-1).reshape(-1, 2)
                inside = points_inside(part, places).reshape(expected.shape)
                predicted, expected = predicted[:, inside][:, None], expected[inside][None]
            scores.add(predicted, expected)
    return NO_COUNT | {"dice": scores.dice(), "source": str(path)}


def make_slide_evaluator(
    truth: str | Path | GroundTruth, pyramid: Pyramid, card: ModelCard
) -> Evaluator:
    """Return a function that evaluates answers for an image as a whole."""
    if isinstance(truth, GroundTruth) or Path(truth).suffix.lower() != ".csv":
        raise GroundTruthError(
            f"{card.name!r}: the ground truth of a {card.task} is a CSV with a row per image"
        )
    path = Path(truth).expanduser()
    if not path.exists():
        raise GroundTruthError(f"there is no ground truth in {path}: no such file")
    answer = read_slide_table(path, pyramid.path or pyramid.name, card.output.classes)
    return lambda run: evaluate_slide(run, answer, path)


def evaluate_slide(run: Run, answer: SlideAnswer, path: Path) -> EvaluationDict:
    """Return the error of a run's answer for its image as a whole.

    It is 1 or 0 for a wrong or right class, the difference of the first quantity, and the mean
    absolute difference of several labels.
    """
    evaluation: EvaluationDict = NO_COUNT | {"source": str(path)}
    if run.estimate is None:
        return evaluation
    found = run.estimate["per_class"]
    if answer.label:
        best = max(found, key=lambda name: found[name])
        return evaluation | {"label": answer.label, "error": float(best != answer.label)}
    errors = {name: found[name] - value for name, value in answer.values.items()}
    if run.estimate["kind"] == "mean":
        name = next(iter(errors))
        return evaluation | {
            "value": answer.values[name],
            "error": errors[name],
            "class_error": errors,
        }
    mean = sum(map(abs, errors.values())) / len(errors)
    return evaluation | {"error": mean, "class_error": errors}
