"""What a place is, learned from a few labels.

Logistic regression of the labels of codes: a linear head under a softmax. Labels are put where
somebody thought of it, so how often each was given says nothing: all classes weigh the same, and
so they do in the error, which is measured on blocks of cells that were left out.
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

from hrviewer.errors import HrviewerError
from hrviewer.geometry import Rect
from hrviewer.io.features import Feature
from hrviewer.runs.heads.embeddings import BLOCK, FOLDS, Embeddings, Floats
from hrviewer.runs.heads.save_bundle import NO_SKLEARN, FittedHead, check_unused, write_head

__all__ = ["PlaceClassifier", "fit_place_classifier"]

MAX_CELLS_PER_CLASS = 4_000
"""Cells of a class that are fitted to; of more, some are drawn at random."""
SAMPLED_ROWS = 16
"""Rows of codes that say how much codes usually differ."""

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PlaceClassifier(FittedHead):
    """A head that says what places are.

    Parameters
    ----------
    path, cells
        See `Fitted`.
    error : float or None
        Part of the cells that are told wrongly by heads that were not fitted to their block, the
        mean over the classes; None where some class was labelled in a single block.
    classes : tuple of str
        What it tells apart.
    cells_per_class : tuple of int
        Cells of each class.
    """

    classes: tuple[str, ...]
    cells_per_class: tuple[int, ...]

    @property
    def training_summary(self) -> str:
        """What it was fitted to, in words."""
        named = zip(self.cells_per_class, self.classes, strict=True)
        return f"{self.cells:,} cells: " + ", ".join(f"{n:,} {name}" for n, name in named)

    @property
    def validation_summary(self) -> str:
        """How good it is on what it was not fitted to, in words."""
        if self.error is None:
            side = f"{BLOCK} × {BLOCK} cells"
            return f"not known: label every class in two places, blocks of {side} apart"
        chance = 1 - 1 / len(self.classes)
        return f"{self.error:.1%} told wrongly, the mean over classes (by chance {chance:.0%})"

    @property
    def metrics(self) -> dict[str, Any]:
        """The same in numbers, for its card."""
        return {
            "what": f"of cells in blocks of {BLOCK} x {BLOCK} that were left out: part that is "
            "told wrongly, mean over the classes",
            "error": None if self.error is None else round(self.error, 4),
        }


def fit_place_classifier(
    embeddings: Embeddings,
    labels: Sequence[Feature],
    out: Path,
    *,
    region: Rect | None = None,
) -> PlaceClassifier:
    """Fit a head that says what places are, and write it as a pack.

    Parameters
    ----------
    embeddings : Kept
        The codes.
    labels : sequence of Feature
        Points, each of which labels the cell that it lies in, and outlines, which label the cells
        whose centres lie inside. Of several labels of a cell the last one counts.
    out : Path
        The pack's folder; nothing may be there yet.
    region : Rect, optional
        Labels elsewhere are left out.

    Raises
    ------
    UserError
        If fewer than two classes are labelled where codes are known, or scikit-learn is missing.
    """
    check_unused(out)
    classes = tuple(sorted({label.label for label in labels}))
    at, kinds = labelled_cells(embeddings, labels, classes, region)
    inputs, found = read_cells(embeddings, at)
    at, kinds = at[found], kinds[found]
    if len(np.unique(kinds)) < 2:
        known = ", ".join(classes[k] for k in np.unique(kinds)) or "none"
        raise HrviewerError(f"two classes must be labelled where codes are known, not {known}")
    # A class of which no code is known is none.
    there, kinds = np.unique(kinds, return_inverse=True)
    classes = tuple(classes[k] for k in there)
    mean, spread = mean_and_spread(embeddings)
    inputs = (inputs - mean) / spread
    blocks = at[:, 0] // BLOCK * embeddings.values.shape[2] + at[:, 1] // BLOCK
    weights, bias = fit_logistic(inputs, kinds)
    each = Counter(kinds.tolist())
    fitted = PlaceClassifier(
        out,
        len(kinds),
        cross_validated_error(inputs, kinds, blocks),
        classes,
        tuple(each[k] for k in range(len(classes))),
    )
    weights = weights / spread
    card = {
        "title": f"{', '.join(classes)}: fitted to codes",
        "task": "segmentation",
        "architecture": {
            "name": "embedding-classifier",
            "params": {"embedding_dim": inputs.shape[1], "classes": len(classes)},
        },
        "output": {"stride": 1, "halo": 0, "classes": classes, "activation": "softmax"},
    }
    made = {
        "encoder": embeddings.encoder,
        "labels": dict(zip(classes, fitted.cells_per_class, strict=True)),
    }
    write_head(fitted, {"head": (weights, bias - weights @ mean)}, card, made)
    return fitted


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
        number = classes.index(label.label)
        parts.append(np.column_stack([at, np.full(len(at), number)]).astype(np.int64))
    every = np.concatenate([np.empty((0, 3), np.int64), *parts])[::-1]
    low, high = np.array([inside.y, inside.x]), np.array([inside.y1, inside.x1])
    every = every[((every[:, :2] >= low) & (every[:, :2] < high)).all(axis=1)]
    # The last label of a cell stands first now, and is the one that `unique` finds.
    _, first = np.unique(every[:, 0] * shape[1] + every[:, 1], return_index=True)
    every = every[first]
    chance = np.random.default_rng(0)
    some = [np.flatnonzero(every[:, 2] == kind) for kind in range(len(classes))]
    drawn = [
        chance.choice(w, MAX_CELLS_PER_CLASS, replace=False) if len(w) > MAX_CELLS_PER_CLASS else w
        for w in some
    ]
    every = every[np.sort(np.concatenate([np.empty(0, np.int64), *drawn]))]
    return every[:, :2], every[:, 2]


def cells_in_outline(label: Feature, cell: float) -> Ints:
    """Return the cells whose centres lie in an outline, ``(n, 2)``."""
    y, x, h, w = label.box
    top, left = int(y // cell), int(x // cell)
    shape = int((y + h) // cell) + 1 - top, int((x + w) // cell) + 1 - left
    mask = np.zeros(shape, bool)
    for polygon in label.polygons:
        for ring in polygon:  # a hole, too, turns what it holds
            mask ^= polygon2mask(shape, ring / cell - (top, left) - 0.5)
    found: Ints = np.argwhere(mask) + np.array([top, left])
    return found


def read_cells(embeddings: Embeddings, at: Ints) -> tuple[Floats, NDArray[np.bool_]]:
    """Return the codes of those cells ``(n, 2)`` that are known, ``(m, d)``, and which they are."""
    found = np.full((len(at), embeddings.values.shape[0]), np.nan)
    bands = at[:, 0] // 64
    for band in np.unique(bands):
        some = np.flatnonzero(bands == band)
        (top, left), (bottom, right) = at[some].min(axis=0), at[some].max(axis=0) + 1
        strip = np.asarray(embeddings.values[:, top:bottom, left:right], np.float64)
        found[some] = strip[:, at[some, 0] - top, at[some, 1] - left].T
    known = np.asarray(np.isfinite(found).all(axis=1))
    return found[known], known


def mean_and_spread(embeddings: Embeddings) -> tuple[Floats, Floats]:
    """Return mean and spread of codes in general: a few labels would not tell."""
    rows = np.unique(np.linspace(0, embeddings.values.shape[1] - 1, SAMPLED_ROWS).astype(int))
    some = [np.asarray(embeddings.values[:, row], np.float64) for row in rows]
    codes = np.concatenate(some, axis=1)
    codes = codes[:, np.isfinite(codes).all(axis=0)]
    if codes.shape[1] < 2:
        return np.zeros(len(codes)), np.ones(len(codes))
    spread = codes.std(axis=1)
    return codes.mean(axis=1), np.where(spread > 0, spread, 1)


def fit_logistic(inputs: Floats, kinds: Ints) -> tuple[Floats, Floats]:
    """Return the weights ``(k, d)`` and the bias ``(k,)`` of a softmax over linear functions.

    The strength is scikit-learn's own: nothing is chosen, so what is left out is judged fairly.
    """
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError:
        raise HrviewerError(NO_SKLEARN) from None
    model = LogisticRegression(class_weight="balanced", max_iter=2000).fit(inputs, kinds)
    weights, bias = (np.asarray(x, np.float64) for x in (model.coef_, model.intercept_))
    if len(weights) == 1:
        weights, bias = np.concatenate([-weights, weights]) / 2, np.concatenate([-bias, bias]) / 2
    return weights, bias


def cross_validated_error(inputs: Floats, kinds: Ints, blocks: Ints) -> float | None:
    """Return the part that heads tell wrongly of blocks that they were not fitted to."""
    from sklearn.model_selection import StratifiedGroupKFold

    classes = np.unique(kinds)
    folds = min(FOLDS, *(len(np.unique(blocks[kinds == kind])) for kind in classes))
    if folds < 2:
        return None
    said = np.full(len(kinds), -1)
    split = StratifiedGroupKFold(folds, shuffle=True, random_state=0)
    for learned, asked in split.split(inputs, kinds, blocks):
        known = np.unique(kinds[learned])
        if len(known) < 2:  # all that is left is of one class
            said[asked] = known[0]
            continue
        weights, bias = fit_logistic(inputs[learned], kinds[learned])
        said[asked] = known[(inputs[asked] @ weights.T + bias).argmax(axis=1)]
    return float(np.mean([(said[kinds == kind] != kind).mean() for kind in classes]))
