"""Downsampling of arrays with missing values."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["mean_2x2"]


def mean_2x2(cells: NDArray[Any]) -> NDArray[np.float64]:
    """Return the means of 2 × 2 cells, ignoring NaN; NaN where all four are."""
    rows, columns = cells.shape
    even = np.pad(
        cells.astype(np.float64),
        ((0, rows % 2), (0, columns % 2)),
        constant_values=np.nan,
    )
    blocks = even.reshape(even.shape[0] // 2, 2, even.shape[1] // 2, 2)
    valid = ~np.isnan(blocks)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(valid, blocks, 0).sum((1, 3)) / valid.sum((1, 3)))
