"""Features of layers: points and shapes with what a layer's table has about them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.io.features import Feature

__all__ = ["LayerData", "features_of", "outline_of", "shape_type"]

LayerData = tuple[Any, dict[str, Any], str]

ELLIPSE_VERTICES = 64
"""Vertices of the polygon that takes the place of an ellipse."""


def features_of(layer: LayerData) -> Iterator[Feature]:
    """Yield a layer of points or shapes as features, in level-0 pixels of its own.

    A pixel's centre lies at a whole number in a layer, at a half in level-0 pixels. Lines have
    no area: they become outlines without an area.
    """
    data, settings, kind = layer
    table = settings.get("features")
    known = table is not None and len(table.columns) > 0
    rows: list[dict[Any, Any]] = table.to_dict("records") if table is not None and known else []
    for i, where in enumerate(data):
        label, name, measured, about = feature_attributes(
            rows[i] if known else {}, settings["name"]
        )
        common: dict[str, Any] = {"name": name, "number": i, "measurements": measured,
                                  "metadata": about}  # fmt: skip
        if kind == "points":
            y, x = (np.asarray(where, float)[-2:] + 0.5).tolist()
            yield Feature("annotation", label, point=(y, x), **common)
        else:
            outline = outline_of(where, shape_type(settings, i)) + 0.5
            yield Feature("annotation", label, ((outline,),), **common)


def feature_attributes(row: dict[Any, Any], name: str) -> tuple[str, str, dict[str, float], Any]:
    """Return one row of a layer's table: label, name, measurements, metadata."""
    numbers = {
        str(k): float(v)
        for k, v in row.items()
        if isinstance(v, int | float | np.number) and np.isfinite(v)
    }
    words = {str(k): str(v) for k, v in row.items() if isinstance(v, str)}
    label = words.pop("label", None) or words.pop("class", None) or name
    return label, words.pop("name", ""), numbers, words


def shape_type(settings: dict[str, Any], i: int) -> str:
    """Return the type of one of a layer's shapes."""
    known = settings["shape_type"]
    return known if isinstance(known, str) else str(known[i])


def outline_of(corners: Any, kind: str) -> NDArray[np.float64]:
    """Return a shape's outline ``(n, 2)`` in its layer's pixels; of an ellipse a polygon."""
    outline = np.asarray(corners, np.float64)[:, -2:]
    if kind != "ellipse":
        return outline
    turn = np.linspace(0, 2 * np.pi, ELLIPSE_VERTICES, endpoint=False)[:, None]
    a, b = (outline[1] - outline[0]) / 2, (outline[3] - outline[0]) / 2
    found: NDArray[np.float64] = outline.mean(axis=0) + np.cos(turn) * a + np.sin(turn) * b
    return found
