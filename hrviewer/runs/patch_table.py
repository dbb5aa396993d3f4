"""The table of a run's patches, with a column for each class's prediction."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from hrviewer.engine import PatchRow
from hrviewer.io.prediction_columns import name_columns, select_columns
from hrviewer.models import ModelCard

__all__ = ["patch_frame", "patch_row"]

PLAIN = tuple(name for name in PatchRow.__slots__ if name != "values")
"""Columns that every table has."""


def patch_frame(rows: Sequence[PatchRow], card: ModelCard) -> pd.DataFrame:
    """Return patches as a table.

    Parameters
    ----------
    rows : sequence of PatchRow
        The patches, in the order of the plan.
    card : ModelCard
        Card of the answering model: its task gives the columns of predictions. ``value`` is a
        classifier's largest probability, and the first quantity of a regression.
    """
    classes = card.output.classes or [f"class {i}" for i in range(card.prediction_channels)]
    columns = [] if card.output.attention else name_columns(card.task, classes)
    return pd.DataFrame(list(_iter_rows(rows, card, columns)), columns=[*PLAIN, *columns])


def _iter_rows(
    rows: Sequence[PatchRow], card: ModelCard, columns: Sequence[str]
) -> Iterator[dict[str, Any]]:
    for row in rows:
        known = {name: getattr(row, name) for name in PLAIN}
        values = [*row.values] if len(row.values) == len(columns) else [math.nan] * len(columns)
        if columns and card.averaged and row.values:
            known["value"] = values[0] if card.task == "regression" else max(values)
        if card.task == "segmentation":
            values = [value / (row.h * row.w) for value in values]
        yield known | dict(zip(columns, values, strict=True))


def patch_row(row: Mapping[str, Any]) -> PatchRow:
    """Return a row of a table as a patch.

    Shares of a segmentation become areas again.
    """
    values = []
    for name in select_columns(row):
        scale = row["h"] * row["w"] if name.startswith("share_") else 1
        values.append(float(row[name]) * scale)
    return PatchRow(**{name: row[name] for name in PLAIN}, values=tuple(values))
