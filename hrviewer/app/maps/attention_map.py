"""Attention of tokens: of a clicked one, received by each, and merged tokens.

`update` is called on a worker thread and writes into arrays that are never replaced.
"""

from __future__ import annotations

import colorsys
import math

import numpy as np
from numpy.typing import NDArray

from hrviewer.engine import Canvas, TokenAttention
from hrviewer.geometry import Rect

__all__ = ["AttentionMap", "token_colours"]

MIN_CELL = 16
"""Side of a cell, level-0 pixels: that of the smallest tokens."""

MAX_CELLS = 1 << 22
"""Cells, at most; in a larger image, each covers several tokens."""

GOLDEN_RATIO = (5**0.5 - 1) / 2


class AttentionMap:
    """Attention of one image's tokens, as far as tokens were clicked.

    Parameters
    ----------
    image : Rect
        The whole image.

    Attributes
    ----------
    cell : float
        Side of a cell of the maps, level-0 pixels.
    weights : ndarray of float32, shape (rows, columns)
        Attention of the clicked token to each place, relative to its maximum; NaN where it attends
        to nothing.
    attention_received : ndarray of float32, shape (rows, columns)
        Mean attention that each place receives in the last layer, relative to the maximum of its
        region: the network's own saliency. NaN where no token was clicked.
    merged : ndarray of uint8, shape (rows, columns, 4)
        Merged tokens share a colour; others are transparent.
    changed : bool
        Whether it changed since it was displayed.
    """

    def __init__(self, image: Rect) -> None:
        self.image, self.cell = image, float(MIN_CELL)
        while math.prod(Canvas.shape(image, self.cell)) > MAX_CELLS:
            self.cell *= 2
        shape = Canvas.shape(image, self.cell)
        self.weights = np.full(shape, np.nan, np.float32)
        self.attention_received = np.full(shape, np.nan, np.float32)
        self.merged = np.zeros((*shape, 4), np.uint8)
        self.changed = False

    def update(self, found: TokenAttention, y: float, x: float) -> None:
        """Draw a group's attention, and that of its token at a place, in level-0 pixels."""
        inside = [
            i
            for i, square in enumerate(found.token_rects)
            if found.predicted[i] and square.y <= y < square.y1 and square.x <= x < square.x1
        ]
        if not inside:
            return
        weights = found.weights[inside[0]]
        taken = found.weights[found.predicted].mean(axis=0)
        own = np.flatnonzero(found.predicted)
        colours = token_colours(found.merge_group)
        self.weights[:] = np.nan
        # Wider squares are drawn first: rings of context contain those within them, and the tokens.
        for i in sorted(range(len(found.token_rects)), key=lambda i: -found.token_rects[i].h):
            at = self._cells_in(found.token_rects[i])
            self.weights[at] = weights[i] / weights.max()
        for token in own:
            at = self._cells_in(found.token_rects[token])
            self.weights[at] = weights[token] / weights.max()
            self.attention_received[at] = taken[token] / taken[own].max()
            self.merged[at] = colours[token]
        self.changed = True

    def clear(self, rect: Rect) -> None:
        """Remove the attention in a rectangle of level-0 pixels."""
        at = self._cells_in(rect)
        self.weights[at] = self.attention_received[at] = np.nan
        self.merged[at] = 0
        self.changed = True

    def _cells_in(self, rect: Rect) -> tuple[slice, slice]:
        """Return the cells whose centre is in a rectangle, at least one."""
        rect = rect & self.image
        spans = []
        for low, high in ((rect.y, rect.y1), (rect.x, rect.x1)):
            first, last = (math.ceil(at / self.cell - 0.5) for at in (low, high))
            if first == last:
                first, last = int(low // self.cell), int(low // self.cell) + 1
            spans.append(slice(first, last))
        return spans[0], spans[1]


def token_colours(owner: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return a colour for each token, ``(n, 4)``: transparent where it was not merged."""
    of, counts = np.unique(owner, return_inverse=True, return_counts=True)[1:]
    hues = (np.arange(len(counts)) * GOLDEN_RATIO) % 1  # neighbours in number are far apart in hue
    palette = np.array([[*colorsys.hsv_to_rgb(hue, 0.75, 1.0), 1.0] for hue in hues])
    palette[counts == 1] = 0
    return np.asarray(np.round(palette * 255)[of], np.uint8)
