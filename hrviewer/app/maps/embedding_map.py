"""Embeddings of an image as colours, and their similarity to a selected location.

The three principal axes of the embeddings become red, green and blue. They are fitted to the first
embeddings of an image and then stay, so that no colour changes while the view moves. `update` is
called on the run's thread, `find_similar` on a worker thread; both write single numbers into arrays
that are never replaced.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.engine import Canvas, InferenceResult
from hrviewer.geometry import Rect

__all__ = ["EmbeddingMap", "principal_axes"]

MAX_CELLS = 1 << 20
"""Cells, at most; in a larger image, each is the mean of several embeddings."""

FIT_PATCHES = 16
"""Patches to which the colours are fitted."""

COLOUR_RANGE = 2.5
"""Standard deviations on either side of the mean that the colours span."""

FloatArray = NDArray[np.float32]


def principal_axes(embeddings: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the mean of embeddings ``(n, d)`` and their principal axes ``(d, 3)``.

    Each axis is divided by its standard deviation, and its largest component is positive.
    """
    mean = embeddings.mean(axis=0)
    variances, vectors = np.linalg.eigh(
        np.cov(embeddings.T.astype(np.float64)).reshape((len(mean),) * 2)
    )
    axes = np.zeros((len(mean), 3))
    for i in range(min(3, len(mean))):
        axis = vectors[:, -1 - i]
        axis = axis * np.sign(axis[np.abs(axis).argmax()])
        axes[:, i] = axis / math.sqrt(max(variances[-1 - i], 1e-12))
    return mean, axes.astype(np.float32)


