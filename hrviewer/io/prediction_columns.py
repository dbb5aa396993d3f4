"""Columns of the predictions per class in tables of patches: ``prob_tumour``, ``share_forest``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["PREFIXES", "most_likely_class", "name_columns", "select_columns"]

PREFIXES: Mapping[str, str] = {
    "classification": "prob_",
    "multi-label": "prob_",
    "segmentation": "share_",
    "regression": "mean_",
    "density": "count_",
    "detection": "count_",
    "instances": "count_",
}
"""Prefix of the columns by task: probability, share of the patch's area, mean, count."""

STARTS = tuple({*PREFIXES.values()})


def name_columns(task: str, classes: Sequence[str]) -> list[str]:
    """Return the names of the columns of a task's predictions; none for counts of one class.

    Examples
    --------
    >>> name_columns("classification", ["tumour", "stroma"])
    ['prob_tumour', 'prob_stroma']
    """
    prefix = PREFIXES.get(task)
    if prefix is None or (prefix == "count_" and len(classes) < 2):
        return []
    return [f"{prefix}{name}" for name in classes]


def select_columns(names: Iterable[str]) -> list[str]:
    """Return those of a table's columns that hold predictions."""
    return [name for name in names if name.startswith(STARTS)]


def most_likely_class(row: Mapping[str, Any]) -> str | None:
    """Return the class of the largest prediction of a patch; None if it has none."""
    known = {
        name: row[name]
        for name in row
        if name.startswith(("prob_", "share_")) and row[name] is not None
    }
    known = {name: value for name, value in known.items() if value == value}
    if not known:
        return None
    return max(known, key=lambda name: known[name]).partition("_")[2]
