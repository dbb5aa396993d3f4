"""Aggregation of the predictions of tiles to one answer, as for a whole slide."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hrviewer.errors import ParameterError
from hrviewer.models import ModelCard
from hrviewer.strategies.protocol import PlanContext

__all__ = [
    "Aggregation",
    "aggregation_field",
    "aggregation_of",
    "check_aggregation",
    "maximum",
    "tile_answers",
]

Aggregation = Literal["mean", "majority", "maximum"]

Floats = NDArray[np.float64]

TILE_TASKS = ("classification", "multi-label")
"""Tasks of models whose answers for tiles are aggregated."""

THRESHOLD = 0.5
"""Probability above which a tile has a label of several that do not exclude one another."""


def aggregation_field() -> Any:
    """Declare how the answers for tiles become one, in the same way for every strategy."""
    return Field(
        "mean",
        title="Aggregation",
        description="Of a model that classifies tiles: mean, the mean probability of each class; "
        "majority, the share of tiles for which it is the most likely (with several labels, more "
        "likely than not); maximum, the highest probability of any tile",
        json_schema_extra={"tasks": [*TILE_TASKS]},
    )


def aggregation_of(params: object) -> Aggregation:
    """Return the aggregation of a strategy's parameters; the mean where it has no choice."""
    chosen: Aggregation = getattr(params, "aggregation", "mean")
    return chosen


def check_aggregation(context: PlanContext, aggregation: Aggregation) -> None:
    """Refuse an aggregation that has no effect, or cannot be had.

    Raises
    ------
    ParameterError
        If the model does not classify tiles, or aggregates them itself; or if only parts of tiles
        count.
    """
    card = context.main.card
    if aggregation == "mean":
        return
    if context.mask is not None:
        raise ParameterError(
            f"aggregation={aggregation} is of whole tiles, but the regions cut them: leave it out"
        )
    if card.task not in TILE_TASKS:
        raise ParameterError(
            f"aggregation={aggregation} is for models that classify tiles; the task of "
            f"{card.name!r} is {card.task}: leave it out"
        )
    if card.output.attention:
        raise ParameterError(
            f"{card.name!r} aggregates tiles by its attention: leave aggregation={aggregation} out"
        )


def tile_answers(card: ModelCard, values: Floats, aggregation: Aggregation) -> Floats:
    """Return what is aggregated by area: probabilities, or 1 for the class of a tile.

    Parameters
    ----------
    card : ModelCard
        Card of the answering model.
    values : ndarray, shape (..., k)
        Probabilities; NaN where inference failed.
    aggregation : {"mean", "majority", "maximum"}
        See `aggregation_field`.

    Returns
    -------
    ndarray, shape (..., k)
        The values themselves, unless the majority decides.
    """
    if aggregation != "majority":
        return values
    if card.task == "multi-label":
        chosen = values > THRESHOLD
    else:
        filled = np.where(np.isnan(values), -np.inf, values)
        chosen = filled.argmax(axis=-1)[..., None] == np.arange(values.shape[-1])
    return np.where(np.isnan(values).any(axis=-1, keepdims=True), np.nan, chosen.astype(float))


def maximum(values: Floats, *, complete: bool) -> tuple[Floats, Floats] | None:
    """Return the highest probability of each class, and limits that hold with certainty.

    Parameters
    ----------
    values : ndarray, shape (n, k)
        Probabilities of tiles; NaN where inference failed.
    complete : bool
        Whether these are all tiles. Otherwise another one may be as high as 1.

    Returns
    -------
    tuple of ndarray, shapes (k,) and (k, 2), or None
        None without any value.

    Examples
    --------
    >>> maximum(np.array([[0.2, 0.8], [0.7, 0.3]]), complete=True)[0]
    array([0.7, 0.8])
    """
    values = values[np.isfinite(values).all(axis=1)]
    if not len(values):
        return None
    highest: Floats = values.max(axis=0)
    return highest, np.stack([highest, highest if complete else np.ones_like(highest)], axis=1)
