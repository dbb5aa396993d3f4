"""Classifier of images, fitted to one label per image.

Attention pooling over the embeddings of each image, and a linear classifier with a softmax (Ilse,
Tomczak and Welling, *Attention-based Deep Multiple Instance Learning*, ICML 2018): the weights of
places are fitted together with their classes. The regularisation is fixed, not selected on the
validation data, so the cross-validated error is unbiased.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.errors import GroundTruthError, ModelError, RunError
from hrviewer.runs.heads.embeddings import FOLDS, Floats, read_embeddings
from hrviewer.runs.heads.place_classifier import read_cells
from hrviewer.runs.heads.save_bundle import NO_SKLEARN, FittedHead, check_unused, write_head
from hrviewer.runs.run import Run

__all__ = ["ImageClassifier", "fit_image_classifier"]

MAX_EMBEDDINGS = 32_768
"""Largest number of embeddings of all images; of more, equally many are drawn from each."""
HIDDEN_WIDTH = 8
"""Width of the hidden layer of the attention scores."""
L2_PENALTY = 0.1
"""Weight of the squared weights, relative to the log likelihood of an image."""
MAX_ITERATIONS = 200

Bags = Sequence[Floats]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ImageClassifier(FittedHead):
    """A head that predicts the class of an image.

    Parameters
    ----------
    path, cells
        See `FittedHead`.
    error : float or None
        Cross-validated error rate, the mean over the classes; None where some class has a single
        image.
    classes : tuple of str
        The classes.
    images_per_class : tuple of int
        Images of each class.
    """

    classes: tuple[str, ...]
    images_per_class: tuple[int, ...]

    @property
    def training_summary(self) -> str:
        """The training data, as text."""
        pairs = zip(self.images_per_class, self.classes, strict=True)
        classes = ", ".join(f"{n:,} {name}" for n, name in pairs)
        return f"{sum(self.images_per_class):,} images, {self.cells:,} embeddings: {classes}"

    @property
    def validation_summary(self) -> str:
        """The cross-validated errors, as text."""
        if self.error is None:
            return "unknown: give at least two images of each class"
        chance = 1 - 1 / len(self.classes)
        return f"error rate {self.error:.1%}, the mean over classes (by chance {chance:.0%})"

    @property
    def metrics(self) -> dict[str, Any]:
        """The cross-validated errors, for its card."""
        return {
            "what": "cross-validation over images: error rate, mean over the classes",
            "error": None if self.error is None else round(self.error, 4),
        }


@dataclass(frozen=True, slots=True)
class _PoolingWeights:
    """Weights of the classifier, and of projection, gate and output of the attention scores."""

    head: Floats
    projection: Floats
    gate: Floats
    score: Floats

    @classmethod
    def from_vector(cls, vector: Floats, d: int, k: int) -> _PoolingWeights:
        """Return the weights from one vector, in this order; each row ends in its bias."""
        ends = np.cumsum([k * (d + 1), HIDDEN_WIDTH * (d + 1), HIDDEN_WIDTH * (d + 1)])
        head, projection, gate, score = np.split(vector, ends)
        head, projection, gate = (part.reshape(-1, d + 1) for part in (head, projection, gate))
        return cls(head, projection, gate, score)


def fit_image_classifier(runs: Sequence[Run], labels: Sequence[str], out: Path) -> ImageClassifier:
    """Fit a classifier of images, and write it as a model bundle.

    Parameters
    ----------
    runs : sequence of Run
        One run per image, of the strategy ``compression`` with the same encoder.
    labels : sequence of str
        Class of counts image.
    out : Path
        Folder of the model bundle; it must not exist.

    Raises
    ------
    HrviewerError
        If there are fewer than two classes, a run has no embeddings or another encoder, or
        scikit-learn is missing.
    """
    check_unused(out)
    classes = tuple(sorted(set(labels)))
    if len(classes) < 2:
        raise GroundTruthError(
            f"give images of at least two classes, not only {', '.join(classes)}"
        )
    class_ids = np.array([classes.index(label) for label in labels])
    encoder = read_embeddings(runs[0]).encoder
    bags = [_sample_embeddings(run, encoder, MAX_EMBEDDINGS // len(runs)) for run in runs]
    inputs = np.concatenate(bags)
    mean, spread = inputs.mean(axis=0), inputs.std(axis=0)
    spread[spread == 0] = 1
    bags = [(bag - mean) / spread for bag in bags]
    counts = Counter(class_ids.tolist())
    head = ImageClassifier(
        out,
        len(inputs),
        cross_validated_error(bags, class_ids),
        classes,
        tuple(counts[k] for k in range(len(classes))),
    )
    pooling = fit_attention_pooling(bags, class_ids)
    layers: dict[str, tuple[Floats, Floats | None]] = {"score": (pooling.score[None], None)}
    for name in ("head", "projection", "gate"):
        weights: Floats = getattr(pooling, name)
        scaled = weights[:, :-1] / spread
        layers[name] = scaled, weights[:, -1] - scaled @ mean
    card = {
        "title": f"{', '.join(classes)}: fitted to images",
        "task": "classification",
        "architecture": {
            "name": "attention-head",
            "params": {"embedding_dim": len(mean), "classes": len(classes), "width": HIDDEN_WIDTH},
        },
        "output": {
            "stride": 1,
            "halo": 0,
            "classes": classes,
            "activation": "softmax",
            "attention": True,
        },
    }
    provenance = {
        "encoder": encoder,
        "images": dict(zip(classes, head.images_per_class, strict=True)),
    }
    write_head(head, layers, card, provenance)
    return head


def fit_attention_pooling(bags: Bags, class_ids: Ints) -> _PoolingWeights:
    """Return the weights of least loss; all classes have the same weight."""
    from scipy.optimize import minimize

    d, k = bags[0].shape[1], int(class_ids.max()) + 1
    rng = np.random.default_rng(0)
    sizes = k * (d + 1), 2 * HIDDEN_WIDTH * (d + 1), HIDDEN_WIDTH
    start = np.concatenate(
        [
            np.zeros(sizes[0]),
            rng.normal(0, d**-0.5, sizes[1]),
            rng.normal(0, HIDDEN_WIDTH**-0.5, sizes[2]),
        ]
    )
    lengths = [len(bag) for bag in bags]
    starts, owner = np.cumsum([0, *lengths[:-1]]), np.repeat(np.arange(len(bags)), lengths)
    inputs = np.concatenate(bags)
    inputs = np.column_stack([inputs, np.ones(len(inputs))])
    targets = np.eye(k)[class_ids]
    counts = np.bincount(class_ids, minlength=k).clip(1)
    class_weights = (len(class_ids) / k / counts)[class_ids, None]

    def loss(vector: Floats) -> tuple[float, Floats]:
        head = _PoolingWeights.from_vector(vector, d, k)
        # Forward.
        projected, gate = (
            np.tanh(inputs @ head.projection.T),
            1 / (1 + np.exp(-inputs @ head.gate.T)),
        )
        score = (projected * gate) @ head.score
        part = np.exp(score - np.maximum.reduceat(score, starts)[owner])
        part /= np.add.reduceat(part, starts)[owner]
        pooled = np.add.reduceat(part[:, None] * inputs, starts)
        logits = pooled @ head.head.T
        logits -= logits.max(axis=1, keepdims=True)
        log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        # Backward.
        errors = class_weights * (np.exp(log_probabilities) - targets)
        by_part = (inputs * (errors @ head.head)[owner]).sum(axis=1)
        by_score = part * (by_part - np.add.reduceat(part * by_part, starts)[owner])
        inner = by_score[:, None] * head.score
        gradient = np.concatenate(
            [
                (errors.T @ pooled).ravel(),
                ((inner * gate * (1 - projected**2)).T @ inputs).ravel(),
                ((inner * projected * gate * (1 - gate)).T @ inputs).ravel(),
                (projected * gate).T @ by_score,
            ]
        )
        likelihood = (class_weights * targets * log_probabilities).sum()
        penalty = L2_PENALTY / 2 * (vector @ vector)
        return float(penalty - likelihood), gradient + L2_PENALTY * vector

    best = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": MAX_ITERATIONS})
    return _PoolingWeights.from_vector(np.asarray(best.x, np.float64), d, k)


def predict_class(weights: _PoolingWeights, bag: Floats) -> int:
    """Return the class of an image."""
    inputs = np.column_stack([bag, np.ones(len(bag))])
    gate = 1 / (1 + np.exp(-inputs @ weights.gate.T))
    score = (np.tanh(inputs @ weights.projection.T) * gate) @ weights.score
    part = np.exp(score - score.max())
    return int((weights.head @ (part @ inputs)).argmax())


def cross_validated_error(bags: Bags, class_ids: Ints) -> float | None:
    """Return the error rate of heads on images that they were not fitted to."""
    try:
        from sklearn.model_selection import StratifiedKFold
    except ImportError:
        raise ModelError(NO_SKLEARN) from None
    counts = np.bincount(class_ids)
    folds = min(FOLDS, int(counts.min()))
    if folds < 2:
        return None
    predicted = np.empty_like(class_ids)
    split = StratifiedKFold(folds, shuffle=True, random_state=0)
    for train, test in split.split(class_ids[:, None], class_ids):
        weights = fit_attention_pooling([bags[i] for i in train], class_ids[train])
        predicted[test] = [predict_class(weights, bags[i]) for i in test]
    rates = [(predicted[class_ids == k] != k).mean() for k in range(len(counts))]
    return float(np.mean(rates))


def _sample_embeddings(run: Run, encoder: str, limit: int) -> Floats:
    """Return at most `limit` embeddings of a run, ``(n, d)``, drawn at random."""
    embeddings = read_embeddings(run)
    if embeddings.encoder != encoder:
        raise RunError(
            f"{run.path} has embeddings of another encoder: run all images with the same one"
        )
    region, cell = run.region, embeddings.cell
    rows, columns = (
        np.arange(int(start // cell), min(end, int(-(-stop // cell))))
        for start, stop, end in (
            (region.y, region.y1, embeddings.values.shape[1]),
            (region.x, region.x1, embeddings.values.shape[2]),
        )
    )
    n = len(rows) * len(columns)
    drawn = np.sort(np.random.default_rng(0).choice(n, min(n, limit), replace=False))
    at = np.column_stack([rows[drawn // len(columns)], columns[drawn % len(columns)]])
    values, _ = read_cells(embeddings, at.astype(np.int64))
    if not len(values):
        raise RunError(f"{run.path} has no embeddings: finish its run of the strategy compression")
    return values
