"""Ground truth in and around the view: at most a few thousand of its objects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hrviewer.errors import GroundTruthError
from hrviewer.geometry import Rect
from hrviewer.ground_truth import GroundTruth
from hrviewer.io.ground_truth import read_ground_truth
from hrviewer.pyramid import Pyramid

__all__ = ["GroundTruthPoints", "GroundTruthSource"]

MAX_POINTS = 2000
"""Displayed objects; of more, every n-th is displayed."""

MAX_REGIONS = 8
"""Regions of runs whose objects are kept: a synthetic image renders to find them."""


class GroundTruthSource:
    """Where the ground truth of an image comes from: a file, or a synthetic image itself.

    Everything but `path` is for worker threads: files are read, images rendered.

    Parameters
    ----------
    open_image : callable
        Returns the image.
    path : Path, optional
        File with the objects; None asks a synthetic image itself.

    Attributes
    ----------
    in_region : callable
        As `find`, for the few regions that runs have: their objects are found once.
    """

    def __init__(self, open_image: Callable[[], Pyramid], path: Path | None) -> None:
        self._open_image, self.path = open_image, path
        self._read = cache(self._read_file)
        self.in_region = lru_cache(MAX_REGIONS)(self.find)

    def is_available(self) -> bool:
        """Return whether there is any ground truth; a file is read.

        Raises
        ------
        HrviewerError
            If the file cannot be read, or belongs to another image.
        """
        if self.path is None:
            return self._open_image().synthetic_image is not None
        self._read()
        return True

    def find(self, rect: Rect) -> GroundTruth:
        """Return the objects in a rectangle.

        Raises
        ------
        HrviewerError
            If the file cannot be read or belongs to another image, or the image has no ground
            truth.
        """
        if self.path is not None:
            return self._read().clip(rect)
        pyramid = self._open_image()
        found = pyramid.ground_truth(rect)
        if found is None:
            raise GroundTruthError(f"{pyramid.name} has no ground truth: choose a file that has it")
        return found

    def _read_file(self) -> GroundTruth:
        assert self.path is not None
        pyramid = self._open_image()
        return read_ground_truth(self.path, pyramid.path or pyramid.name, pyramid.plane_shape)


@dataclass(eq=False)
class GroundTruthPoints:
    """Displayed ground truth of one image.

    Parameters
    ----------
    source : GroundTruthSource
        Where it comes from.

    Attributes
    ----------
    points : ndarray, shape (n, 2)
        Displayed objects, level-0 pixels ``(y, x)``; replaced when the view leaves `covered`.
    covered : Rect or None
        Where objects were looked up.
    every_nth : int
        One object in so many is displayed.
    """

    source: GroundTruthSource
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
