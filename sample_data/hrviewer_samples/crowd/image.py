"""The synthetic image `crowd`: a city square and its streets, viewed obliquely from above.

Everything stands on the ground's plan (`city`), people on their own lattice (`people`).
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from hrviewer.geometry import Rect
from hrviewer.ground_truth import GroundTruth
from hrviewer.pyramid.resample import block_mean
from hrviewer.pyramid.synthetic import SyntheticImage
from numpy.typing import NDArray

from hrviewer_samples.crowd import paint
from hrviewer_samples.crowd.city import make_world, person_pixels
from hrviewer_samples.crowd.people import HEAD, people_in

__all__ = ["Crowd"]


class Crowd(SyntheticImage):
    """A city square and its streets, with its people."""

    title: ClassVar[str] = "City square"
    classes: ClassVar[tuple[str, ...]] = ("person",)
    version: ClassVar[int] = 2
    populated: ClassVar[bool] = True

    def __init__(self, size: int, seed: int) -> None:
        super().__init__(size, seed)
        self._world = make_world(size, seed)

    def render(self, rect: Rect, scale: int) -> NDArray[np.uint8]:
        """Return the pixels of a rectangle."""
        # Coarse pixels are means of finer ones: shapes far below a pixel are hard to weigh.
        fine = 1 if scale == 1 else (2 if scale < 16 else 4)
        height, width = -(-rect.h // scale) * fine, -(-rect.w // scale) * fine
        pixels: NDArray[np.uint8] = paint.render(
            self._world, rect.y, rect.x, height, width, scale // fine, self.populated
        )
        return block_mean(pixels, fine)

    def ground_truth(self, rect: Rect) -> GroundTruth:
        """Return the people whose head's centre lies in `rect`, from back to front."""
        pad = 2 + 1.8 * person_pixels(self._world, rect.y1)
        found = people_in(
            self._world, rect.y - pad, rect.x - pad, rect.y1 + 1.3 * pad, rect.x1 + pad
        )
        return self._ground_truth(found).clip(rect)

    def labels(self, rect: Rect) -> NDArray[np.int32]:
        """Return the instance map; shadows have no instance."""
        owner, found = paint.instances(self._world, rect.y, rect.x, rect.h, rect.w)
        points = self._ground_truth(found).points
        low, high = (rect.y, rect.x), (rect.y1, rect.x1)
        inside = ((points >= low) & (points < high)).all(axis=1)
        first = np.where(inside, np.cumsum(inside), inside.sum() + np.cumsum(~inside))
        numbers = np.concatenate([[0], first]).astype(np.int32)
        return numbers[owner]

    def _ground_truth(self, found: NDArray[np.float64]) -> GroundTruth:
        """Return people as ground truth."""
        y, x = found[:, 0], found[:, 1]
        height = 1.7 * (self._world.far + self._world.slope * y)
        points = np.stack([y - HEAD * height, x], axis=1)
        boxes = np.stack([y - height, x - 0.2 * height, height, 0.4 * height], axis=1)
        return GroundTruth(points, self.classes, boxes=boxes)
