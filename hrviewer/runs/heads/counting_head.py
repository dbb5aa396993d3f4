"""Counting head, fitted to ground truth.

Ridge regression of the number of objects in the cell of each embedding: a linear head, whose
regularisation is chosen by leave-one-out within each fit. Its errors are measured by
cross-validation over blocks of cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.errors import GroundTruthError, ModelError
from hrviewer.geometry import Rect
from hrviewer.ground_truth import GroundTruth
from hrviewer.runs.heads.embeddings import BLOCK, FOLDS, Embeddings, Floats
from hrviewer.runs.heads.save_bundle import NO_SKLEARN, FittedHead, check_unused, write_head

__all__ = ["CountingHead", "fit_counting_head"]

MAX_CELLS = 400_000
"""Largest number of training cells; of more, blocks are drawn at random."""
ALPHAS = np.logspace(-2, 6, 17)


@dataclass(frozen=True, slots=True)
class CountingHead(FittedHead):
    """A head that predicts counts.

    Parameters
    ----------
    path, cells
        See `FittedHead`.
    error : float
        Mean absolute error of the count of a left-out block, over the mean count.
    objects : int
        Number of objects that it was fitted to.
    bias : float
        Error of the sum of all blocks, over the true sum.
    correlation : float
        Correlation of predicted and true counts of blocks.
    """

    objects: int
    bias: float
    correlation: float

    @property
    def training_summary(self) -> str:
        """The training data, as text."""
        return f"{self.objects:,} objects in {self.cells:,} cells"

    @property
    def validation_summary(self) -> str:
        """The cross-validated errors, as text."""
        return (
            f"error {self.error:.1%} of a block's count, sum off by {self.bias:+.1%}, "
            f"correlation {self.correlation:.3f}"
        )

    @property
    def metrics(self) -> dict[str, Any]:
        """The cross-validated errors, for its card."""
        return {
            "what": f"cross-validation over blocks of {BLOCK} x {BLOCK} cells: error of the "
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
    """Fit a head that predicts counts, and write it as a model bundle.

    Parameters
    ----------
    embeddings : Embeddings
        The inputs.
    objects : GroundTruth
        All objects in the region.
    out : Path
        Folder of the model bundle; it must not exist.
    region : Rect
        The annotated area, in level-0 pixels.
    class_name : str, optional
        The class to count; all objects by default.

    Raises
    ------
    HrviewerError
        If there is too little to fit to, or scikit-learn is missing.
    """
    check_unused(out)
    if class_name is not None:
        if class_name not in objects.classes:
            raise GroundTruthError(
                f"the ground truth has no class {class_name!r}; it has: "
                f"{', '.join(objects.classes)}"
            )
        objects = objects.select(objects.class_ids == objects.classes.index(class_name))
    inputs, counts, blocks = sample_cells(embeddings.values, embeddings.cell, region, objects)
    if len(np.unique(blocks)) < FOLDS or not counts.any():
        raise GroundTruthError(
            f"{counts.sum():.0f} objects in {len(counts)} cells are too few to fit a head to: "
            "annotate more objects, or choose a larger region"
        )
    weights, bias = fit_ridge(inputs, counts)
    predicted, expected = cross_validate(inputs, counts, blocks)
    name = class_name or ("object" if len(objects.classes) > 1 else objects.classes[0])
    fitted = CountingHead(
        out,
        len(counts),
        float(np.abs(predicted - expected).mean() / expected.mean()),
        round(float(counts.sum())),
        float((predicted.sum() - expected.sum()) / expected.sum()),
        float(np.corrcoef(predicted, expected)[0, 1])
        if predicted.std() and expected.std()
        else 0.0,
    )
    params = {"embedding_dim": len(weights), "classes": 1, "widths": []}
    card = {
        "title": f"Counts of {name}, fitted to embeddings",
        "task": "density",
        "architecture": {"name": "embedding-head", "params": params},
        "output": {"stride": 1, "halo": 0, "classes": [name]},
    }
    provenance = {"encoder": embeddings.encoder, "truth": objects.source, "objects": fitted.objects}
    write_head(fitted, {"head": (weights[None], np.array([bias]))}, card, provenance)
    return fitted


def sample_cells(
    embeddings: Any, cell: float, region: Rect, truth: GroundTruth
) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Return embeddings ``(n, d)`` of the complete cells in a region, their counts and blocks."""
    top, left = int(-(-region.y // cell)), int(-(-region.x // cell))
    bottom, right = int(region.y1 // cell), int(region.x1 // cell)
    rows, columns = max(0, bottom - top), max(0, right - left)
    counts = np.zeros((rows, columns))
    at = np.floor(truth.points / cell).astype(np.int64) - (top, left)
    at = at[((at >= 0) & (at < (rows, columns))).all(axis=1)]
    np.add.at(counts, (at[:, 0], at[:, 1]), 1)
    blocks_per_row = -(-columns // BLOCK)
    part = min(1.0, MAX_CELLS / max(1, rows * columns))
    drawn = np.random.default_rng(0).random((-(-rows // BLOCK), blocks_per_row)) < part
    inputs, targets, blocks = [], [], []
    for i, line in enumerate(drawn):
        start, stop = i * BLOCK, min(rows, (i + 1) * BLOCK)
        strip = np.asarray(embeddings[:, top + start : top + stop, left:right], np.float64)
        known = np.isfinite(strip).all(axis=0) & np.repeat(line, BLOCK)[:columns]
        inputs.append(strip[:, known].T)
        targets.append(counts[start:stop][known])
        numbers = i * blocks_per_row + np.arange(columns) // BLOCK
        blocks.append(np.broadcast_to(numbers, known.shape)[known])
    width = int(embeddings.shape[0])
    return (
        np.concatenate([np.empty((0, width)), *inputs]),
        np.concatenate([np.empty(0), *targets]),
        np.concatenate([np.empty(0, np.int64), *blocks]),
    )


def fit_ridge(inputs: Floats, counts: Floats) -> tuple[Floats, float]:
    """Return weights and bias of a linear head whose counts, clipped at 0, have the true sum."""
    try:
        from sklearn.linear_model import RidgeCV
    except ImportError:
        raise ModelError(NO_SKLEARN) from None
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
    """Return the counts of blocks predicted by heads that were not fitted to them, and the true."""
    from sklearn.model_selection import GroupKFold

    predicted = np.zeros_like(counts)
    split = GroupKFold(FOLDS, shuffle=True, random_state=0).split(inputs, counts, blocks)
    for train, test in split:
        weights, bias = fit_ridge(inputs[train], counts[train])
        predicted[test] = np.maximum(inputs[test] @ weights + bias, 0)
    _, block = np.unique(blocks, return_inverse=True)
    sums, true_sums = np.bincount(block, predicted), np.bincount(block, counts)
    return sums.astype(np.float64), true_sums.astype(np.float64)
