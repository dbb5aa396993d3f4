"""Labels of whole images: a table of names."""

from __future__ import annotations

import csv
from pathlib import Path

from hrviewer.errors import HrviewerError

__all__ = ["find_image_label", "read_image_labels"]


def read_image_labels(path: str | Path) -> dict[str, str]:
    """Return the label of each image, by its name.

    Parameters
    ----------
    path : str or Path
        CSV with the columns ``image`` and ``label``.

    Raises
    ------
    UserError
        Where it cannot be read, or has no such columns.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file, skipinitialspace=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise HrviewerError(f"{path} cannot be read as CSV ({error}): give another file") from None
    if not rows or not {"image", "label"} <= rows[0].keys():
        raise HrviewerError(f"{path} needs the columns image and label, and a row for each image")
    return {row["image"]: row["label"] for row in rows if row["image"] and row["label"]}


def find_image_label(image: str, labels: dict[str, str]) -> str:
    """Return an image's label, whether it is named by its path, its file or without ending.

    Raises
    ------
    UserError
        Where it has none.
    """
    path = Path(image)
    for name in (image, path.name, path.stem):
        if name in labels:
            return labels[name]
    raise HrviewerError(
        f"no label is given for {path.name}: add a row for it, or leave its run out"
    )
