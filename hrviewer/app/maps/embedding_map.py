"""What was encoded, as colours, and what looks like a place that was clicked.

The three directions in which codes differ most become red, green and blue. They are fitted to the
first codes of an image and then stay, so that nothing changes its colour while the view moves.
Nothing here knows of napari or Qt; `take` is called on the run's thread, `find` beside the
window's, and both write single numbers into arrays that are never replaced.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.engine import Canvas, Seen
from hrviewer.geometry import Rect

__all__ = ["Codes", "principal"]

LARGEST = 1 << 20
"""Cells that are kept; of a larger image, they stand for several codes each."""

FITTED = 16
"""Looks to which the colours are fitted."""

RANGE = 2.5
"""Standard deviations on either side of the mean that colours tell apart."""

Floats = NDArray[np.float32]


def principal(codes: Floats) -> tuple[Floats, Floats]:
    """Return the mean of codes ``(n, d)`` and the directions ``(d, 3)`` in which they differ most.

    Each direction is over its standard deviation, and its largest number is positive.
    """
    mean = codes.mean(axis=0)
    variances, vectors = np.linalg.eigh(
        np.cov(codes.T.astype(np.float64)).reshape((len(mean),) * 2)
    )
    axes = np.zeros((len(mean), 3))
    for i in range(min(3, len(mean))):
        axis = vectors[:, -1 - i]
        axis = axis * np.sign(axis[np.abs(axis).argmax()])
        axes[:, i] = axis / math.sqrt(max(variances[-1 - i], 1e-12))
    return mean, axes.astype(np.float32)


class Codes:
    """The codes of one image, as far as they are known.

    Parameters
    ----------
    image : Rect
        The whole image.
    width : int
        Numbers in a code.
    cell : float
        Side of what a code stands for, level-0 pixels.

    Attributes
    ----------
    cell : float
        Side of a cell of the maps, level-0 pixels.
    colours : ndarray of uint8, shape (rows, columns, 4)
        See-through where nothing is known.
    alike : ndarray of float32, shape (rows, columns)
        How much places are like the one that was asked for: 1 the same, 0 no more than half of
        what was known then; NaN where nothing is known, or nothing was asked for.
    changed, found : bool
        Whether there is something new to show, and whether that is what looks alike.
    """

    def __init__(self, image: Rect, width: int, cell: float) -> None:
        self.image, self.cell = image, cell
        while math.prod(Canvas.shape(image, self.cell)) > LARGEST:
            self.cell *= 2
        shape = Canvas.shape(image, self.cell)
        values = np.full((width, *shape), np.nan, np.float16)
        detail = np.full(shape, np.nan, np.float32)
        self._canvas = Canvas(image, self.cell, values, detail, "intensity")
        self.colours = np.zeros((*shape, 4), np.uint8)
        self.alike = np.full(shape, np.nan, np.float32)
        self.changed = self.found = False
        self._looks: list[Rect] = []
        self._mean, self._axes = np.zeros(width, np.float32), np.zeros((width, 3), np.float32)
        self._asked: tuple[Floats, float] | None = None

    @classmethod
    def of(cls, image: Rect, array: Any, cell: float) -> Codes:
        """Return the codes that a run kept, ``(d, rows, columns)``."""
        codes = cls(image, array.shape[0], cell)
        n = round(codes.cell / cell)
        rows = 64 * n
        for row in range(0, array.shape[1], rows):
            strip = np.asarray(array[:, row : row + rows], np.float32)
            box = row * cell, 0.0, strip.shape[1] * cell, strip.shape[2] * cell
            core = Rect(*map(round, box)) & image
            codes._canvas.paint(strip, box, core, 1.0)
        whole = Rect(0, 0, *codes.alike.shape)
        codes._fit([whole])
        codes._looks = [whole] * FITTED
        return codes

    @property
    def values(self) -> NDArray[np.float16]:
        """The codes themselves, ``(d, rows, columns)``; NaN where nothing is known."""
        values: NDArray[np.float16] = self._canvas.values
        return values

    def take(self, seen: Seen) -> None:
        """Draw what a look encoded."""
        where = self._canvas.paint(seen.map, seen.box, seen.patch.core, seen.patch.scale)
        if where is None:
            return
        if len(self._looks) < FITTED:
            self._looks.append(where)
            self._fit(self._looks)
        else:
            self._colour(where)
        if self._asked is not None:
            self._compare(where, *self._asked)
        self.changed = True

    def erase(self, rect: Rect) -> None:
        """Forget what is known of a rectangle of level-0 pixels."""
        rows = slice(int(rect.y // self.cell), math.ceil(rect.y1 / self.cell))
        columns = slice(int(rect.x // self.cell), math.ceil(rect.x1 / self.cell))
        self._canvas.values[:, rows, columns] = np.nan
        self._canvas.detail[rows, columns] = np.nan
        self.colours[rows, columns] = 0
        self.alike[rows, columns] = np.nan
        self.changed = True

    def find(self, y: float, x: float) -> bool:
        """Draw what looks like a place, in level-0 pixels; False where no code is known there."""
        row, column = int(y // self.cell), int(x // self.cell)
        if not (0 <= row < self.alike.shape[0] and 0 <= column < self.alike.shape[1]):
            return False
        asked = self._canvas.values[:, row, column].astype(np.float32)
        if not np.isfinite(asked).all():
            return False
        whole = Rect(0, 0, *self.alike.shape)
        self._compare(whole, asked, 0.0)
        far = float(np.nanmedian(self.alike))
        np.subtract(1, self.alike / max(far, 1e-6), out=self.alike)
        np.maximum(self.alike, 0, out=self.alike)
        self._asked = asked, max(far, 1e-6)
        self.changed = self.found = True
        return True

    def _compare(self, where: Rect, asked: Floats, far: float) -> None:
        """Draw how much codes are like one; with no distance to measure by, the distance itself."""
        for row in range(where.y, where.y1, 64):
            rows, columns = slice(row, min(row + 64, where.y1)), slice(where.x, where.x1)
            codes = self._canvas.values[:, rows, columns].astype(np.float32)
            away = np.sqrt(((codes - asked[:, None, None]) ** 2).mean(axis=0))
            self.alike[rows, columns] = np.maximum(0, 1 - away / far) if far else away

    def _fit(self, places: list[Rect]) -> None:
        some = [self._at(place).reshape(len(self._mean), -1).T for place in places]
        codes = np.concatenate(some)
        codes = codes[np.isfinite(codes).all(axis=1)]
        if len(codes) > 1:
            self._mean, self._axes = principal(codes.astype(np.float32))
        for place in places:
            self._colour(place)

    def _colour(self, place: Rect) -> None:
        codes = self._at(place).astype(np.float32)
        known = np.asarray(np.isfinite(codes).all(axis=0))
        along = np.einsum(
            "dyx,dc->yxc", np.nan_to_num(codes) - self._mean[:, None, None], self._axes
        )
        shade = np.clip(127.5 + along * (127.5 / RANGE), 0, 255).astype(np.uint8)
        target = self.colours[place.y : place.y1, place.x : place.x1]
        target[..., :3] = np.where(known[..., None], shade, 0)
        target[..., 3] = np.where(known, 255, 0)

    def _at(self, place: Rect) -> NDArray[np.float16]:
        found: NDArray[np.float16] = self._canvas.values[:, place.y : place.y1, place.x : place.x1]
        return found
