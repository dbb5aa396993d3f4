"""Tables of slides: the class, labels or quantities of each image as a whole, as CSV."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hrviewer.errors import GroundTruthError, short_message
from hrviewer.io.ground_truth.image_ref import file_name, find_names

__all__ = ["SlideAnswer", "read_slide_table"]

IMAGE_COLUMNS = ("image", "slide", "slide_id", "filename", "file", "name")
"""Columns that may name the image, with or without folder and suffix."""

LABEL_COLUMNS = ("label", "class", "target", "category")
"""Columns that may hold the class of an image."""


@dataclass(frozen=True)
class SlideAnswer:
    """What is known of an image as a whole.

    Attributes
    ----------
    label : str
        Its class; empty if columns are named by classes or quantities.
    values : dict of str to float
        1 or 0 for each label, or quantities.
    """

    label: str = ""
    values: dict[str, float] = field(default_factory=dict)


def read_slide_table(path: Path, image: str, classes: Sequence[str]) -> SlideAnswer:
    """Read the row of an image.

    Parameters
    ----------
    path : Path
        CSV with one row per image: a column that names it (``image``, ``slide``, ``slide_id``,
        ``filename``, ``file`` or ``name``), and either its class in a column ``label`` (or
        ``class``, ``target``, ``category``), or a column for each class or quantity of the model.
    image : str
        Path or name of the image.
    classes : sequence of str
        Classes or quantities of the model.

    Raises
    ------
    GroundTruthError
        If the file is not such a table, or has no or several rows of the image.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            names = [name.strip() for name in reader.fieldnames or ()]
            reader.fieldnames = names
            named = next((name for name in names if name.lower() in IMAGE_COLUMNS), None)
            if named is None:
                raise GroundTruthError(
                    f"{path.name} is no table of slides: it needs a column image, and label or one "
                    "for each class"
                )
            listed = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise GroundTruthError(
            f"{path.name} cannot be read as a table: {short_message(error)}"
        ) from None
    known = set(find_names(image, (row[named] or "" for row in listed)))
    rows = [row for row in listed if (row[named] or "") in known]
    if len(rows) != 1:
        found = "no row" if not rows else f"{len(rows)} rows"
        raise GroundTruthError(
            f"{path.name} has {found} of {file_name(image)} in the column {named}"
        )
    return parse_row(rows[0], path, classes)


def parse_row(row: dict[str, str], path: Path, classes: Sequence[str]) -> SlideAnswer:
    """Return the answer in a row."""
    label = next((name for name in row if name.lower() in LABEL_COLUMNS), None)
    if label is not None and label not in classes:
        value = (row[label] or "").strip()
        if value not in classes:
            raise GroundTruthError(
                f"{path.name} gives the class {value!r}, which the model does not have: it has "
                f"{', '.join(classes)}"
            )
        return SlideAnswer(label=value)
    known = [name for name in classes if name in row]
    if not known:
        raise GroundTruthError(
            f"{path.name} has neither a column label nor one named like a class of the model: "
            f"{', '.join(classes)}"
        )
    values = {}
    for name in known:
        try:
            values[name] = float(row[name])
        except (TypeError, ValueError):
            values[name] = math.nan
        if not math.isfinite(values[name]):
            raise GroundTruthError(f"{path.name} gives {row[name]!r} for {name}, not a number")
    return SlideAnswer(values=values)