class EmbeddingMap:
    """Embeddings of one image, as far as they are known.

    Parameters
    ----------
    image : Rect
        The whole image.
    width : int
        Dimension of an embedding.
    cell : float
        Side of the square that an embedding describes, level-0 pixels.

    Attributes
    ----------
    cell : float
        Side of a cell of the maps, level-0 pixels.
    colours : ndarray of uint8, shape (rows, columns, 4)
        Transparent where there is no embedding.
    similarity : ndarray of float32, shape (rows, columns)
        Similarity to the selected location: 1 for equal embeddings, 0 for the median distance and
        beyond; NaN where there is no embedding, or no location was selected.
    changed, similarity_changed : bool
        Whether something changed since it was displayed, and whether that is the similarity.
    """

    def __init__(self, image: Rect, width: int, cell: float) -> None:
        self.image, self.cell = image, cell
        while math.prod(Canvas.shape(image, self.cell)) > MAX_CELLS:
            self.cell *= 2
        shape = Canvas.shape(image, self.cell)
        values = np.full((width, *shape), np.nan, np.float16)
        detail = np.full(shape, np.nan, np.float32)
        self._canvas = Canvas(image, self.cell, values, detail, "intensity")
        self.colours = np.zeros((*shape, 4), np.uint8)
        self.similarity = np.full(shape, np.nan, np.float32)
        self.changed = self.similarity_changed = False
        self._fitted_places: list[Rect] = []
        self._mean, self._axes = np.zeros(width, np.float32), np.zeros((width, 3), np.float32)
        self._query: tuple[FloatArray, float] | None = None

    @classmethod
    def from_array(cls, image: Rect, array: Any, cell: float) -> EmbeddingMap:
        """Return the embeddings of a finished run, ``(d, rows, columns)``."""
        embeddings = cls(image, array.shape[0], cell)
        n = round(embeddings.cell / cell)
        rows = 64 * n
        for row in range(0, array.shape[1], rows):
            strip = np.asarray(array[:, row : row + rows], np.float32)
            box = row * cell, 0.0, strip.shape[1] * cell, strip.shape[2] * cell
            core = Rect(*map(round, box)) & image
            embeddings._canvas.paint(strip, box, core, 1.0)
        whole = Rect(0, 0, *embeddings.similarity.shape)
        embeddings._fit_colours([whole])
        embeddings._fitted_places = [whole] * FIT_PATCHES
        return embeddings

    @property
    def values(self) -> NDArray[np.float16]:
        """The embeddings, ``(d, rows, columns)``; NaN where there is none."""
        values: NDArray[np.float16] = self._canvas.values
        return values

    def update(self, result: InferenceResult) -> None:
        """Draw the embeddings of a patch."""
        where = self._canvas.paint(result.map, result.box, result.patch.core, result.patch.scale)
        if where is None:
            return
        if len(self._fitted_places) < FIT_PATCHES:
            self._fitted_places.append(where)
            self._fit_colours(self._fitted_places)
        else:
            self._update_colours(where)
        if self._query is not None:
            self._update_similarity(where, *self._query)
        self.changed = True

    def clear(self, rect: Rect) -> None:
        """Remove the embeddings in a rectangle of level-0 pixels."""
        rows = slice(int(rect.y // self.cell), math.ceil(rect.y1 / self.cell))
        columns = slice(int(rect.x // self.cell), math.ceil(rect.x1 / self.cell))
        self._canvas.values[:, rows, columns] = np.nan
        self._canvas.scales[rows, columns] = np.nan
        self.colours[rows, columns] = 0
        self.similarity[rows, columns] = np.nan
        self.changed = True

    def find_similar(self, y: float, x: float) -> bool:
        """Draw the similarity to a location, in level-0 pixels; False if it has no embedding."""
        row, column = int(y // self.cell), int(x // self.cell)
        if not (0 <= row < self.similarity.shape[0] and 0 <= column < self.similarity.shape[1]):
            return False
        query = self._canvas.values[:, row, column].astype(np.float32)
        if not np.isfinite(query).all():
            return False
        whole = Rect(0, 0, *self.similarity.shape)
        self._update_similarity(whole, query, 0.0)
        far = float(np.nanmedian(self.similarity))
        np.subtract(1, self.similarity / max(far, 1e-6), out=self.similarity)
        np.maximum(self.similarity, 0, out=self.similarity)
        self._query = query, max(far, 1e-6)
        self.changed = self.similarity_changed = True
        return True

    def _update_similarity(self, where: Rect, query: FloatArray, distance_scale: float) -> None:
        """Draw the similarity to an embedding; without a distance scale, the distance itself."""
        for row in range(where.y, where.y1, 64):
            rows, columns = slice(row, min(row + 64, where.y1)), slice(where.x, where.x1)
            embeddings = self._canvas.values[:, rows, columns].astype(np.float32)
            away = np.sqrt(((embeddings - query[:, None, None]) ** 2).mean(axis=0))
            self.similarity[rows, columns] = (
                np.maximum(0, 1 - away / distance_scale) if distance_scale else away
            )

    def _fit_colours(self, places: list[Rect]) -> None:
        some = [self._values_at(place).reshape(len(self._mean), -1).T for place in places]
        embeddings = np.concatenate(some)
        embeddings = embeddings[np.isfinite(embeddings).all(axis=1)]
        if len(embeddings) > 1:
            self._mean, self._axes = principal_axes(embeddings.astype(np.float32))
        for place in places:
            self._update_colours(place)

    def _update_colours(self, place: Rect) -> None:
        embeddings = self._values_at(place).astype(np.float32)
        known = np.asarray(np.isfinite(embeddings).all(axis=0))
        along = np.einsum(
            "dyx,dc->yxc", np.nan_to_num(embeddings) - self._mean[:, None, None], self._axes
        )
        shade = np.clip(127.5 + along * (127.5 / COLOUR_RANGE), 0, 255).astype(np.uint8)
        target = self.colours[place.y : place.y1, place.x : place.x1]
        target[..., :3] = np.where(known[..., None], shade, 0)
        target[..., 3] = np.where(known, 255, 0)

    def _values_at(self, place: Rect) -> NDArray[np.float16]:
        found: NDArray[np.float16] = self._canvas.values[:, place.y : place.y1, place.x : place.x1]
        return found
