"""What a whole image is, learned from one label for each of several.

Attention pooling over the codes of each image, and a linear function under a softmax (Ilse, Tomczak
and Welling, *Attention-based Deep Multiple Instance Learning*, ICML 2018): which places tell is
learned together with what they tell. All weights are kept small, with one strength that nobody
chooses, so what is said of images that were left out is fair.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.errors import HrviewerError
from hrviewer.runs.heads.embeddings import FOLDS, Floats, read_embeddings
from hrviewer.runs.heads.place_classifier import read_cells
from hrviewer.runs.heads.save_bundle import NO_SKLEARN, FittedHead, check_unused, write_head
from hrviewer.runs.run import Run

__all__ = ["ImageClassifier", "fit_image_classifier"]

MAX_EMBEDDINGS = 32_768
"""Codes of all images together; of more, as many are drawn from each."""
HIDDEN_WIDTH = 8
"""Numbers that a place's score is made of."""
L2_PENALTY = 0.1
"""How much a weight's square counts beside the logarithmic likelihood of an image."""
MAX_ITERATIONS = 200

Bags = Sequence[Floats]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ImageClassifier(FittedHead):
    """A head that says what images are.

    Parameters
    ----------
    path, cells
        See `Fitted`.
    error : float or None
        Part of the images that are told wrongly by heads that were not fitted to them, the mean
        over the classes; None where some class has a single image.
    classes : tuple of str
        What it tells apart.
    images_per_class : tuple of int
        Images of each class.
    """

    classes: tuple[str, ...]
    images_per_class: tuple[int, ...]

    @property
    def training_summary(self) -> str:
        """What it was fitted to, in words."""
        named = zip(self.images_per_class, self.classes, strict=True)
        said = ", ".join(f"{n:,} {name}" for n, name in named)
        return f"{sum(self.images_per_class):,} images of {self.cells:,} codes: {said}"

    @property
    def validation_summary(self) -> str:
        """How good it is on what it was not fitted to, in words."""
        if self.error is None:
            return "not known: give two images of every class, or more"
        chance = 1 - 1 / len(self.classes)
        return f"{self.error:.1%} told wrongly, the mean over classes (by chance {chance:.0%})"

    @property
    def metrics(self) -> dict[str, Any]:
        """The same in numbers, for its card."""
        return {
            "what": "of images that were left out: part told wrongly, mean over the classes",
            "error": None if self.error is None else round(self.error, 4),
        }


@dataclass(frozen=True, slots=True)
class _PoolingWeights:
    """Weights: of the classes, of what a score is made of and of its gate, and of the score."""

    head: Floats
    projection: Floats
    gate: Floats
    score: Floats

    @classmethod
    def from_vector(cls, vector: Floats, d: int, k: int) -> _PoolingWeights:
        """Return it of as many numbers, in this order; each row ends in its bias."""
        ends = np.cumsum([k * (d + 1), HIDDEN_WIDTH * (d + 1), HIDDEN_WIDTH * (d + 1)])
        head, projection, gate, score = np.split(vector, ends)
        head, projection, gate = (part.reshape(-1, d + 1) for part in (head, projection, gate))
        return cls(head, projection, gate, score)


