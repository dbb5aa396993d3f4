"""Embeddings that heads are fitted to, of a run or of a live session."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.errors import RunError
from hrviewer.io.stored_map import open_stored_map
from hrviewer.runs.run import Run

__all__ = ["BLOCK", "FOLDS", "Embeddings", "Floats", "read_embeddings"]

FOLDS = 5
BLOCK = 8
"""Side, in cells, of the blocks of cross-validation: neighbouring cells are correlated."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Embeddings:
    """Embeddings of an image.

    Parameters
    ----------
    values : array-like, shape (d, rows, columns)
        NaN outside the encoded patches.
    cell : float
        Side of the cell of an embedding, level-0 pixels.
    encoder : str
        Digest of the encoder.
    """

    values: Any
    cell: float
    encoder: str = ""


def read_embeddings(run: Run) -> Embeddings:
    """Return the embeddings of a run; an error if it has none."""
    if not (run.path / "embeddings" / "zarr.json").is_file():
        raise RunError(f"{run.path} has no embeddings: run the strategy compression first")
    values, attributes = open_stored_map(run.path, "embeddings", run.image_shape)
    about = attributes["hrviewer"]
    return Embeddings(values, float(about["cell"]), str(about.get("encoder", "")))
