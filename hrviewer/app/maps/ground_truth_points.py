"""Ground truth in and around the view: at most a few thousand of its objects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hrviewer.errors import GroundTruthError
from hrviewer.geometry import Rect
from hrviewer.ground_truth import GroundTruth
from hrviewer.io.ground_truth import read_ground_truth
from hrviewer.pyramid import Pyramid

__all__ = ["GroundTruthPoints", "ground_truth_lookup"]

MAX_POINTS = 2000
"""Displayed objects; of more, every n-th is displayed."""

GroundTruthLookup = Callable[[Rect], GroundTruth]


def ground_truth_lookup(open_image: Callable[[], Pyramid], path: Path | None) -> GroundTruthLookup:
    """Return a function that finds the objects in a rectangle; it is called on a worker thread.

    Parameters
    ----------
    open_image : callable
        Returns the image; called on the worker thread.
    path : Path, optional
        File with the objects; None asks a synthetic image itself.
    """

    @cache
    def everything() -> GroundTruth:
        assert path is not None
        pyramid = open_image()
        return read_ground_truth(path, pyramid.path or pyramid.name, pyramid.plane_shape)

    def lookup(rect: Rect) -> GroundTruth:
        if path is not None:
            return everything().clip(rect)
        pyramid = open_image()
        if pyramid.synthetic_image is None:
            raise GroundTruthError(f"{pyramid.name} has no ground truth: choose a file that has it")
        return pyramid.synthetic_image.ground_truth(rect)

    return lookup


@dataclass(eq=False)
class GroundTruthPoints:
    """Displayed ground truth of one image.

    Parameters
    ----------
    lookup : callable
        See `ground_truth_lookup`.
    path : Path or None
        Its file; None for a synthetic image's own.

    Attributes
    ----------
    points : ndarray, shape (n, 2)
        Displayed objects, level-0 pixels ``(y, x)``; replaced when the view leaves `covered`.
    covered : Rect or None
        Where objects were looked up.
    every_nth : int
        One object in so many is displayed.
    """

    lookup: GroundTruthLookup
    path: Path | None
    points: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2)))
    covered: Rect | None = None
    every_nth: int = 1

    def covers(self, view: Rect) -> bool:
        """Whether the displayed objects suffice: they cover the view, and not far more than it."""
        if self.covered is None or view not in self.covered:
            return False
        return self.every_nth == 1 or self.covered.area <= 16 * view.area

    def update(self, covered: Rect, found: GroundTruth) -> str:
        """Display the objects of a rectangle; return a message with their number."""
        points = found.points
        self.covered, self.every_nth = covered, -(-len(points) // MAX_POINTS) or 1
        self.points = points[:: self.every_nth]
        part = f", 1 in {self.every_nth} displayed" if self.every_nth > 1 else ""
        objects = f"{len(points):,} object{'s' * (len(points) != 1)}"
        return f"{objects} in and around the view{part}"