def fit_image_classifier(runs: Sequence[Run], labels: Sequence[str], out: Path) -> ImageClassifier:
    """Fit a head that says what images are, and write it as a pack.

    Parameters
    ----------
    runs : sequence of Run
        One of each image, of the strategy ``compression``, by one encoder.
    labels : sequence of str
        What each image is.
    out : Path
        The pack's folder; nothing may be there yet.

    Raises
    ------
    UserError
        If fewer than two classes are given, a run kept no codes or those of another encoder, or
        scikit-learn is missing.
    """
    check_unused(out)
    classes = tuple(sorted(set(labels)))
    if len(classes) < 2:
        raise HrviewerError(f"images of two classes are needed, not only {', '.join(classes)}")
    kinds = np.array([classes.index(label) for label in labels])
    encoder = read_embeddings(runs[0]).encoder
    bags = [_sample_embeddings(run, encoder, MAX_EMBEDDINGS // len(runs)) for run in runs]
    together = np.concatenate(bags)
    mean, spread = together.mean(axis=0), together.std(axis=0)
    spread[spread == 0] = 1
    bags = [(bag - mean) / spread for bag in bags]
    each = Counter(kinds.tolist())
    fitted = ImageClassifier(
        out,
        len(together),
        cross_validated_error(bags, kinds),
        classes,
        tuple(each[k] for k in range(len(classes))),
    )
    learned = fit_attention_pooling(bags, kinds)
    layers: dict[str, tuple[Floats, Floats | None]] = {"score": (learned.score[None], None)}
    for name in ("head", "projection", "gate"):
        weights: Floats = getattr(learned, name)
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
    made = {"encoder": encoder, "images": dict(zip(classes, fitted.images_per_class, strict=True))}
    write_head(fitted, layers, card, made)
    return fitted


def fit_attention_pooling(bags: Bags, kinds: Ints) -> _PoolingWeights:
    """Return the head of least loss; all classes weigh the same."""
    from scipy.optimize import minimize

    d, k = bags[0].shape[1], int(kinds.max()) + 1
    chance = np.random.default_rng(0)
    sizes = k * (d + 1), 2 * HIDDEN_WIDTH * (d + 1), HIDDEN_WIDTH
    start = np.concatenate(
        [
            np.zeros(sizes[0]),
            chance.normal(0, d**-0.5, sizes[1]),
            chance.normal(0, HIDDEN_WIDTH**-0.5, sizes[2]),
        ]
    )
    lengths = [len(bag) for bag in bags]
    starts, owner = np.cumsum([0, *lengths[:-1]]), np.repeat(np.arange(len(bags)), lengths)
    inputs = np.concatenate(bags)
    inputs = np.column_stack([inputs, np.ones(len(inputs))])
    truth = np.eye(k)[kinds]
    weigh = (len(kinds) / k / np.bincount(kinds, minlength=k).clip(1))[kinds, None]

    def loss(numbers: Floats) -> tuple[float, Floats]:
        head = _PoolingWeights.from_vector(numbers, d, k)
        # There …
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
        likely = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        # … and back.
        off = weigh * (np.exp(likely) - truth)
        by_part = (inputs * (off @ head.head)[owner]).sum(axis=1)
        by_score = part * (by_part - np.add.reduceat(part * by_part, starts)[owner])
        inner = by_score[:, None] * head.score
        slope = np.concatenate(
            [
                (off.T @ pooled).ravel(),
                ((inner * gate * (1 - projected**2)).T @ inputs).ravel(),
                ((inner * projected * gate * (1 - gate)).T @ inputs).ravel(),
                (projected * gate).T @ by_score,
            ]
        )
        total = -(weigh * truth * likely).sum() + L2_PENALTY / 2 * (numbers @ numbers)
        return float(total), slope + L2_PENALTY * numbers

    best = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": MAX_ITERATIONS})
    return _PoolingWeights.from_vector(np.asarray(best.x, np.float64), d, k)


def predict_class(weights: _PoolingWeights, bag: Floats) -> int:
    """Return the class of an image."""
    inputs = np.column_stack([bag, np.ones(len(bag))])
    gate = 1 / (1 + np.exp(-inputs @ weights.gate.T))
    score = (np.tanh(inputs @ weights.projection.T) * gate) @ weights.score
    part = np.exp(score - score.max())
    return int((weights.head @ (part @ inputs)).argmax())


def cross_validated_error(bags: Bags, kinds: Ints) -> float | None:
    """Return the part that heads tell wrongly of images that they were not fitted to."""
    try:
        from sklearn.model_selection import StratifiedKFold
    except ImportError:
        raise HrviewerError(NO_SKLEARN) from None
    counts = np.bincount(kinds)
    folds = min(FOLDS, int(counts.min()))
    if folds < 2:
        return None
    said = np.empty_like(kinds)
    split = StratifiedKFold(folds, shuffle=True, random_state=0)
    for learned, asked in split.split(kinds[:, None], kinds):
        head = fit_attention_pooling([bags[i] for i in learned], kinds[learned])
        said[asked] = [predict_class(head, bags[i]) for i in asked]
    return float(np.mean([(said[kinds == kind] != kind).mean() for kind in range(len(counts))]))


def _sample_embeddings(run: Run, encoder: str, limit: int) -> Floats:
    """Return codes of a run, ``(n, d)``, drawn at random where there are more."""
    kept = read_embeddings(run)
    if kept.encoder != encoder:
        raise HrviewerError(f"{run.path} was encoded by another encoder: run all with the same one")
    region, cell = run.region, kept.cell
    rows, columns = (
        np.arange(int(start // cell), min(end, int(-(-stop // cell))))
        for start, stop, end in (
            (region.y, region.y1, kept.values.shape[1]),
            (region.x, region.x1, kept.values.shape[2]),
        )
    )
    n = len(rows) * len(columns)
    drawn = np.sort(np.random.default_rng(0).choice(n, min(n, limit), replace=False))
    at = np.column_stack([rows[drawn // len(columns)], columns[drawn % len(columns)]])
    codes, _ = read_cells(kept, at.astype(np.int64))
    if not len(codes):
        raise HrviewerError(f"{run.path} holds no codes: run the strategy compression to its end")
    return codes
