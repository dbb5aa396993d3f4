"""The synthetic image `tissue`: pixels and ground truth of any rectangle."""

from __future__ import annotations

from functools import lru_cache
from typing import ClassVar

import numpy as np
from hrviewer.geometry import Rect
from hrviewer.ground_truth import GroundTruth
from hrviewer.pyramid.synthetic import SyntheticImage
from numpy.typing import NDArray

from hrviewer_samples.tissue.materials import SIDE, Palette, make_palette
from hrviewer_samples.tissue.nuclei import REACH, masks, place, stain
from hrviewer_samples.tissue.paint import defocus, paint
from hrviewer_samples.tissue.slide import FIELDS, Slide, make_slide, sample_fields

__all__ = ["Tissue"]

STEP = 8
"""Level-0 pixels from one node of the map to the next where it matters."""

BLOCK = 1024
"""Largest side of a block that is rendered at once, before downsampling."""

BLUR_RADIUS = 3
"""Radius of the blur out of focus, in level-0 pixels."""

Bytes = NDArray[np.uint8]


@lru_cache(8)
def _slide(size: int, seed: int) -> Slide:
    return make_slide(size, seed)


@lru_cache(16)
def _palette(seed: int, scale: int) -> Palette:
    return make_palette(seed, scale)


class Tissue(SyntheticImage):
    """A slide stained with haematoxylin and eosin, at 0.5 µm per pixel."""

    title: ClassVar[str] = "Tissue, an H&E slide"
    classes: ClassVar[tuple[str, ...]] = ("nucleus",)
    pixel_size: ClassVar[float | None] = 0.5
    version: ClassVar[int] = 1

    def render(self, rect: Rect, scale: int) -> Bytes:
        """Return the pixels of `rect`; see `SyntheticImage.render`."""
        # Up to 4 every pixel of the full resolution is made; then every 4th in each direction.
        pixel = max(1, scale // 4)
        many = scale // pixel
        h, w = -(-rect.h // scale), -(-rect.w // scale)
        out = np.empty((h, w, 3), np.uint8)
        side = BLOCK // many
        for y in range(0, h, side):
            for x in range(0, w, side):
                hh, ww = min(side, h - y), min(side, w - x)
                fine = self._render_block(
                    rect.y // pixel + y * many,
                    rect.x // pixel + x * many,
                    hh * many,
                    ww * many,
                    pixel,
                )
                if many > 1:
                    sums = fine.reshape(hh, many, ww, many, 3).sum((1, 3), dtype=np.uint32)
                    fine = ((sums + many * many // 2) // (many * many)).astype(np.uint8)
                out[y : y + hh, x : x + ww] = fine
        return out

    def _render_block(self, oy: int, ox: int, h: int, w: int, pixel: int) -> Bytes:
        """Return pixels of side `pixel`, of which the first is the ``(oy, ox)``-th."""
        slide, palette = _slide(self.size, self.seed), _palette(self.seed, min(pixel, SIDE))
        per = max(STEP // pixel, 2)
        step = per * pixel
        radius = BLUR_RADIUS // pixel if slide.blur else 0
        margin = 2 * radius
        y0, x0 = (oy - margin) // per, (ox - margin) // per
        y1, x1 = -(-(oy + h + margin) // per), -(-(ox + w + margin) // per)
        every = max(1, pixel // 8)  # from 64 on, some nuclei stand for all
        beyond = -(-(REACH * every + pixel) // step) + 1
        fields, cells = sample_fields(
            slide, (y0 - beyond) * step, (x0 - beyond) * step,
            y1 - y0 + 2 * beyond + 1, x1 - x0 + 2 * beyond + 1, step,
        )  # fmt: skip
        own = slice(beyond, -beyond)
        shape = ((y1 - y0) * per, (x1 - x0) * per)
        if not cells[own, own].any():
            return np.broadcast_to((palette.glass + 0.5).astype(np.uint8), (h, w, 3)).copy()
        cover, amount = np.zeros((2, *shape), np.int32)
        nuclei = place(
            self.seed, self.size, fields, cells, (y0 - beyond) * step, (x0 - beyond) * step,
            step, every,
        )  # fmt: skip
        stain(nuclei, palette.grain, y0 * per, x0 * per, pixel, cover, amount)
        image, blur = np.empty((*shape, 3), np.uint8), np.zeros(shape, np.float32)
        hazy = paint(
            fields[beyond:-beyond, beyond:-beyond], cells[own, own], per, pixel, palette, cover,
            amount, y0 * per, x0 * per, image, blur, np.empty((2, FIELDS + 1)), np.empty(3),
        )  # fmt: skip
        top, left = oy - y0 * per, ox - x0 * per
        if hazy and radius:
            out = np.empty((h, w, 3), np.uint8)
            wide = (slice(top - margin, top + h + margin), slice(left - margin, left + w + margin))
            defocus(image[wide], blur[wide], radius, out)
            return out
        return image[top : top + h, left : left + w]

    def _nuclei(self, rect: Rect) -> NDArray[np.float32]:
        """Return all nuclei that reach into `rect`, and some beyond, ordered by place."""
        slide = _slide(self.size, self.seed)
        rows = []
        area = rect.pad(2 * REACH)
        for y in range(area.y, area.y1, BLOCK):
            for x in range(area.x, area.x1, BLOCK):
                y0, x0 = y // STEP - REACH // STEP - 1, x // STEP - REACH // STEP - 1
                h = -(-min(BLOCK, area.y1 - y) // STEP) + 2 * (REACH // STEP) + 4
                w = -(-min(BLOCK, area.x1 - x) // STEP) + 2 * (REACH // STEP) + 4
                fields, cells = sample_fields(slide, y0 * STEP, x0 * STEP, h, w, STEP)
                if cells.any():
                    found = place(
                        self.seed, self.size, fields, cells, y0 * STEP, x0 * STEP, STEP, 1
                    )
                    at = found[:, :2]
                    low, high = (y, x), (min(y + BLOCK, area.y1), min(x + BLOCK, area.x1))
                    rows.append(found[((at >= low) & (at < high)).all(1)])
        nuclei = np.concatenate(rows) if rows else np.empty((0, 12), np.float32)
        return nuclei[np.lexsort((nuclei[:, 1], nuclei[:, 0]))]

    def ground_truth(self, rect: Rect) -> GroundTruth:
        """Return the nuclei whose centre lies in `rect`; see `SyntheticImage.ground_truth`."""
        nuclei = _select_inside(self._nuclei(rect), rect)
        boxes = masks(nuclei, rect.y, rect.x, np.empty((0, 0), np.int32))
        return GroundTruth(
            nuclei[:, :2].astype(np.float64), self.classes, boxes=boxes,
            source=f"sample:tissue?size={self.size}&seed={self.seed}",
        )  # fmt: skip

    def labels(self, rect: Rect) -> NDArray[np.int32]:
        """Return the nuclei's instance map; see `SyntheticImage.labels`."""
        nuclei = self._nuclei(rect)
        here = _is_inside(nuclei, rect)
        nuclei = np.concatenate([nuclei[here], nuclei[~here]])
        out = np.zeros((rect.h, rect.w), np.int32)
        masks(nuclei, rect.y, rect.x, out)
        return out


def _is_inside(nuclei: NDArray[np.float32], rect: Rect) -> NDArray[np.bool_]:
    at = nuclei[:, :2].astype(np.float64)
    inside: NDArray[np.bool_] = ((at >= (rect.y, rect.x)) & (at < (rect.y1, rect.x1))).all(1)
    return inside


def _select_inside(nuclei: NDArray[np.float32], rect: Rect) -> NDArray[np.float32]:
    return nuclei[_is_inside(nuclei, rect)]
