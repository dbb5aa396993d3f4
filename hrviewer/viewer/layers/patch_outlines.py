"""Outlines of the patches in view, as thin lines of constant width on the screen.

Invariant: at most `MAX_OUTLINES` patches are outlined, so that drawing costs the same for a hundred
patches and for a hundred thousand. Where more are in view they are too small for outlines, and
`PatchOutlines.draw` returns False: the raster of patches is shown instead.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from napari.layers import Image, Vectors
from numpy.typing import NDArray

from hrviewer.app.image_session import Viewport
from hrviewer.engine import PatchRow
from hrviewer.geometry import Rect
from hrviewer.viewer.image.geometry import METADATA_KEY, isotropic_placement
from hrviewer.viewer.layers.layer_list import NO_LINES, as_vectors
from hrviewer.viewer.layers.styles import OUTLINE_COLOUR, OVERLAY_STYLES

__all__ = ["MAX_OUTLINES", "PatchOutlines", "outline_segments"]

MAX_OUTLINES = 2000
AREA_CELL_PX = 8.0
"""Screen pixels per side of the cells to which the area of very many patches is rounded."""

LINE_WIDTH = 2.0
"""Of a line, in screen pixels; a whole number, or lines would differ in thickness."""


class PatchOutlines:
    """A `Vectors` layer that follows the view.

    Parameters
    ----------
    image_layer : Image
        The image.

    Attributes
    ----------
    count : int
        Number of outlined patches.
    """

    def __init__(self, image_layer: Image) -> None:
        place, self._units = isotropic_placement(image_layer)
        self.layer = Vectors(
            NO_LINES,
            name="patches",
            vector_style="line",
            edge_color=np.array(OUTLINE_COLOUR),
            edge_width=1,
            opacity=OVERLAY_STYLES["patches"].opacity,
            blending="translucent_no_depth",
            metadata={METADATA_KEY: {"overlay": "patches", "over": image_layer.unique_id}},
            **place,
        )
        self._image_layer = image_layer
        self.count = 0
        self._rects = np.zeros((0, 4))
        self._drawn_view: tuple[int, Rect, float] | None = None
        self._patches: Sequence[PatchRow] = ()

    def draw(self, patches: Sequence[PatchRow], viewport: Viewport) -> None:
        """Outline the patches in view, of very many the area that those of each size cover.

        Parameters
        ----------
        patches : sequence of PatchRow
            All of them. A list only grows; after patches were removed it is another list.
        viewport : Viewport
            Visible part of the image.
        """
        if patches is not self._patches:
            self._patches, self._rects, self._drawn_view = patches, np.zeros((0, 4)), None
        n, view, pixel = len(patches), viewport.rect, viewport.side
        if abs(self.layer.edge_width / (LINE_WIDTH * pixel) - 1) > 0.01:
            self.layer.edge_width = LINE_WIDTH * pixel
        if self._drawn_view is not None:
            count, covered, width = self._drawn_view
            if n == count and view in covered and 0.5 < pixel / width < 2:
                return
        if n > len(self._rects):
            new = [(p.y, p.x, p.h, p.w) for p in patches[len(self._rects) : n]]
            self._rects = np.concatenate([self._rects, np.array(new, float)])
        covered = view.pad(max(view.h, view.w) // 2)
        rects = self._visible(covered)
        self._drawn_view = n, covered, pixel
        if len(rects) <= MAX_OUTLINES:
            self.count, segments = len(rects), outline_segments(rects)
        else:
            cell = AREA_CELL_PX * viewport.coarsest
            # By size: the tiles of a coarse pass cover everything, and would hide all others.
            size = np.log2(rects[:, 2:].max(axis=1)).round()
            sizes, counts = np.unique(size, return_counts=True)
            common = sizes[counts.argmax()]
            # The patch that the corner of the image cuts on two sides is one of the others.
            size[np.isin(size, sizes[(counts == 1) & (sizes < common)])] = common
            parts = [area_segments(rects[size == one], cell) for one in np.unique(size)]
            self.count, segments = 0, np.concatenate(parts)
        self.layer.data = as_vectors(segments * self._units)

    def _visible(self, view: Rect) -> NDArray[np.float64]:
        y, x, h, w = self._rects.T
        inside = (y < view.y1) & (y + h > view.y) & (x < view.x1) & (x + w > view.x)
        return self._rects[inside]


def outline_segments(rects: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return lines, ``(start, direction)``, along the borders of ``(y, x, h, w)``.

    Touching segments of one line are merged: neighbours share theirs, and a grid of n × m patches
    is n + m + 2 lines. napari draws its thumbnail of vectors one by one, in Python, which takes
    longer than all else when cached results are shown again.

    Pixel centres are at whole numbers, so a rectangle begins half a pixel before its first.
    """
    y, x, h, w = np.subtract(rects, (0.5, 0.5, 0, 0)).T
    level, left, right = merge_segments(np.r_[y, y + h], np.r_[x, x], np.r_[x + w, x + w])
    place, top, bottom = merge_segments(np.r_[x, x + w], np.r_[y, y], np.r_[y + h, y + h])
    starts = np.r_[np.c_[level, left], np.c_[top, place]]
    ends = np.r_[np.c_[level, right], np.c_[bottom, place]]
    return np.stack([starts, ends - starts], axis=1)


