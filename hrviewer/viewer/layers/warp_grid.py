"""Layer of the warps' grids over the image.

Invariant: at most about `MAX_LINES` lines are drawn, however many warps there are: nodes closer
than `MIN_SPACING_PX` screen pixels are left out.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from napari.layers import Image, Vectors
from numpy.typing import NDArray

from hrviewer.app.image_session import Viewport
from hrviewer.geometry import Rect
from hrviewer.strategies import WarpRequest
from hrviewer.strategies.nonuniform.grid_sampler import forward
from hrviewer.viewer.image.geometry import METADATA_KEY, isotropic_placement
from hrviewer.viewer.layers.layer_list import NO_LINES, as_vectors

__all__ = ["WarpGrid", "grid_lines"]

MAX_LINES = 20_000
MIN_SPACING_PX = 10.0
LINE_WIDTH = 1.0
GRID_COLOUR = "#ffd54f"


class WarpGrid:
    """A `Vectors` layer of the warps' grids, which follows the view.

    Parameters
    ----------
    image_layer : Image
        The image that the warps sample.
    """

    def __init__(self, image_layer: Image) -> None:
        place, self._units = isotropic_placement(image_layer)
        self.layer = Vectors(
            NO_LINES,
            name="warp grid",
            vector_style="line",
            edge_color=GRID_COLOUR,
            edge_width=1,
            opacity=0.55,
            blending="translucent_no_depth",
            metadata={METADATA_KEY: {"overlay": "grid"}},
            **place,
        )
        self._drawn_view: tuple[Mapping[Rect, WarpRequest], Rect, float] | None = None

    def draw(self, warps: Mapping[Rect, WarpRequest], viewport: Viewport) -> None:
        """Draw the grids of the warps in view.

        Parameters
        ----------
        warps : mapping
            All of them, by the core that they predict; other ones are another mapping.
        viewport : Viewport
            Visible part of the image.
        """
        view, pixel = viewport.rect, viewport.side
        if abs(self.layer.edge_width / (LINE_WIDTH * pixel) - 1) > 0.01:
            self.layer.edge_width = LINE_WIDTH * pixel
        if self._drawn_view is not None:
            known, covered, width = self._drawn_view
            if known is warps and view in covered and 0.5 < pixel / width < 2:
                return
        covered = view.pad(max(view.h, view.w) // 2)
        self._drawn_view = warps, covered, pixel
        near = [warp for core, warp in warps.items() if not (core & covered).empty]
        spacing = MIN_SPACING_PX * viewport.coarsest
        found = [grid_lines(warp, warp_core(warp), spacing) for warp in near]
        drawn = np.concatenate(found) if found else NO_LINES
        self.layer.data = as_vectors(drawn if len(drawn) <= MAX_LINES else drawn[:0]) * self._units


def warp_core(warp: WarpRequest) -> Rect:
    """Return the rectangle that a warp predicts."""
    return warp.rect if warp.core is None else warp.core


def grid_lines(warp: WarpRequest, core: Rect, spacing: float) -> NDArray[np.float64]:
    """Return a warp's grid within its core as lines ``(start, direction)``, in data coordinates.

    Parameters
    ----------
    warp : WarpRequest
        The warp.
    core : Rect
        Lines with their middle outside are left out.
    spacing : float
        Least mean distance of nodes, level-0 pixels.
    """
    g = len(warp.grid) - 1
    side = max(1.0, min(warp.rect.h, warp.rect.w) / g)
    n = max(2, min(g, int(g * side / max(spacing, 1e-9))))
    t = np.linspace(0, 1, n + 1)
    nodes = forward(warp.grid, np.stack(np.meshgrid(t, t, indexing="ij"), axis=-1))
    nodes = nodes * (warp.rect.h, warp.rect.w) + (warp.rect.y - 0.5, warp.rect.x - 0.5)
    found = []
    for starts, ends in ((nodes[:-1], nodes[1:]), (nodes[:, :-1], nodes[:, 1:])):
        start, end = starts.reshape(-1, 2), ends.reshape(-1, 2)
        middle = (start + end) / 2 + 0.5
        inside = ((middle >= (core.y, core.x)) & (middle < (core.y1, core.x1))).all(axis=1)
        found.append(np.stack([start, end - start], axis=1)[inside])
    return np.concatenate(found)
