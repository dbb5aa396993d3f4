"""Classifier of places, fitted to a few labels.

Logistic regression on embeddings: a linear head with a softmax. The number of labels of a class
reflects the user's attention and not its frequency: all classes have the same weight, also in the
error, which is measured by cross-validation over blocks of cells.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.draw import polygon2mask

from hrviewer.errors import GroundTruthError, ModelError
from hrviewer.geometry import Rect
from hrviewer.io.features import Feature
from hrviewer.runs.heads.embeddings import BLOCK, FOLDS, Embeddings, Floats
from hrviewer.runs.heads.save_bundle import NO_SKLEARN, FittedHead, check_unused, write_head

__all__ = ["PlaceClassifier", "fit_place_classifier"]

MAX_CELLS_PER_CLASS = 4_000
"""Largest number of training cells of a class; of more, some are drawn at random."""
SAMPLED_ROWS = 16
"""Rows of embeddings from which their mean and spread are estimated."""

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PlaceClassifier(FittedHead):
    """A head that predicts the class of a place.

    Parameters
    ----------
    path, cells
        See `FittedHead`.
    error : float or None
        Cross-validated error rate on cells of left-out blocks, the mean over the classes; None
        where some class was labelled in a single block.
    classes : tuple of str
        The classes.
    cells_per_class : tuple of int
        Cells of each class.
    """

    classes: tuple[str, ...]
    cells_per_class: tuple[int, ...]

    @property
    def training_summary(self) -> str:
        """The training data, as text."""
        pairs = zip(self.cells_per_class, self.classes, strict=True)
        return f"{self.cells:,} cells: " + ", ".join(f"{n:,} {name}" for n, name in pairs)

    @property
    def validation_summary(self) -> str:
        """The cross-validated errors, as text."""
        if self.error is None:
            side = f"{BLOCK} × {BLOCK} cells"
            return f"unknown: label each class in at least two blocks of {side}"
        chance = 1 - 1 / len(self.classes)
        return f"error rate {self.error:.1%}, the mean over classes (by chance {chance:.0%})"

    @property
    def metrics(self) -> dict[str, Any]:
        """The cross-validated errors, for its card."""
        return {
            "what": f"cross-validation over blocks of {BLOCK} x {BLOCK} cells: error rate, mean "
            "over the classes",
            "error": None if self.error is None else round(self.error, 4),
        }


def fit_place_classifier(
    embeddings: Embeddings,
    labels: Sequence[Feature],
    out: Path,
    *,
    region: Rect | None = None,
) -> PlaceClassifier:
    """Fit a classifier of places, and write it as a model bundle.

    Parameters
    ----------
    embeddings : Embeddings
        The inputs.
    labels : sequence of Feature
        Points, which label the cell around them, and outlines, which label the cells whose centres
        lie inside. Of several labels of a cell the last one counts.
    out : Path
        Folder of the model bundle; it must not exist.
    region : Rect, optional
        Labels outside it are ignored.

    Raises
    ------
    HrviewerError
        If fewer than two classes are labelled on embeddings, or scikit-learn is missing.
    """
    check_unused(out)
    classes = tuple(sorted({label.label for label in labels}))
    at, class_ids = labelled_cells(embeddings, labels, classes, region)
    inputs, known = read_cells(embeddings, at)
    at, class_ids = at[known], class_ids[known]
    if len(np.unique(class_ids)) < 2:
        labelled = ", ".join(classes[k] for k in np.unique(class_ids)) or "none"
        raise GroundTruthError(
            f"label at least two classes where there are embeddings, not {labelled}"
        )
    # Classes without embeddings are dropped.
    present, class_ids = np.unique(class_ids, return_inverse=True)
    classes = tuple(classes[k] for k in present)
    mean, spread = mean_and_spread(embeddings)
    inputs = (inputs - mean) / spread
    blocks = at[:, 0] // BLOCK * embeddings.values.shape[2] + at[:, 1] // BLOCK
    weights, bias = fit_logistic(inputs, class_ids)
    counts = Counter(class_ids.tolist())
    head = PlaceClassifier(
        out,
        len(class_ids),
        cross_validated_error(inputs, class_ids, blocks),
        classes,
        tuple(counts[k] for k in range(len(classes))),
    )
    weights = weights / spread
    card = {
        "title": f"{', '.join(classes)}: fitted to embeddings",
        "task": "segmentation",
        "architecture": {
            "name": "embedding-classifier",
            "params": {"embedding_dim": inputs.shape[1], "classes": len(classes)},
        },
        "output": {"stride": 1, "halo": 0, "classes": classes, "activation": "softmax"},
    }
    provenance = {
        "encoder": embeddings.encoder,
        "labels": dict(zip(classes, head.cells_per_class, strict=True)),
    }
    write_head(head, {"head": (weights, bias - weights @ mean)}, card, provenance)
    return head


def labelled_cells(
    embeddings: Embeddings, labels: Sequence[Feature], classes: Sequence[str], region: Rect | None
) -> tuple[Ints, Ints]:
    """Return rows and columns ``(n, 2)`` of labelled cells and their classes ``(n,)``."""
    shape = embeddings.values.shape[1:]
    inside = Rect(0, 0, *shape)
    if region is not None:
        y, x = (int(-(-at // embeddings.cell)) for at in (region.y, region.x))
        y1, x1 = (int(at // embeddings.cell) for at in (region.y1, region.x1))
        inside &= Rect(y, x, max(0, y1 - y), max(0, x1 - x))
    parts = []
    for label in labels:
        at = (
            np.array([label.point]) // embeddings.cell
            if label.point
            else cells_in_outline(label, embeddings.cell)
        )
        class_id = classes.index(label.label)
        parts.append(np.column_stack([at, np.full(len(at), class_id)]).astype(np.int64))
    rows = np.concatenate([np.empty((0, 3), np.int64), *parts])[::-1]
    low, high = np.array([inside.y, inside.x]), np.array([inside.y1, inside.x1])
    rows = rows[((rows[:, :2] >= low) & (rows[:, :2] < high)).all(axis=1)]
    # The last label of a cell stands first now, and is the one that `unique` finds.
    _, first = np.unique(rows[:, 0] * shape[1] + rows[:, 1], return_index=True)
    rows = rows[first]
    rng = np.random.default_rng(0)
    cells = [np.flatnonzero(rows[:, 2] == class_id) for class_id in range(len(classes))]
    drawn = [
        rng.choice(w, MAX_CELLS_PER_CLASS, replace=False) if len(w) > MAX_CELLS_PER_CLASS else w
        for w in cells
    ]
    rows = rows[np.sort(np.concatenate([np.empty(0, np.int64), *drawn]))]
    return rows[:, :2], rows[:, 2]


def cells_in_outline(label: Feature, cell: float) -> Ints:
    """Return the cells whose centres lie in an outline, ``(n, 2)``."""
    y, x, h, w = label.box
    top, left = int(y // cell), int(x // cell)
    shape = int((y + h) // cell) + 1 - top, int((x + w) // cell) + 1 - left
    mask = np.zeros(shape, bool)
    for polygon in label.polygons:
        for ring in polygon:  # a hole inverts the cells inside
            mask ^= polygon2mask(shape, ring / cell - (top, left) - 0.5)
    cells: Ints = np.argwhere(mask) + np.array([top, left])
    return cells


def read_cells(embeddings: Embeddings, at: Ints) -> tuple[Floats, NDArray[np.bool_]]:
    """Return the known embeddings ``(m, d)`` of cells ``(n, 2)``, and a mask of these cells."""
    values = np.full((len(at), embeddings.values.shape[0]), np.nan)
    bands = at[:, 0] // 64
    for band in np.unique(bands):
        members = np.flatnonzero(bands == band)
        (top, left), (bottom, right) = at[members].min(axis=0), at[members].max(axis=0) + 1
        strip = np.asarray(embeddings.values[:, top:bottom, left:right], np.float64)
        values[members] = strip[:, at[members, 0] - top, at[members, 1] - left].T
    known = np.asarray(np.isfinite(values).all(axis=1))
    return values[known], known


def mean_and_spread(embeddings: Embeddings) -> tuple[Floats, Floats]:
    """Return mean and standard deviation of embeddings: a few labelled ones would not do."""
    rows = np.unique(np.linspace(0, embeddings.values.shape[1] - 1, SAMPLED_ROWS).astype(int))
    sample = [np.asarray(embeddings.values[:, row], np.float64) for row in rows]
    values = np.concatenate(sample, axis=1)
    values = values[:, np.isfinite(values).all(axis=0)]
    if values.shape[1] < 2:
        return np.zeros(len(values)), np.ones(len(values))
    spread = values.std(axis=1)
    return values.mean(axis=1), np.where(spread > 0, spread, 1)


def fit_logistic(inputs: Floats, class_ids: Ints) -> tuple[Floats, Floats]:
    """Return the weights ``(k, d)`` and the bias ``(k,)`` of a softmax over linear functions.

    The regularisation is scikit-learn's default: it is not selected on the validation data.
    """
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError:
        raise ModelError(NO_SKLEARN) from None
    model = LogisticRegression(class_weight="balanced", max_iter=2000).fit(inputs, class_ids)
    weights, bias = (np.asarray(x, np.float64) for x in (model.coef_, model.intercept_))
    if len(weights) == 1:
        weights, bias = np.concatenate([-weights, weights]) / 2, np.concatenate([-bias, bias]) / 2
    return weights, bias


def cross_validated_error(inputs: Floats, class_ids: Ints, blocks: Ints) -> float | None:
    """Return the error rate of heads on blocks that they were not fitted to."""
    from sklearn.model_selection import StratifiedGroupKFold

    classes = np.unique(class_ids)
    folds = min(FOLDS, *(len(np.unique(blocks[class_ids == class_id])) for class_id in classes))
    if folds < 2:
        return None
    predicted = np.full(len(class_ids), -1)
    split = StratifiedGroupKFold(folds, shuffle=True, random_state=0)
    for train, test in split.split(inputs, class_ids, blocks):
        known = np.unique(class_ids[train])
        if len(known) < 2:  # all training cells are of one class
            predicted[test] = known[0]
            continue
        weights, bias = fit_logistic(inputs[train], class_ids[train])
        predicted[test] = known[(inputs[test] @ weights.T + bias).argmax(axis=1)]
    return float(
        np.mean([(predicted[class_ids == class_id] != class_id).mean() for class_id in classes])
    )
