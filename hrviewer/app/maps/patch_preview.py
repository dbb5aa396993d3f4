"""A patch that the person asked about: what it cost, and what the network saw there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hrviewer.engine import LoadedModels, PatchRow, model_info
from hrviewer.geometry import Patch, Rect
from hrviewer.pyramid import Pyramid
from hrviewer.strategies import input_rect

__all__ = ["PatchInspection", "patch_preview"]

PREVIEW_PX = 320
"""Longest side of the picture of a patch, in pixels."""


@dataclass(frozen=True, eq=False)
class PatchInspection:
    """A patch that the person asked about, and what the network saw there, once it is read.

    For a warp `uniform_pixels` is what evenly shrinking to as many pixels would have shown.
    """

    row: PatchRow
    pixels: NDArray[np.uint8] | None = None
    uniform_pixels: NDArray[np.uint8] | None = None


def patch_preview(
    pyramid: Pyramid, row: PatchRow, models: LoadedModels | None
) -> NDArray[np.uint8]:
    """Return what a network saw at a patch, small enough to show, ``(h, w, 3)``."""
    core = Rect(row.y, row.x, row.h, row.w)
    rect, grey = core, False
    if models is not None and row.role in models:
        role = model_info(models[row.role])
        grey = role.card.input.channels == "gray"
        rect = input_rect(role, Patch(core, row.scale, role.halo), pyramid.rect)
    scale = max(row.scale, max(rect.h, rect.w) / PREVIEW_PX)
    pixels = pyramid.read(rect, scale, fill="reflect").astype(np.float32)
    if pixels.shape[2] < 3:
        pixels = np.repeat(pixels[..., :1], 3, axis=2)
    pixels = pixels[..., :3]
    if grey:
        luma = pixels @ np.array([0.299, 0.587, 0.114], np.float32)
        pixels = np.repeat(luma[..., None], 3, axis=2)
    if pyramid.dtype != np.uint8:
        low, high = np.percentile(pixels, (0.5, 99.5))
        pixels = (pixels - low) * (255 / max(high - low, 1e-9))
    return np.clip(pixels, 0, 255).astype(np.uint8)
