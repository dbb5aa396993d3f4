"""Series: the images that one file or folder holds, and the choice of one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hrviewer.errors import ImageReadError, ParameterError

__all__ = ["Series", "SeriesKind", "choose_series", "kind_by_name"]

SeriesKind = Literal["image", "label", "macro", "thumbnail", "preview", "mask"]

MAX_LISTED = 8
"""Most series that a message lists."""

_NAMES: tuple[tuple[str, SeriesKind], ...] = (
    (r"labels?", "label"),
    (r"macro|overview|slide overview", "macro"),
    (r"thumbnail|thumb|map", "thumbnail"),
    (r"preview", "preview"),
    (r"masks?", "mask"),
)


@dataclass(frozen=True)
class Series:
    """One of the images of a file or folder.

    Attributes
    ----------
    id : str
        As ``series`` and ``--series`` take it: a number, or a path within the file.
    name : str
        Name in the file's metadata; empty if it has none.
    shape : tuple of int, optional
        Height and width in pixels; None if it is not known before the series is opened.
    kind : str
        ``image``, or what it is instead: ``label``, ``macro`` (a photograph of the whole slide,
        often with its label), ``thumbnail``, ``preview`` or ``mask``.
    """

    id: str
    name: str = ""
    shape: tuple[int, int] | None = None
    kind: SeriesKind = "image"

    def __str__(self) -> str:
        facts = [f"{self.shape[0]:,} × {self.shape[1]:,}"] if self.shape else []
        facts += [self.kind] if self.kind != "image" else []
        title = f"{self.id} {self.name!r}" if self.name not in ("", self.id) else self.id
        return f"{title} ({', '.join(facts)})" if facts else title


def kind_by_name(name: str) -> SeriesKind:
    """Return the kind that a name in the metadata stands for: ``Macro``, ``label image``."""
    for pattern, kind in _NAMES:
        if re.search(rf"(^|[\W_])({pattern})([\W_]|$)", name.strip().lower()):
            return kind
    return "image"


def choose_series(
    file: str, series: Sequence[Series], wanted: str | int | None, notes: list[str]
) -> int:
    """Return the index of a series, and note the others.

    By default it is the largest image, and of equally large ones the first; labels, macros,
    thumbnails, previews and masks are opened only if they are asked for, or nothing else is there.

    Parameters
    ----------
    file : str
        Name of the file, for messages.
    series : sequence of Series
        All series, in the file's order.
    wanted : str or int, optional
        The id, name or index that the user gives.
    notes : list of str
        Gets a note where there was a choice.

    Raises
    ------
    ImageReadError
        If the file has no series.
    ParameterError
        If it has no such series.
    """
    if not series:
        raise ImageReadError(f"{file} holds no image: it may be cut short, copy it again")
    if wanted is not None:
        return _find(file, series, wanted)
    images = [i for i, entry in enumerate(series) if entry.kind == "image"]
    areas = {i: h * w for i in images for h, w in [series[i].shape or (0, 0)]}
    chosen = max(areas, key=areas.__getitem__) if areas else 0
    if len(images) > 1 or chosen > 0:
        others = [entry for i, entry in enumerate(series) if i != chosen]
        notes.append(
            f"series {series[chosen]} of {len(series)} is opened; choose another with series: "
            f"{_listed(others)}"
        )
    return chosen


def _find(file: str, series: Sequence[Series], wanted: str | int) -> int:
    text = str(wanted).strip().lower()
    for labels in [entry.id for entry in series], [entry.name for entry in series]:
        matches = [i for i, label in enumerate(labels) if label.lower() == text]
        if len(matches) == 1:
            return matches[0]
    if text.isdecimal() and int(text) < len(series):
        return int(text)
    raise ParameterError(f"{file} has no series {wanted!r}; it has: {_listed(series)}")


def _listed(series: Sequence[Series]) -> str:
    more = len(series) - MAX_LISTED
    shown = [str(entry) for entry in series[:MAX_LISTED]]
    return ", ".join([*shown, *([f"and {more} more"] if more > 0 else [])])
