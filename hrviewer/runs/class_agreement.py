"""Agreement of class maps: of two runs, and of a run with a label map of ground truth.

Maps are read in bands of rows, so that memory does not depend on their size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.io.run_maps import is_exclusive, most_likely
from hrviewer.runs.estimates import EstimateDict
from hrviewer.runs.metrics import DiceAccumulator
from hrviewer.runs.run import Run

__all__ = [
    "ClassDice",
    "class_errors",
    "embedding_distance",
    "read_at",
    "run_dice",
    "total_variation",
]

Floats = NDArray[np.floating[Any]]

BAND_VALUES = 1 << 23
"""Values that are read at once of each map."""


class ClassDice:
    """Dice coefficients by class, accumulated over parts of two class maps.

    Parameters
    ----------
    names : sequence of str
        The classes.
    exclusive : bool
        Whether a place has the class of the highest value; else each class with one above a half.
    """

    def __init__(self, names: Sequence[str], *, exclusive: bool) -> None:
        self.names, self.exclusive = tuple(names), exclusive
        self._together = DiceAccumulator(len(names))
        self._each = [DiceAccumulator(1) for _ in names]

    def add(self, predicted: Floats, expected: Floats | NDArray[np.integer[Any]]) -> None:
        """Count the places of a part.

        Parameters
        ----------
        predicted : ndarray, shape (k, h, w)
            Probabilities or shares; a place with NaN is of no class.
        expected : ndarray, shape (k, h, w) or (h, w)
            The same; or numbers of classes, others than 0 to k - 1 being of no class.
        """
        if self.exclusive:
            other = (
                most_likely(np.asarray(expected, float))
                if expected.ndim == 3
                else expected.astype(np.int64)
            )
            self._together.add(most_likely(predicted), other)
            return
        for i, scores in enumerate(self._each):
            other = expected[i] > 0.5 if expected.ndim == 3 else expected == i
            scores.add(np.where(predicted[i] > 0.5, 0, -1), np.where(other, 0, -1))

    def dice(self) -> dict[str, float]:
        """Return the coefficient of each class; 1 where no place has it in either map."""
        values = (
            self._together.dice().tolist()
            if self.exclusive
            else [float(scores.dice()[0]) for scores in self._each]
        )
        return dict(zip(self.names, values, strict=True))


def read_at(cells: Any, cell: float, ys: Floats, xs: Floats) -> Floats:
    """Return the values of a map ``(k, rows, columns)`` at positions, ``(k, ys, xs)``."""
    rows, columns = (
        np.clip((at / cell).astype(np.intp), 0, n - 1)
        for at, n in ((ys, cells.shape[1]), (xs, cells.shape[2]))
    )
    values = np.asarray(cells[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    return values[:, (rows - rows[0])[:, None], columns - columns[0]]


def iter_shared(run: Run, other: Run) -> Iterator[tuple[Floats, Floats]]:
    """Yield the outputs of two runs of one region, a band of the finer map's rows at a time."""
    (cells, cell), (others, other_cell) = run.map("output"), other.map("output")
    step, region = min(cell, other_cell), run.region
    columns = centers(region.x, region.x1, step)
    band = max(1, BAND_VALUES // (len(columns) * max(1, cells.shape[0])))
    rows = centers(region.y, region.y1, step)
    for start in range(0, len(rows), band):
        ys = rows[start : start + band]
        yield read_at(cells, cell, ys, columns), read_at(others, other_cell, ys, columns)


def centers(start: int, end: int, step: float) -> Floats:
    """Return the centres of the cells that an interval touches."""
    return (np.arange(int(start / step), int(np.ceil(end / step))) + 0.5) * step


def run_dice(run: Run, reference: Run) -> dict[str, float] | None:
    """Return the Dice coefficient of each class between the maps of two runs of one region.

    Returns
    -------
    dict of str to float, or None
        None if they have no classes in common, or a run has not processed all of the region.
    """
    estimates = run.estimate, reference.estimate
    if any(
        one is None or one["kind"] not in ("area", "probabilities") or len(one["per_class"]) < 1
        for one in estimates
    ):
        return None
    covered = min(run.coverage, reference.coverage) >= 100
    return _run_dice(*map(_key, (run, reference))) if covered else None


def _key(run: Run) -> tuple[Path, int]:
    return run.path, (run.path / "run.json").stat().st_mtime_ns


@lru_cache(maxsize=256)
def _run_dice(one: tuple[Path, int], other: tuple[Path, int]) -> dict[str, float] | None:
    """Return the coefficients of two stored runs, which are read once as long as they stay."""
    run, reference = Run(one[0]), Run(other[0])
    assert run.estimate is not None
    assert reference.estimate is not None
    names = [*run.estimate["per_class"]]
    if names != [*reference.estimate["per_class"]]:
        return None
    scores = ClassDice(names, exclusive=is_exclusive(run.estimate))
    for values, expected in iter_shared(run, reference):
        scores.add(values, expected)
    return scores.dice()


def embedding_distance(run: Run, reference: Run) -> float | None:
    """Return the mean cosine distance of the embeddings of two runs of one region.

    None where they share no cell with embeddings of one width.
    """
    if run.map("output")[0].shape[0] != reference.map("output")[0].shape[0]:
        return None
    total, n = 0.0, 0
    for values, expected in iter_shared(run, reference):
        a, b = (np.asarray(part, np.float64) for part in (values, expected))
        norms = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
        cosine = (a * b).sum(axis=0)[norms > 0] / norms[norms > 0]  # NaN is not above zero
        total, n = total + float((1 - cosine).sum()), n + cosine.size
    return total / n if n else None


def class_errors(a: EstimateDict, b: EstimateDict) -> dict[str, float]:
    """Return the difference of two estimates for each class: of shares, means or counts.

    Examples
    --------
    >>> one = {"kind": "probabilities", "per_class": {"tumour": 0.5, "normal": 0.5}}
    >>> other = {"kind": "probabilities", "per_class": {"tumour": 0.25, "normal": 0.75}}
    >>> class_errors(one, other)
    {'tumour': 0.25, 'normal': -0.25}
    """
    first, second = (estimate.get("fraction", estimate["per_class"]) for estimate in (a, b))
    return {name: first[name] - second[name] for name in second if name in first}


def total_variation(a: EstimateDict, b: EstimateDict) -> float:
    """Return half the sum of absolute differences between the class shares of two estimates."""
    return sum(map(abs, class_errors(a, b).values())) / 2
