"""Positions, shapes and stain of nuclei.

Candidates stand on two jittered lattices, a fine one for crowded cells and a coarse one for the
rest; the slide's fields decide which of them exist and as what. There is no list of them all.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from hrviewer_samples.noise import between, compiled_as, mix
from hrviewer_samples.tissue.slide import (
    BASE,
    CELLS,
    EPI,
    FAT,
    GRADE,
    IMMUNE,
    INSIDE,
    KERATIN,
    LOOSE,
    LUMEN,
    VESSEL,
    V,
)  # fmt: skip

__all__ = ["COLUMNS", "REACH", "masks", "outline", "place", "stain"]

FINE, COARSE = 13.5, 22.0
"""Pitches of the lattices in pixels."""

REACH = 40
"""Largest distance of a nucleus from its place on the lattice."""

COLUMNS = 12
Y, X, LONG, SHORT, COS, SIN, BEND, LOBE, DARK, OPEN, SHARP, NUMBER = range(COLUMNS)


@compiled_as("float64(float32[:,:,::1], int64, int64, float64, float64, int64)")
def _read(fields: Any, i: Any, j: Any, fy: Any, fx: Any, k: Any) -> Any:
    a, b = fields[i, j, k], fields[i, j + 1, k]
    c, d = fields[i + 1, j, k], fields[i + 1, j + 1, k]
    return (a + (b - a) * fx) * (1 - fy) + (c + (d - c) * fx) * fy


@compiled_as("UniTuple(float64, 3)(float32[:,:,::1], int64, int64, int64)")
def _slope(fields: Any, i: Any, j: Any, k: Any) -> Any:
    """Return the unit vector ``(y, x)`` along which a field grows, and how steeply per cell."""
    a, b = fields[i, j, k], fields[i, j + 1, k]
    c, d = fields[i + 1, j, k], fields[i + 1, j + 1, k]
    gy, gx = (c + d) - (a + b), (b + d) - (a + c)
    n = math.sqrt(gy * gy + gx * gx) + 1e-9
    return gy / n, gx / n, 0.5 * n


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def place(
    seed: Any, size: Any, fields: Any, cells: Any, oy: Any, ox: Any, step: Any, every: Any
) -> Any:
    """Return the nuclei of a surveyed area, one row of `COLUMNS` each.

    Only one in `every` rows and columns of the lattices is used; a nucleus then stands for
    its neighbours, and is as much larger.

    Those whose lattice place is nearer than `REACH` to its border may be missing others beyond.
    """
    h, w = cells.shape
    room = 0
    for pitch in (FINE * every, COARSE * every):
        room += int((h * step / pitch + 2) * (w * step / pitch + 2))
    out = np.empty((room, COLUMNS), np.float32)
    n = 0
    for lattice in range(2):
        pitch = FINE if lattice == 0 else COARSE
        for p in range(
            -(-math.floor(oy / pitch) // every) * every,
            math.floor((oy + h * step) / pitch) + 1,
            every,
        ):
            for q in range(
                -(-math.floor(ox / pitch) // every) * every,
                math.floor((ox + w * step) / pitch) + 1,
                every,
            ):
                # A cheap test first: most of a slide is glass.
                ci = math.floor(((p + 0.5) * pitch - oy) / step)
                cj = math.floor(((q + 0.5) * pitch - ox) / step)
                if ci < 0 or cj < 0 or ci >= h or cj >= w or not cells[ci, cj]:
                    continue
                s = mix(seed, p, q, 300 + lattice)
                y = (p + between(s, 0, 0.12, 0.88)) * pitch
                x = (q + between(s, 1, 0.12, 0.88)) * pitch
                gy, gx = (y - oy) / step, (x - ox) / step
                i, j = math.floor(gy), math.floor(gx)
                if i < 0 or j < 0 or i >= h or j >= w:
                    continue
                fy, fx = gy - i, gx - j
                inside = _read(fields, i, j, fy, fx, INSIDE)
                if inside < 9.0 or _read(fields, i, j, fy, fx, LUMEN) > -5.0:
                    continue
                epi = _read(fields, i, j, fy, fx, EPI)
                base = _read(fields, i, j, fy, fx, BASE)
                grade = _read(fields, i, j, fy, fx, GRADE)
                cells_here = _read(fields, i, j, fy, fx, CELLS)
                chance, luck = 0.0, between(s, 2, 0.0, 1.0)
                a, b, dark, pale, bend, lobe = 5.0, 4.0, 1.3, 0.0, 0.0, 0.0
                dy, dx = 0.0, 1.0
                sharp = between(s, 12, 0.8, 1.3)
                skew = between(s, 3, -0.35, 0.35)
                if epi > 3.0:
                    uy, ux, steep = _slope(fields, i, j, BASE)
                    base /= max(0.5, steep / step)  # a distance, where the field is steep
                    benign = grade < 0.12
                    if lattice == 0:
                        if base < 17.0 and grade < 0.75:  # palisade on the membrane
                            chance = 0.93 - 0.25 * max(0.0, grade)
                            shift = (
                                9.0 + between(s, 4, -2.0, 2.5) * (1 + 2 * max(0.0, grade)) - base
                            ) * 0.9
                            y, x = y + uy * shift, x + ux * shift
                            dy, dx = uy + skew * ux, ux - skew * uy
                            a = between(s, 5, 5.8, 8.6) + 1.5 * max(0.0, grade)
                            b = between(s, 6, 3.5, 5.0) + 1.2 * max(0.0, grade)
                            dark = between(s, 7, 1.0, 1.75)
                            pale = between(s, 8, 0.0, 0.4)
                        elif grade < -0.5 and base < 70.0:  # crowded lower layers
                            chance = 0.85 * cells_here**0.3
                            chance *= 1.0 - (base - 17.0) / 75.0
                            if epi < 12.0:
                                chance = 0.0
                            dy, dx = uy + 2 * skew * ux, ux - 2 * skew * uy
                            a, b = between(s, 5, 5.6, 8.2), between(s, 6, 4.0, 5.6)
                            dark = between(s, 7, 0.75, 1.6)
                            pale = between(s, 8, 0.1, 0.6)
                        elif grade >= 0.12 and base > 12.0:  # crowded nests of small cells
                            chance = 0.30 * cells_here * (1.0 - grade)
                            turn = between(s, 4, 0.0, 3.14)
                            dy, dx = math.sin(turn), math.cos(turn)
                            a, b = between(s, 5, 5.5, 8.0), between(s, 6, 4.5, 6.0)
                            dark, pale = between(s, 7, 0.8, 1.7), between(s, 8, 0.0, 0.6)
                        if epi > 20.0 and base > 20.0 and luck > 0.985:  # a lymphocyte on its way
                            chance, luck = 1.0, 0.0
                            a, b, dark, pale = 4.2, 3.8, 1.8, 0.0
                    elif grade < -0.5:
                        if base > 52.0 and epi > 16.0:  # prickle cells: large, pale, apart
                            chance = 0.72 * cells_here**0.3
                            dy, dx = uy + 3 * skew * ux, ux - 3 * skew * uy
                            a, b = between(s, 5, 7.0, 10.0), between(s, 6, 5.0, 7.0)
                            if base > 90.0 and epi < 60.0:  # flatter near the surface
                                dy, dx, b = dx, -dy, b * 0.7
                            dark, pale = between(s, 7, 0.6, 1.15), between(s, 8, 0.3, 0.85)
                    elif not benign and base > 14.0:
                        chance = min(0.97, 0.66 * cells_here**0.5 + 0.3 * grade)
                        turn = between(s, 4, 0.0, 3.14)
                        dy, dx = math.sin(turn), math.cos(turn)
                        wild = between(s, 9, 0.0, 1.0) ** 3 * grade
                        a = between(s, 5, 6.5, 9.5) * (1.0 + 0.45 * grade + 0.8 * wild)
                        b = a * between(s, 6, 0.58, 0.95)
                        dark = between(s, 7, 0.75, 1.4) + 0.5 * grade * between(s, 13, 0.0, 1.0)
                        pale = between(s, 8, 0.1, 0.9)
                        lobe = between(s, 10, -0.13, 0.13) * (0.4 + grade)
                elif epi < -4.0 and _read(fields, i, j, fy, fx, KERATIN) < -6.0:
                    fat = _read(fields, i, j, fy, fx, FAT)
                    vessel = _read(fields, i, j, fy, fx, VESSEL)
                    if vessel > -1.0:
                        continue
                    immune = _read(fields, i, j, fy, fx, IMMUNE)
                    if lattice == 0:
                        turn = between(s, 4, 0.0, 3.14)
                        dy, dx = math.sin(turn), math.cos(turn)
                        chance = immune
                        a = between(s, 5, 4.1, 5.4)
                        b = a * between(s, 6, 0.78, 1.0)
                        dark, pale = between(s, 7, 1.05, 1.9), between(s, 8, 0.0, 0.45)
                        lobe = between(s, 10, -0.12, 0.12)
                    elif vessel > -17.0:  # the vessel's lining
                        uy, ux, _ = _slope(fields, i, j, VESSEL)
                        chance = 0.75
                        shift = -3.0 - vessel
                        y, x = y + uy * shift, x + ux * shift
                        dy, dx = ux, -uy
                        a, b = between(s, 5, 5.5, 8.5), between(s, 6, 1.8, 2.8)
                        dark = between(s, 7, 1.2, 1.8)
                    else:  # fibroblasts, thin and dark, along the fibres
                        uy, ux, _ = _slope(fields, i, j, V)
                        dy, dx = ux + 2 * skew * uy, -uy + 2 * skew * ux
                        loose = _read(fields, i, j, fy, fx, LOOSE)
                        chance = (0.13 + 0.16 * loose) * cells_here
                        if fat > -6.0:
                            chance = 0.0
                        plump = between(s, 9, 0.0, 1.0)
                        a = between(s, 5, 4.5, 13.0) * (1.0 - 0.25 * plump)
                        b = between(s, 6, 1.5, 2.5) + 2.4 * plump**3
                        bend = between(s, 10, -2.0, 2.0) / (a * a)
                        dark = between(s, 7, 1.15, 1.95) - 0.5 * plump**3
                        pale = 0.4 * plump**2
                if luck >= chance:
                    continue
                if not (0.0 <= y < size and 0.0 <= x < size):
                    continue
                long = math.sqrt(dy * dy + dx * dx)
                out[n, 0], out[n, 1], out[n, 2], out[n, 3] = y, x, a * every, b * every
                out[n, 4], out[n, 5], out[n, 6], out[n, 7] = (
                    dx / long,
                    dy / long,
                    bend / every,
                    lobe,
                )
                out[n, 8], out[n, 9], out[n, 10] = dark, pale, sharp
                out[n, 11] = s >> np.uint64(44)
                n += 1
    return out[:n]


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def outline(r: Any, y: Any, x: Any) -> Any:
    """Return how far inside a nucleus a point is: 1 in its middle, 0 at its rim."""
    dy, dx = y - r[Y], x - r[X]
    u, v = r[COS] * dx + r[SIN] * dy, r[COS] * dy - r[SIN] * dx
    v += r[BEND] * (u * u - 0.33 * r[LONG] * r[LONG])
    u, v = u / r[LONG], v / r[SHORT]
    q = u * u + v * v + r[LOBE] * u * (u * u - 3 * v * v)
    return 1.0 - math.sqrt(max(q, 0.0))


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def stain(nuclei: Any, grain: Any, oy: Any, ox: Any, pixel: Any, cover: Any, amount: Any) -> None:
    """Add every nucleus's share of each pixel (in 1/128), and that times its stain (in 1/64).

    Whole numbers, so that the order in which nuclei come does not matter.
    """
    h, w = cover.shape
    side = grain.shape[0]
    for n in range(len(nuclei)):
        r = nuclei[n]
        reach = r[LONG] * 1.3 + 1.5 * pixel
        i0, i1 = (
            max(0, math.floor((r[Y] - reach) / pixel - oy)),
            min(h, math.ceil((r[Y] + reach) / pixel - oy)),
        )
        j0, j1 = (
            max(0, math.floor((r[X] - reach) / pixel - ox)),
            min(w, math.ceil((r[X] + reach) / pixel - ox)),
        )
        soft = max(r[SHARP] * 1.2, pixel)
        small = min(r[SHORT] * 2.0 / pixel, 1.0)  # narrower than a pixel: widened and paled
        gy, gx = int(r[NUMBER]) & 511, int(r[NUMBER]) >> 9
        large = r[LONG] * r[SHORT] > 45.0
        for i in range(i0, i1):
            y = (i + oy + 0.5) * pixel
            for j in range(j0, j1):
                x = (j + ox + 0.5) * pixel
                t = outline(r, y, x)
                far = math.sqrt((y - r[Y]) ** 2 + (x - r[X]) ** 2) / max(1.0 - t, 1e-3)
                a = min(1.0, 0.5 + t * max(far, 0.5 * pixel) / soft)
                if a <= 0.0:
                    continue
                t = max(t, 0.0)
                g = grain[(int(y) + gy) % side, (int(x) + gx) % side]
                # Open chromatin: paler within, its grains darker, a rim that stays.
                d = 1.0 - r[OPEN] * min(1.0, 2.2 * t) * 0.62 + (0.30 + 0.5 * r[OPEN]) * (g - 0.5)
                if large and r[OPEN] > 0.35 and g > 0.74 and t > 0.25:
                    d += 0.55  # nucleoli
                k = int(a * small * 128)
                if k > 0:
                    cover[i, j] += k
                    amount[i, j] += int(k * 64.0 * min(2.6, max(0.15, d) * r[DARK]))


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def masks(nuclei: Any, oy: Any, ox: Any, out: Any) -> Any:
    """Number each nucleus's pixels in `out` from 1; return their boxes ``(n, 4)``: y, x, h, w.

    Where two overlap, the later one is on top in `out`; boxes are of whole nuclei.
    """
    h, w = out.shape
    boxes = np.empty((len(nuclei), 4), np.float64)
    for n in range(len(nuclei)):
        r = nuclei[n]
        reach = r[LONG] * 1.3 + 1.5
        top, left, bottom, right = 1 << 30, 1 << 30, -(1 << 30), -(1 << 30)
        for y in range(math.floor(r[Y] - reach), math.ceil(r[Y] + reach)):
            for x in range(math.floor(r[X] - reach), math.ceil(r[X] + reach)):
                if outline(r, y + 0.5, x + 0.5) >= 0.0:
                    top, left = min(top, y), min(left, x)
                    bottom, right = max(bottom, y + 1), max(right, x + 1)
                    if 0 <= y - oy < h and 0 <= x - ox < w:
                        out[y - oy, x - ox] = n + 1
        boxes[n, 0], boxes[n, 1], boxes[n, 2], boxes[n, 3] = top, left, bottom - top, right - left
    return boxes
