"""The codes that a head is fitted to: those of a run, or of the screen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.errors import HrviewerError
from hrviewer.runs.run import Run

__all__ = ["BLOCK", "FOLDS", "Embeddings", "Floats", "read_embeddings"]

FOLDS = 5
BLOCK = 8
"""Side, in cells, of the blocks that are left out together: neighbours are alike."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Embeddings:
    """Codes of an image.

    Parameters
    ----------
    values : array-like, shape (d, rows, columns)
        NaN where nothing was encoded.
    cell : float
        Side of what a code stands for, level-0 pixels.
    encoder : str
        What made them.
    """

    values: Any
    cell: float
    encoder: str = ""


def read_embeddings(run: Run) -> Embeddings:
    """Return a run's codes; `UserError` where it kept none."""
    import zarr

    if not (run.path / "embeddings" / "zarr.json").is_file():
        raise HrviewerError(f"{run.path} holds no codes: run the strategy compression first")
    codes, cell = run.map("embeddings")
    about: Any = zarr.open_group(run.path / "embeddings", mode="r").attrs["hrviewer"]
    return Embeddings(codes, cell, str(about["encoder"]))
