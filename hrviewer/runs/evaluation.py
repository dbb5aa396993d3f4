"""Measuring a run against what is really there."""

from __future__ import annotations

from collections.abc import Callable, Container
from pathlib import Path
from typing import Any

import numpy as np

from hrviewer.errors import UserError
from hrviewer.geometry import Rect
from hrviewer.ground_truth import Truth
from hrviewer.io.ground_truth import Asked, is_label_map, read_truth
from hrviewer.io.ground_truth.datasets import truth_of
from hrviewer.io.ground_truth.label_maps import open_labels, windows
from hrviewer.models import Card
from hrviewer.pyramid import Pyramid
from hrviewer.runs.metrics import GAME_LEVELS, Overlap, average_precision, finds, game, peaks
from hrviewer.runs.run import Run

__all__ = ["Judge", "count_errors", "find_judge", "find_truth", "of_classes"]

RANKED = 20
"""Peaks that are asked for each object: below a precision of 1 in 20 nothing is gained."""

Judge = Callable[[Run], dict[str, Any]]
"""Says of a run what ``truth`` holds in its header."""


def find_judge(
    truth: str | Path | Truth | None, pyramid: Pyramid, main: Card | None
) -> Judge | None:
    """Return what will measure a run; the truth is found and read before anything is spent.

    Parameters
    ----------
    truth : str, Path, Truth or None
        ``auto`` for the image's own, a file, a folder of files named as images are, or the
        objects; None if nobody knows.
    pyramid : Pyramid
        The image.
    main : Card, optional
        Of the network that answers.

    Raises
    ------
    UserError
        If there is no such truth, or the network's task has none.
    """
    if truth is None or main is None:
        return None
    if not isinstance(truth, Truth):
        truth = own(truth, pyramid)
    if main.task == "segmentation":
        return class_judge(truth, pyramid, main)
    if main.task not in ("density", "detection"):
        raise UserError(f"{main.name} neither counts nor segments: no truth can be told of it")
    objects = of_classes(find_truth(truth, pyramid), main.output.classes)
    return lambda run: count_errors(run, objects)


def own(truth: str | Path, pyramid: Pyramid) -> str | Path:
    """Return an image's own file where a folder of them is given."""
    if is_label_map(truth):
        return truth
    folder = Path(truth).expanduser()
    return truth_of(folder, pyramid.path or pyramid.name) if folder.is_dir() else truth


def find_truth(truth: str | Path | Truth, pyramid: Pyramid) -> Truth:
    """Return an image's objects.

    Raises
    ------
    UserError
        If nobody knows them, or the file is not this image's.
    """
    if isinstance(truth, Truth):
        return truth
    truth = own(truth, pyramid)
    if str(truth) == "auto":
        known = pyramid.truth(pyramid.rect)
        if known is None:
            raise UserError(
                f"{pyramid.name} does not know its truth, as scenes (sample:…) do: give a file"
            )
        return known
    return read_truth(truth, pyramid.path or pyramid.name, pyramid.shape)


def of_classes(truth: Truth, known: Container[str]) -> Truth:
    """Return the objects of the classes that a network knows; all if it shares no name."""
    shared = [i for i, name in enumerate(truth.classes) if name in known]
    if not shared:
        return truth
    return truth.only(np.isin(truth.kinds, shared))


def count_errors(run: Run, truth: Truth) -> dict[str, Any]:
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
        **({} if inside.boxes is None else {"precision": found(cells, cell, run.region, inside)}),
        "source": truth.source,
    }


def found(cells: Any, cell: float, region: Rect, truth: Truth) -> float | None:
    """Return the average precision of a density's peaks; None where there is nothing to find."""
    if truth.boxes is None or not len(truth):
        return None
    # What is ranked below so many has no say in it.
    points, heights = peaks(cells, cell, region, RANKED * len(truth))
    return average_precision(finds(points, truth.boxes), heights, len(truth))


def class_judge(truth: str | Path | Truth, pyramid: Pyramid, card: Card) -> Judge:
    """Return what measures a segmentation: the class map must be there and fit."""
    if isinstance(truth, Truth) or not is_label_map(truth):
        raise UserError(
            f"{card.name} segments: its truth is a map of its classes' numbers, a TIFF or OME-Zarr"
        )
    path = Path(truth).expanduser()
    if not path.exists():
        raise UserError(f"there is no truth in {path}: no such file or folder")
    asked = Asked(pyramid.path or pyramid.name, pyramid.shape)
    open_labels(path, asked).close()
    names = list(card.output.classes) or [f"class {i}" for i in range(card.outputs)]
    return lambda run: dice_errors(run, path, asked, names)


def dice_errors(run: Run, path: Path, asked: Asked, names: list[str]) -> dict[str, Any]:
    """Return the Dice coefficient of every class, pixel by pixel over the run's region.

    A pixel of the truth holds its class's number in the card; of a single class it holds 1 where
    it is. A pixel that was never looked at is of no class.
    """
    cells, cell = run.map("output")
    found = Overlap(len(names))
    with open_labels(path, asked) as labels:
        for window in windows(labels.shape):
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