def area_segments(rects: NDArray[np.float64], cell: float) -> NDArray[np.float64]:
    """Return lines, ``(start, direction)``, around the area that ``(y, x, h, w)`` cover together.

    The area is rounded up to cells, as small as keeps the lines drawable.

    Parameters
    ----------
    rects : ndarray, shape (n, 4)
        Rectangles, level-0 pixels.
    cell : float
        Least side of a cell, level-0 pixels.
    """
    y, x, h, w = rects.T
    origin = np.array([y.min(), x.min()])
    top, left = (
        np.floor((low - o) / cell).astype(int) for low, o in zip((y, x), origin, strict=True)
    )
    bottom, right = (
        np.ceil((end - o) / cell - 1e-9).astype(int)
        for end, o in zip((y + h, x + w), origin, strict=True)
    )
    steps = np.zeros((bottom.max() + 2, right.max() + 2), np.int32)
    for rows, columns, sign in (
        (top, left, 1),
        (bottom, right, 1),
        (top, right, -1),
        (bottom, left, -1),
    ):
        np.add.at(steps, (rows + 1, columns + 1), sign)
    covered = steps.cumsum(axis=0).cumsum(axis=1) > 0
    row, column = np.nonzero(covered[1:] != covered[:-1])
    rows = merge_segments(*np.array([row, column - 1, column], float))
    row, column = np.nonzero(covered[:, 1:] != covered[:, :-1])
    columns = merge_segments(*np.array([column, row - 1, row], float))
    if len(rows[0]) + len(columns[0]) > 4 * MAX_OUTLINES:
        return area_segments(rects, 2 * cell)
    starts = np.r_[np.c_[rows[0], rows[1]], np.c_[columns[1], columns[0]]]
    ends = np.r_[np.c_[rows[0], rows[2]], np.c_[columns[2], columns[0]]]
    return np.stack([starts * cell + origin - 0.5, (ends - starts) * cell], axis=1)


def merge_segments(
    line: NDArray[np.float64], start: NDArray[np.float64], end: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Join segments of one line that overlap or touch; ``(n,)`` each, as is what comes back."""
    if not len(line):
        return line, start, end
    order = np.lexsort((start, line))
    line, start, end = line[order], start[order], end[order]
    # Lines are laid one behind the other, so that none reaches into the next.
    behind = np.r_[0, np.cumsum(np.diff(line) > 0)] * (end.max() - start.min() + 1)
    reach = np.maximum.accumulate(end + behind)
    first = np.flatnonzero(np.r_[True, (start + behind)[1:] > reach[:-1]])
    last = np.r_[first[1:], len(line)] - 1
    return line[first], start[first], (reach - behind)[last]
