"""Light through the section: materials laid over each other where the map has them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from hrviewer_samples.noise import compiled_as
from hrviewer_samples.tissue.materials import (
    BLOOD,
    DENSE,
    EPIDERMIS,
    FATTY,
    GLAND,
    HORN,
    LOOSE_STROMA,
    SECRETION,
)  # fmt: skip
from hrviewer_samples.tissue.slide import (
    BASE,
    EPI,
    FAT,
    FIELDS,
    GRADE,
    INK,
    INSIDE,
    KERATIN,
    LOOSE,
    LUMEN,
    PEN,
    THICK,
    VESSEL,
    U,
    V,
)  # fmt: skip

__all__ = ["defocus", "paint"]


@njit(cache=True, nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _edge(distance: Any, soft: Any) -> Any:
    return min(1.0, max(0.0, distance / soft + 0.5))


@compiled_as("void(float32[:,:,:,::1], int64, float64, float64, float64[::1], float64)")
def _texel(tiles: Any, m: Any, v: Any, u: Any, out: Any, share: Any) -> None:
    """Mix the tile's colour at texture coordinates (in its own pixels) into `out`."""
    n = tiles.shape[1]
    fv, fu = v - 0.5, u - 0.5
    i, j = math.floor(fv), math.floor(fu)
    fv, fu = fv - i, fu - j
    i0, j0 = i & (n - 1), j & (n - 1)
    i1, j1 = (i + 1) & (n - 1), (j + 1) & (n - 1)
    w00, w01 = (1 - fv) * (1 - fu), (1 - fv) * fu
    w10, w11 = fv * (1 - fu), fv * fu
    for c in range(3):
        t = (
            w00 * tiles[m, i0, j0, c] + w01 * tiles[m, i0, j1, c]
            + w10 * tiles[m, i1, j0, c] + w11 * tiles[m, i1, j1, c]
        )  # fmt: skip
        out[c] += (t - out[c]) * share


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _coarse(grain: Any, y: Any, x: Any) -> Any:
    """Return the grain four times as large, interpolated."""
    n = grain.shape[0] - 1
    fy, fx = 0.25 * (y & 3), 0.25 * (x & 3)
    i, j = (y >> 2) + 77, (x >> 2) + 31
    a, b = grain[i & n, j & n], grain[i & n, (j + 1) & n]
    c, d = grain[(i + 1) & n, j & n], grain[(i + 1) & n, (j + 1) & n]
    return (a + (b - a) * fx) * (1 - fy) + (c + (d - c) * fx) * fy


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def paint(
    fields: Any, cells: Any, per: Any, pixel: Any, palette: Any, cover: Any, amount: Any,
    oy: Any, ox: Any, out: Any, blur: Any, row: Any, rgb: Any,
) -> Any:  # fmt: skip
    """Fill `out` ``(h, w, 3)`` and `blur` ``(h, w)``; return whether any of it is out of focus.

    `per` pixels of size `pixel` lie along a cell's side; ``(oy, ox)`` is the first pixel's place.
    """
    tiles, grain, glass = palette.tiles, palette.grain, palette.glass
    soft = max(1.6, pixel)
    hazy = False
    side = grain.shape[0]
    for ci in range(cells.shape[0]):
        for cj in range(cells.shape[1]):
            y0, x0 = ci * per, cj * per
            if not cells[ci, cj]:
                for i in range(y0, y0 + per):
                    for j in range(x0, x0 + per):
                        for c in range(3):
                            out[i, j, c] = int(glass[c] + 0.5)
                continue
            clear = True
            for k in (INSIDE, PEN):
                for a in range(2):
                    for b in range(2):
                        clear = clear and fields[ci + a, cj + b, k] < -30.0
            far = fields[ci, cj, FIELDS] + fields[ci + 1, cj + 1, FIELDS] > 0.0
            for i in range(y0, y0 + per):
                fy = (i - y0 + 0.5) / per
                for k in range(FIELDS + 1):
                    a, b = fields[ci, cj, k], fields[ci, cj + 1, k]
                    row[0, k] = a + (fields[ci + 1, cj, k] - a) * fy
                    row[1, k] = b + (fields[ci + 1, cj + 1, k] - b) * fy - row[0, k]
                for j in range(x0, x0 + per):
                    fx = (j - x0 + 0.5) / per
                    for c in range(3):
                        rgb[c] = glass[c]
                    if clear:
                        for c in range(3):
                            out[i, j, c] = int(rgb[c] + 0.5)
                        continue
                    gy, gx = int((oy + i + 0.5) * pixel), int((ox + j + 0.5) * pixel)
                    g = grain[gy % side, gx % side]
                    g2 = _coarse(grain, gy, gx)
                    inside = row[0, INSIDE] + fx * row[1, INSIDE]
                    if inside > -30.0:
                        u, v = (
                            (row[0, U] + fx * row[1, U]) / pixel,
                            (row[0, V] + fx * row[1, V]) / pixel,
                        )
                        epi = row[0, EPI] + fx * row[1, EPI]
                        horn = row[0, KERATIN] + fx * row[1, KERATIN]
                        fat = row[0, FAT] + fx * row[1, FAT] + 16.0 * (g2 - 0.5)
                        ragged = 11.0 * (g2 - 0.5) + 5.0 * (g - 0.5)
                        body = _edge(inside + ragged, soft)
                        if body > 0.0 and horn < 3.0 and epi < 4.0:
                            loose = row[0, LOOSE] + fx * row[1, LOOSE]
                            if fat < 4.0:
                                if loose < 0.999:
                                    _texel(tiles, DENSE, v, u, rgb, body)
                                if loose > 0.001:
                                    _texel(tiles, LOOSE_STROMA, v, u, rgb, body * loose)
                            if fat > -4.0:
                                _texel(tiles, FATTY, v, u, rgb, body * _edge(fat, 3 * soft))
                            vessel = row[0, VESSEL] + fx * row[1, VESSEL]
                            if vessel > -9.0:
                                if vessel < 2.0:
                                    wall = _edge(vessel + 6.0, 4.0) * 0.6
                                    for c in range(3):
                                        rgb[c] += (
                                            tiles[
                                                GLAND,
                                                i & 7 if pixel > 64 else 3,
                                                5 if pixel <= 64 else 0,
                                                c,
                                            ]
                                            - rgb[c]
                                        ) * wall
                                full = _edge(vessel + 0.5, soft)
                                if full > 0.0:
                                    for c in range(3):
                                        rgb[c] += (glass[c] - rgb[c]) * full
                                    _texel(
                                        tiles,
                                        BLOOD,
                                        v,
                                        u,
                                        rgb,
                                        full * _edge(vessel - 2.0 + 14.0 * (g2 - 0.4), 4.0),
                                    )
                        if epi > -3.0:
                            grade = row[0, GRADE] + fx * row[1, GRADE]
                            full = _edge(epi + 2.0 * (g - 0.5), soft + 1.0) * body
                            benign = _edge(0.12 - grade, 0.3) * (0.0 if grade < -0.5 else 1.0)
                            _texel(tiles, EPIDERMIS, v, u, rgb, full)
                            if benign > 0.0:
                                _texel(tiles, GLAND, v, u, rgb, full * benign)
                            if grade < -0.5:
                                # Lower layers take up more blue, the granular one most.
                                base = row[0, BASE] + fx * row[1, BASE]
                                low = max(0.0, 1.0 - base / 90.0)
                                top = (
                                    max(0.0, 1.0 - epi / 15.0) * (0.4 + 1.2 * g)
                                    if base > 40.0
                                    else 0.0
                                )
                                rgb[0] *= 1.0 - full * (0.12 * low + 0.32 * top)
                                rgb[1] *= 1.0 - full * (0.16 * low + 0.34 * top)
                                rgb[2] *= 1.0 - full * (0.06 * low + 0.18 * top)
                            lumen = row[0, LUMEN] + fx * row[1, LUMEN]
                            if lumen > -2.0:
                                full = _edge(lumen, soft)
                                for c in range(3):
                                    rgb[c] += (glass[c] - rgb[c]) * full
                                _texel(tiles, SECRETION, v, u, rgb, full)
                        if horn > -2.0:
                            full = _edge(horn, soft)
                            for c in range(3):
                                rgb[c] += (glass[c] - rgb[c]) * full
                            _texel(
                                tiles,
                                HORN,
                                inside / pixel,
                                u,
                                rgb,
                                full * _edge(inside + 14.0 + ragged, soft),
                            )
                            # Next to the living cells it is compact.
                            packed = full * _edge(inside - 9.0 - 6.0 * g2, 8.0) * 0.8
                            if packed > 0.0 and horn < 16.0:
                                packed *= 1.0 - horn / 16.0
                                for c in range(3):
                                    rgb[c] += (
                                        palette.cytoplasm[c] * (0.80 if c != 1 else 0.55) - rgb[c]
                                    ) * packed
                        if cover[i, j] > 0:
                            share = min(1.0, cover[i, j] / 128.0)
                            k = min(255, amount[i, j] // cover[i, j])
                            for c in range(3):
                                under = rgb[c] + (palette.cytoplasm[c] - rgb[c]) * 0.75
                                rgb[c] += (under * palette.nuclear[k, c] - rgb[c]) * share
                        thick = row[0, THICK] + fx * row[1, THICK] + 0.16 * (g - 0.5)
                        for c in range(3):
                            rgb[c] = max(
                                glass[c] * 0.06, glass[c] - (glass[c] - rgb[c]) * min(thick, 1.12)
                            )
                            if thick > 1.12:
                                rgb[c] *= 1.0 - 0.55 * (thick - 1.12) * (1.0 - rgb[c] / 300.0)
                        ink = row[0, INK] + fx * row[1, INK]
                        if ink > 0.0:
                            d = inside + ragged
                            full = ink * _edge(d + 5.0, 5.0) * _edge(16.0 * g2 + 3.0 - d, 6.0)
                            full *= _edge(g - 0.52 + 0.35 * ink, 0.25)
                            for c in range(3):
                                rgb[c] *= 1.0 - full * (1.0 - palette.ink[c])
                    pen = row[0, PEN] + fx * row[1, PEN]
                    if pen > -12.0:
                        full = _edge(pen + 8.0 * (g2 - 0.5), 5.0 + pixel) * (0.74 + 0.16 * g2)
                        full *= 1.0 + 0.12 * _edge(14.0 - pen, 14.0)
                        for c in range(3):
                            rgb[c] *= 1.0 - full * (1.0 - palette.pen[c])
                    for c in range(3):
                        out[i, j, c] = int(min(255.0, max(0.0, rgb[c])) + 0.5)
                    if far:
                        b = row[0, FIELDS] + fx * row[1, FIELDS]
                        if b > 0.0:
                            blur[i, j] = b
                            hazy = True
    return hazy


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def defocus(image: Any, blur: Any, radius: Any, out: Any) -> None:
    """Blur `image` where `blur` says; its margin of ``2 * radius`` pixels is not in `out`.

    The kernel is a tent in each direction. Sums are of whole numbers: no seams.
    """
    h, w = out.shape[:2]
    m = 2 * radius
    rows = np.zeros((h + 2 * m, w, 3), np.int32)
    for i in range(h + 2 * m):
        for j in range(w):
            for b in range(2 * m + 1):
                weight = m + 1 - abs(b - m)
                for c in range(3):
                    rows[i, j, c] += weight * image[i, j + b, c]
    full = float((m + 1) ** 4)
    for i in range(h):
        for j in range(w):
            share = blur[i + m, j + m]
            for c in range(3):
                v = float(image[i + m, j + m, c])
                if share > 0.0:
                    total = 0
                    for a in range(2 * m + 1):
                        total += (m + 1 - abs(a - m)) * rows[i + a, j, c]
                    v += (total / full - v) * share
                out[i, j, c] = int(v + 0.5)
