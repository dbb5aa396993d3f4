"""The borders of the patches in view, as thin lines of constant width on the screen.

Invariant: at most `MOST` patches are outlined, whatever the run's size, so that drawing them
costs the same for a hundred patches and for a hundred thousand. Where more are in view they are
too small for outlines, and `Outlines.draw` says so: the raster of patches is shown instead.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from napari.layers import Image, Vectors
from numpy.typing import NDArray

from hrviewer.engine import PatchRow
from hrviewer.geometry import Rect
from hrviewer.viewer.colours import OUTLINE, STYLES
from hrviewer.viewer.levels import KEY, placement

__all__ = ["MOST", "Outlines", "borders"]

MOST = 2000
WIDTH = 2.0
"""Of a line, in screen pixels; a whole number, or some lines would be thicker than others."""


class Outlines:
    """A `Vectors` layer that follows the view.

    Parameters
    ----------
    base : Image
        The layer that the patches lie on.
    """

    def __init__(self, base: Image) -> None:
        self.layer = Vectors(
            np.zeros((0, 2, 2)),
            name="patches",
            vector_style="line",
            edge_color=np.array(OUTLINE),
            edge_width=1,
            opacity=STYLES["patches"].opacity,
            blending="translucent_no_depth",
            metadata={KEY: {"overlay": "patches"}},
            **placement(base, 1.0),
        )
        self._base = base
        self._rects = np.zeros((0, 4))
        self._drawn: tuple[int, Rect, float] | None = None
        self._of: Sequence[PatchRow] = ()

    def draw(self, patches: Sequence[PatchRow], view: Rect, pixel: float) -> bool:
        """Outline the patches in view.

        Parameters
        ----------
        patches : sequence of PatchRow
            All of them. A list only ever grows; where patches were taken away it is another one.
        view : Rect
            What is visible, level-0 pixels.
        pixel : float
            Level-0 pixels per screen pixel.

        Returns
        -------
        bool
            False if there are too many in view.
        """
        if patches is not self._of:
            self._of, self._rects, self._drawn = patches, np.zeros((0, 4)), None
        n = len(patches)
        if abs(self.layer.edge_width / (WIDTH * pixel) - 1) > 0.01:
            self.layer.edge_width = WIDTH * pixel
        if self._drawn is not None:
            count, covered, width = self._drawn
            if n == count and view in covered and 0.5 < pixel / width < 2:
                return len(self._visible(covered)) <= MOST
        if n > len(self._rects):
            new = [(p.y, p.x, p.h, p.w) for p in patches[len(self._rects) : n]]
            self._rects = np.concatenate([self._rects, np.array(new, float)])
        covered = view.pad(max(view.h, view.w) // 2)
        rects = self._visible(covered)
        self._drawn = n, covered, pixel
        few = len(rects) <= MOST
        self.layer.data = borders(rects) if few else np.zeros((0, 2, 2))
        return few

    def _visible(self, view: Rect) -> NDArray[np.float64]:
        y, x, h, w = self._rects.T
        inside = (y < view.y1) & (y + h > view.y) & (x < view.x1) & (x + w > view.x)
        return self._rects[inside]


def borders(rects: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return four lines, ``(start, direction)``, for each ``(y, x, h, w)``, in data coordinates.

    Pixel centres are at whole numbers, so a rectangle begins half a pixel before its first.
    """
    y, x, h, w = rects.T
    zero = np.zeros(len(rects))
    top, left = y - 0.5, x - 0.5
    starts = np.stack([top, left, top, left + w, top + h, left + w, top + h, left], axis=1)
    ways = np.stack([zero, w, h, zero, zero, -w, -h, zero], axis=1)
    lines = np.stack([starts.reshape(-1, 2), ways.reshape(-1, 2)], axis=1)
    return lines
