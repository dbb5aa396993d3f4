"""How many objects there are, learned from truth.

Ridge regression of the number of objects in each code's cell: a linear head, whose strength is
chosen by leave-one-out within each fit. How wrong it is on what it was not fitted to is measured
by cross-validation over blocks of cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.errors import HrviewerError
from hrviewer.geometry import Rect
from hrviewer.ground_truth import GroundTruth
from hrviewer.runs.heads.embeddings import BLOCK, FOLDS, Embeddings, Floats
from hrviewer.runs.heads.save_bundle import NO_SKLEARN, FittedHead, check_unused, write_head

__all__ = ["CountingHead", "fit_counting_head"]

MAX_CELLS = 400_000
"""Cells that are fitted to; of more, whole blocks are drawn at random."""
ALPHAS = np.logspace(-2, 6, 17)


@dataclass(frozen=True, slots=True)
class CountingHead(FittedHead):
    """A head that counts.

    Parameters
    ----------
    path, cells
        See `Fitted`.
    error : float
        Mean absolute error of the count of a block that was left out, over the mean count.
    objects : int
        What it was fitted to.
    bias : float
        Of the sum of all blocks, over the true sum.
    correlation : float
        Of the counts of blocks with the true ones.
    """

    objects: int
    bias: float
    correlation: float

    @property
    def training_summary(self) -> str:
        """What it was fitted to, in words."""
        return f"{self.objects:,} objects in {self.cells:,} cells"

    @property
    def validation_summary(self) -> str:
        """How good it is on what it was not fitted to, in words."""
        return (
            f"error {self.error:.1%} of a block's count, sum off by {self.bias:+.1%}, "
            f"correlation {self.correlation:.3f}"
        )

    @property
    def metrics(self) -> dict[str, Any]:
        """The same in numbers, for its card."""
        return {
            "what": f"of blocks of {BLOCK} x {BLOCK} cells that were left out: error of the "
            "counts over their mean, bias of their sum, correlation",
            "error": round(self.error or 0.0, 4),
            "bias": round(self.bias, 4),
            "correlation": round(self.correlation, 4),
        }


def fit_counting_head(
    embeddings: Embeddings,
    objects: GroundTruth,
    out: Path,
    *,
    region: Rect,
    class_name: str | None = None,
) -> CountingHead:
    """Fit a head that counts, and write it as a pack.

    Parameters
    ----------
    embeddings : Kept
        The codes.
    objects : Truth
        All that there is in the region.
    out : Path
        The pack's folder; nothing may be there yet.
    region : Rect
        Where the truth is known, in level-0 pixels.
    class_name : str, optional
        The class that is counted; all objects by default.

    Raises
    ------
    UserError
        If there is nothing to fit to, or scikit-learn is missing.
    """
    check_unused(out)
    if class_name is not None:
        if class_name not in objects.classes:
            raise HrviewerError(
                f"the truth knows {', '.join(objects.classes)}, and no {class_name!r}"
            )
        objects = objects.select(objects.class_ids == objects.classes.index(class_name))
    inputs, counts, blocks = sample_cells(embeddings.values, embeddings.cell, region, objects)
    if len(np.unique(blocks)) < FOLDS or not counts.any():
        raise HrviewerError(
            f"{counts.sum():.0f} objects in {len(counts)} cells are too few to fit a head to: "
            "give more truth, or a larger region"
        )
    weights, bias = fit_ridge(inputs, counts)
    found, there = cross_validate(inputs, counts, blocks)
    several = len(objects.classes) > 1
    name = class_name or ("object" if several else objects.classes[0])
    fitted = CountingHead(
        out,
        len(counts),
        float(np.abs(found - there).mean() / there.mean()),
        round(float(counts.sum())),
        float((found.sum() - there.sum()) / there.sum()),
        float(np.corrcoef(found, there)[0, 1]) if found.std() and there.std() else 0.0,
    )
    params = {"embedding_dim": len(weights), "classes": 1, "widths": []}
    card = {
        "title": f"Counts of {name}, fitted to codes",
        "task": "density",
        "architecture": {"name": "embedding-head", "params": params},
        "output": {"stride": 1, "halo": 0, "classes": [name]},
    }
    made = {"encoder": embeddings.encoder, "truth": objects.source, "objects": fitted.objects}
    write_head(fitted, {"head": (weights[None], np.array([bias]))}, card, made)
    return fitted


def sample_cells(
    embeddings: Any, cell: float, region: Rect, truth: GroundTruth
) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Return codes ``(n, d)`` of the whole cells in a region, their counts and their blocks."""
    top, left = int(-(-region.y // cell)), int(-(-region.x // cell))
    bottom, right = int(region.y1 // cell), int(region.x1 // cell)
    rows, columns = max(0, bottom - top), max(0, right - left)
    counts = np.zeros((rows, columns))
    at = np.floor(truth.points / cell).astype(np.int64) - (top, left)
    at = at[((at >= 0) & (at < (rows, columns))).all(axis=1)]
    np.add.at(counts, (at[:, 0], at[:, 1]), 1)
    wide = -(-columns // BLOCK)
    part = min(1.0, MAX_CELLS / max(1, rows * columns))
    drawn = np.random.default_rng(0).random((-(-rows // BLOCK), wide)) < part
    inputs, found, blocks = [], [], []
    for i, line in enumerate(drawn):
        start, stop = i * BLOCK, min(rows, (i + 1) * BLOCK)
        strip = np.asarray(embeddings[:, top + start : top + stop, left:right], np.float64)
        there = np.isfinite(strip).all(axis=0) & np.repeat(line, BLOCK)[:columns]
        inputs.append(strip[:, there].T)
        found.append(counts[start:stop][there])
        numbers = i * wide + np.arange(columns) // BLOCK
        blocks.append(np.broadcast_to(numbers, there.shape)[there])
    width = int(embeddings.shape[0])
    return (
        np.concatenate([np.empty((0, width)), *inputs]),
        np.concatenate([np.empty(0), *found]),
        np.concatenate([np.empty(0, np.int64), *blocks]),
    )


def fit_ridge(inputs: Floats, counts: Floats) -> tuple[Floats, float]:
    """Return the weights and the bias of a linear head whose counts, cut off at 0, sum up right."""
    try:
        from sklearn.linear_model import RidgeCV
    except ImportError:
        raise HrviewerError(NO_SKLEARN) from None
    mean, spread = inputs.mean(axis=0), inputs.std(axis=0)
    spread[spread == 0] = 1
    model = RidgeCV(ALPHAS).fit((inputs - mean) / spread, counts)
    weights = np.asarray(model.coef_, np.float64) / spread
    bias = float(model.intercept_) - float(mean @ weights)
    gain = counts.sum() / np.maximum(inputs @ weights + bias, 0).sum()
    return gain * weights, gain * bias


def cross_validate(
    inputs: Floats, counts: Floats, blocks: NDArray[np.int64]
) -> tuple[Floats, Floats]:
    """Return what is said of blocks by heads that were not fitted to them, and the truth."""
    from sklearn.model_selection import GroupKFold

    said = np.zeros_like(counts)
    for learned, asked in GroupKFold(FOLDS, shuffle=True, random_state=0).split(
        inputs, counts, blocks
    ):
        weights, bias = fit_ridge(inputs[learned], counts[learned])
        said[asked] = np.maximum(inputs[asked] @ weights + bias, 0)
    _, each = np.unique(blocks, return_inverse=True)
    found, there = np.bincount(each, said), np.bincount(each, counts)
    return found.astype(np.float64), there.astype(np.float64)
