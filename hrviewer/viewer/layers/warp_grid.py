"""Warps on the screen: their grids over the image, and what the network saw through them.

Invariant: at most about `MOST` lines are drawn, whatever the warps' number: nodes that would lie
closer than `APART` screen pixels are left out.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from napari.layers import Image, Vectors
from numpy.typing import NDArray

from hrviewer.engine.warp_sampling import sample
from hrviewer.geometry import Rect
from hrviewer.pyramid import Pyramid
from hrviewer.strategies import WarpRequest
from hrviewer.strategies.nonuniform.grid_sampler import forward
from hrviewer.viewer.image.image_layer import METADATA_KEY, placement

__all__ = ["WarpGrid", "grid_lines", "warp_preview"]

MAX_LINES = 20_000
MIN_SPACING_PX = 10.0
LINE_WIDTH = 1.0
GRID_COLOUR = "#ffd54f"


class WarpGrid:
    """A `Vectors` layer of the warps' grids, which follows the view.

    Parameters
    ----------
    image_layer : Image
        What the warps sampled.
    """

    def __init__(self, image_layer: Image) -> None:
        self.layer = Vectors(
            np.zeros((0, 2, 2)),
            name="warped grid",
            vector_style="line",
            edge_color=GRID_COLOUR,
            edge_width=1,
            opacity=0.55,
            blending="translucent_no_depth",
            metadata={METADATA_KEY: {"overlay": "grid"}},
            **placement(image_layer, 1.0),
        )
        self._drawn_view: tuple[Mapping[Rect, WarpRequest], Rect, float] | None = None

    def draw(self, warps: Mapping[Rect, WarpRequest], view: Rect, pixel: float) -> None:
        """Draw the grids of the warps in view.

        Parameters
        ----------
        warps : mapping
            All of them, by what they answer for; other ones are another mapping.
        view : Rect
            What is visible, level-0 pixels.
        pixel : float
            Level-0 pixels per screen pixel.
        """
        if abs(self.layer.edge_width / (LINE_WIDTH * pixel) - 1) > 0.01:
            self.layer.edge_width = LINE_WIDTH * pixel
        if self._drawn_view is not None:
            known, covered, width = self._drawn_view
            if known is warps and view in covered and 0.5 < pixel / width < 2:
                return
        covered = view.pad(max(view.h, view.w) // 2)
        self._drawn_view = warps, covered, pixel
        near = [warp for core, warp in warps.items() if not (core & covered).empty]
        found = [grid_lines(warp, warp_core(warp), MIN_SPACING_PX * pixel) for warp in near]
        drawn = np.concatenate(found) if found else np.zeros((0, 2, 2))
        self.layer.data = drawn if len(drawn) <= MAX_LINES else np.zeros((0, 2, 2))


def warp_core(warp: WarpRequest) -> Rect:
    """Return what a warp answers for."""
    return warp.rect if warp.core is None else warp.core


def grid_lines(warp: WarpRequest, core: Rect, spacing: float) -> NDArray[np.float64]:
    """Return a warp's grid within its core as lines ``(start, direction)``, in data coordinates.

    Parameters
    ----------
    warp : Warp
        The warp.
    core : Rect
        Lines whose start lies outside are left out.
    spacing : float
        How far apart nodes must be at least on average, level-0 pixels.
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


def warp_preview(
    pyramid: Pyramid, warp: WarpRequest, max_side: int = 384
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return what the network saw through a warp, and an even picture of the same size.

    Parameters
    ----------
    pyramid : Pyramid
        What was looked at.
    warp : Warp
        How.
    max_side : int
        Longest side of the pictures: larger canvases are shown smaller.

    Returns
    -------
    warped, even : ndarray of uint8, shape (h, w, 3)
    """
    shrink = max(1.0, max(warp.shape) / max_side)
    shape = max(1, round(warp.shape[0] / shrink)), max(1, round(warp.shape[1] / shrink))
    nodes = np.linspace(0, 1, 2)
    even = np.stack(np.meshgrid(nodes, nodes, indexing="ij"), axis=-1)
    rect = warp.rect & pyramid.rect
    pictures = [sample(pyramid, rect, grid, shape) for grid in (warp.grid, even)]
    low, high = 0.0, 255.0
    if pyramid.dtype != np.uint8:
        low, high = map(float, np.percentile(pictures[1], (0.5, 99.5)))
    shown = []
    for picture in pictures:
        picture = picture if picture.shape[2] >= 3 else np.repeat(picture[..., :1], 3, axis=2)
        scaled = (picture[..., :3] - low) * (255 / max(high - low, 1e-9))
        shown.append(np.clip(scaled, 0, 255).astype(np.uint8))
    return shown[0], shown[1]
