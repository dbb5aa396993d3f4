"""Measuring a run against what is really there."""

from __future__ import annotations

from collections.abc import Callable, Container
from pathlib import Path
from typing import Any

import numpy as np

from hrviewer.errors import HrviewerError
from hrviewer.geometry import Rect
from hrviewer.ground_truth import GroundTruth
from hrviewer.io.ground_truth import ImageRef, is_label_map, read_ground_truth
from hrviewer.io.ground_truth.datasets import find_ground_truth
from hrviewer.io.ground_truth.label_maps import iter_windows, open_labels
from hrviewer.models import ModelCard
from hrviewer.pyramid import Pyramid
from hrviewer.runs.metrics import (
    GAME_LEVELS,
    DiceAccumulator,
    average_precision,
    game,
    match_points,
    peaks,
)
from hrviewer.runs.run import Run

__all__ = ["Evaluator", "evaluate_count", "load_ground_truth", "make_evaluator", "select_classes"]

PEAKS_PER_OBJECT = 20
"""Peaks that are asked for each object: below a precision of 1 in 20 nothing is gained."""

Evaluator = Callable[[Run], dict[str, Any]]
"""Says of a run what ``truth`` holds in its header."""


def make_evaluator(
    truth: str | Path | GroundTruth | None, pyramid: Pyramid, card: ModelCard | None
) -> Evaluator | None:
    """Return what will measure a run; the truth is found and read before anything is spent.

    Parameters
    ----------
    truth : str, Path, Truth or None
        ``auto`` for the image's own, a file, a folder of files named as images are, or the
        objects; None if nobody knows.
    pyramid : Pyramid
        The image.
    card : Card, optional
        Of the network that answers.

    Raises
    ------
    UserError
        If there is no such truth, or the network's task has none.
    """
    if truth is None or card is None:
        return None
    if not isinstance(truth, GroundTruth):
        truth = file_for_image(truth, pyramid)
    if card.task == "segmentation":
        return make_dice_evaluator(truth, pyramid, card)
    if card.task not in ("density", "detection"):
        raise HrviewerError(f"{card.name} neither counts nor segments: no truth can be told of it")
    objects = select_classes(load_ground_truth(truth, pyramid), card.output.classes)
    return lambda run: evaluate_count(run, objects)


def file_for_image(truth: str | Path, pyramid: Pyramid) -> str | Path:
    """Return an image's own file where a folder of them is given."""
    if is_label_map(truth):
        return truth
    folder = Path(truth).expanduser()
    return find_ground_truth(folder, pyramid.path or pyramid.name) if folder.is_dir() else truth


def load_ground_truth(truth: str | Path | GroundTruth, pyramid: Pyramid) -> GroundTruth:
    """Return an image's objects.

    Raises
    ------
    UserError
        If nobody knows them, or the file is not this image's.
    """
    if isinstance(truth, GroundTruth):
        return truth
    truth = file_for_image(truth, pyramid)
    if str(truth) == "auto":
        known = pyramid.ground_truth(pyramid.rect)
        if known is None:
            raise HrviewerError(
                f"{pyramid.name} does not know its truth, as scenes (sample:…) do: give a file"
            )
        return known
    return read_ground_truth(truth, pyramid.path or pyramid.name, pyramid.shape)


def select_classes(truth: GroundTruth, known: Container[str]) -> GroundTruth:
    """Return the objects of the classes that a network knows; all if it shares no name."""
    shared = [i for i, name in enumerate(truth.classes) if name in known]
    if not shared:
        return truth
    return truth.select(np.isin(truth.class_ids, shared))


def evaluate_count(run: Run, truth: GroundTruth) -> dict[str, Any]:
    """Return a count's error, its GAME over the run's region, and how well its peaks find things.

    Where the truth has boxes, the map's peaks, the highest first, are taken for finds, as the
    localisation of crowds is judged (Idrees et al., *Composition Loss for Counting, Density Map
    Estimation and Localization in Dense Crowds*, ECCV 2018).
    """
    inside = truth.clip(run.region)
    cells, cell = run.map("output")
    value = None if run.estimate is None else run.estimate["value"]
    return {
        "value": len(inside),
        "error": None if value is None else value - len(inside),
        "game": {
            str(level): off
            for level, off in game(cells, cell, inside.points, run.region, GAME_LEVELS).items()
        },
        **(
            {}
            if inside.boxes is None
            else {"precision": localization_precision(cells, cell, run.region, inside)}
        ),
        "source": truth.source,
    }


def localization_precision(
    cells: Any, cell: float, region: Rect, truth: GroundTruth
) -> float | None:
    """Return the average precision of a density's peaks; None where there is nothing to find."""
    if truth.boxes is None or not len(truth):
        return None
    # What is ranked below so many has no say in it.
    points, heights = peaks(cells, cell, region, PEAKS_PER_OBJECT * len(truth))
    return average_precision(match_points(points, truth.boxes), heights, len(truth))


def make_dice_evaluator(
    truth: str | Path | GroundTruth, pyramid: Pyramid, card: ModelCard
) -> Evaluator:
    """Return what measures a segmentation: the class map must be there and fit."""
    if isinstance(truth, GroundTruth) or not is_label_map(truth):
        raise HrviewerError(
            f"{card.name} segments: its truth is a map of its classes' numbers, a TIFF or OME-Zarr"
        )
    path = Path(truth).expanduser()
    if not path.exists():
        raise HrviewerError(f"there is no truth in {path}: no such file or folder")
    asked = ImageRef(pyramid.path or pyramid.name, pyramid.shape)
    open_labels(path, asked).close()
    names = list(card.output.classes) or [f"class {i}" for i in range(card.output_channels)]
    return lambda run: evaluate_dice(run, path, asked, names)


def evaluate_dice(run: Run, path: Path, image_ref: ImageRef, names: list[str]) -> dict[str, Any]:
    """Return the Dice coefficient of every class, pixel by pixel over the run's region.

    A pixel of the truth holds its class's number in the card; of a single class it holds 1 where
    it is. A pixel that was never looked at is of no class.
    """
    cells, cell = run.map("output")
    found = DiceAccumulator(len(names))
    with open_labels(path, image_ref) as labels:
        for window in iter_windows(labels.shape):
            rect = window & run.region
            if rect.empty:
                continue
            told = labels.levels[0].read(rect.y, rect.y1, rect.x, rect.x1)[..., 0].astype(np.int64)
            if len(names) == 1:
                told = np.where(told == 1, 0, -1)
            rows = (np.arange(rect.y, rect.y1) / cell).astype(np.intp)
            columns = (np.arange(rect.x, rect.x1) / cell).astype(np.intp)
            said = cells[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            best = said.argmax(axis=0) if len(names) > 1 else np.where(said[0] > 0.5, 0, -1)
            best = np.where(np.isnan(said).any(axis=0), -1, best)
            found.add(best[np.ix_(rows - rows[0], columns - columns[0])], told)
    dice = dict(zip(names, found.dice().tolist(), strict=True))
    return {"value": None, "error": None, "game": None, "dice": dice, "source": str(path)}
