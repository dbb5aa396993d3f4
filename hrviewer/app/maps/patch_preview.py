"""Preview of a patch: the pixels that a network received as its input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hrviewer.engine import LoadedModels, PatchRow, model_info
from hrviewer.engine.preprocess import value_range
from hrviewer.engine.warp_sampling import sample
from hrviewer.geometry import Patch, Rect
from hrviewer.pyramid import Pyramid
from hrviewer.pyramid.resample import Fill
from hrviewer.strategies import WarpRequest, input_rect

__all__ = ["PatchInspection", "patch_preview", "warp_preview"]

PREVIEW_PX = 320
"""Longest side of a preview, in pixels."""


@dataclass(frozen=True, eq=False)
class PatchInspection:
    """An inspected patch, with its preview once that is read.

    For a warp `uniform_pixels` is the same rectangle, uniformly sampled to as many pixels. Of a
    detector `found` is the object at the point: its class, score and size. `predictions` are those
    of the patch by class, the largest first; empty for one class.
    """

    row: PatchRow
    pixels: NDArray[np.uint8] | None = None
    uniform_pixels: NDArray[np.uint8] | None = None
    found: str = ""
    predictions: Sequence[str] = ()


def patch_preview(
    pyramid: Pyramid, row: PatchRow, models: LoadedModels | None, halo: int | None = None
) -> NDArray[np.uint8]:
    """Return a network's input at a patch, small enough to display, ``(h, w, 3)``.

    Parameters
    ----------
    pyramid : Pyramid
        The image.
    row : PatchRow
        The patch.
    models : LoadedModels, optional
        For the input's channels, values and alignment; without them the core alone is shown.
    halo : int, optional
        Context around the core, in model pixels; by default the card's.
    """
    core = Rect(row.y, row.x, row.h, row.w)
    card, rect = None, core
    if models is not None and row.role in models:
        role = model_info(models[row.role])
        card = role.card.input
        halo = role.halo if halo is None else halo
        rect = input_rect(role, Patch(core, row.scale, halo), pyramid.rect)
    scale = max(row.scale, max(rect.h, rect.w) / PREVIEW_PX)
    low, high = pyramid.value_range.ends
    fill: Fill = "reflect"
    if card is not None:
        low, high = value_range(role.card, pyramid)
        fill = card.border_fill(pyramid.dtype, (low, high))
    pixels = pyramid.read(rect, scale, fill=fill).astype(np.float32)
    if pixels.shape[2] < 3:
        pixels = np.repeat(pixels[..., :1], 3, axis=2)
    pixels = pixels[..., :3]
    if card is not None and card.channels == "gray":
        luma = pixels @ np.array([0.299, 0.587, 0.114], np.float32)
        pixels = np.repeat(luma[..., None], 3, axis=2)
    pixels = (pixels - low) * (255 / (high - low))
    return np.clip(pixels, 0, 255).astype(np.uint8)


def warp_preview(
    pyramid: Pyramid, warp: WarpRequest, max_side: int = 384
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return a network's warped input, and a uniformly sampled picture of the same size.

    Parameters
    ----------
    pyramid : Pyramid
        The image.
    warp : WarpRequest
        The warp.
    max_side : int
        Longest side of the pictures; larger inputs are shrunk.

    Returns
    -------
    warped, uniform : ndarray of uint8, shape (h, w, 3)
    """
    shrink = max(1.0, max(warp.shape) / max_side)
    shape = max(1, round(warp.shape[0] / shrink)), max(1, round(warp.shape[1] / shrink))
    nodes = np.linspace(0, 1, 2)
    uniform = np.stack(np.meshgrid(nodes, nodes, indexing="ij"), axis=-1)
    rect = warp.rect & pyramid.rect
    samples = [sample(pyramid, rect, grid, shape)[0] for grid in (warp.grid, uniform)]
    low, high = pyramid.value_range.ends
    previews = []
    for pixels in samples:
        pixels = pixels if pixels.shape[2] >= 3 else np.repeat(pixels[..., :1], 3, axis=2)
        scaled = (pixels[..., :3] - low) * (255 / (high - low))
        previews.append(np.clip(scaled, 0, 255).astype(np.uint8))
    return previews[0], previews[1]
