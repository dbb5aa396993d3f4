"""Run folders made by hand, for tests of the writers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd


@dataclass
class Made:
    """A run folder and its header."""

    path: Path
    header: dict[str, Any]


def table(n: int, side: int = 64, columns: int = 100) -> pd.DataFrame:
    """Return `n` patches in rows of `columns`, without scores, the second of them failed."""
    index = np.arange(n)
    rows = pd.DataFrame(
        {
            "id": index,
            "y": index // columns * side,
            "x": index % columns * side,
            "h": side,
            "w": side,
            "scale": np.where(index % 3, 1.0, 2.0),
            "role": np.where(index % 5, "main", "scout"),
            "order": index,
            "score": np.nan,
            "value": index * 0.5,
            "flops": 1e9 + index,
            **{f"{stage}_s": 0.001 for stage in ("read", "prepare", "infer", "post")},
            "bytes": 100.0,
            "pixels": 4096.0,
            "status": "done",
            "error": "",
        }
    )
    if n > 1:
        rows.loc[1, ["value", "status", "error"]] = [np.nan, "failed", "OSError: torn"]
    return rows


PLACE = (300.0, 0.0, 101985.0, 0.0, -300.0, 2826915.0)
"""The affine of `on_earth`, row by row."""


def on_earth(path: Path, shape: tuple[int, int]) -> None:
    """Write an empty image that has a georeference."""
    import rasterio

    path.parent.mkdir(exist_ok=True)
    with rasterio.open(
        path, "w", driver="GTiff", height=shape[0], width=shape[1], count=1, dtype="uint8",
        crs="EPSG:32618", transform=rasterio.Affine(*PLACE), sparse_ok=True, tiled=True,
    ):  # fmt: skip
        pass


def blobs(shape: tuple[int, int], *discs: tuple[float, float, float]) -> np.ndarray:
    """Return a plane that is 1 within discs ``(y, x, radius)`` and 0 elsewhere."""
    y, x = np.indices(shape)
    inside = np.zeros(shape, np.float32)
    for cy, cx, radius in discs:
        inside[np.hypot(y - cy, x - cx) <= radius] = 1
    return inside
