"""Image labels: a table with one class per image."""

from __future__ import annotations

import csv
from pathlib import Path

from hrviewer.errors import GroundTruthError, short_message

__all__ = ["find_image_label", "read_image_labels"]


def read_image_labels(path: str | Path) -> dict[str, str]:
    """Read the label of each image, by image name.

    Parameters
    ----------
    path : str or Path
        CSV with the columns ``image`` and ``label``.

    Raises
    ------
    HrviewerError
        If the file cannot be read or lacks these columns.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file, skipinitialspace=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise GroundTruthError(
            f"{path} cannot be read as CSV ({short_message(error)}): give another file"
        ) from None
    if not rows or not {"image", "label"} <= rows[0].keys():
        raise GroundTruthError(
            f"{path} needs the columns image and label, and a row for each image"
        )
    return {row["image"]: row["label"] for row in rows if row["image"] and row["label"]}


def find_image_label(image: str, labels: dict[str, str]) -> str:
    """Return the label of an image, listed by path, file name or stem.

    Raises
    ------
    HrviewerError
        If the image is not listed.
    """
    path = Path(image)
    for name in (image, path.name, path.stem):
        if name in labels:
            return labels[name]
    raise GroundTruthError(f"{path.name} has no label: add a row for it, or leave out its run")
