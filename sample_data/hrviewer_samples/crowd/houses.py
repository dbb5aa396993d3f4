"""Houses, as drawn, and the lots they stand on."""

from __future__ import annotations

from typing import Any

import numpy as np

from hrviewer_samples.crowd.city import (
    LOTS_X,
    LOTS_Z,
    PITCH_X,
    PITCH_Z,
    STREET,
    lot_height,
    row_of,
    scale_at,
)
from hrviewer_samples.crowd.strokes import CANVAS, pick
from hrviewer_samples.drawing import box, ellipse, quad, stroke
from hrviewer_samples.noise import compiled, mix, uniform

__all__ = ["draw_house", "lot"]

WALLS = np.array([
    (214, 196, 164), (196, 156, 124), (226, 214, 194), (178, 112, 88), (188, 186, 178),
    (222, 186, 142), (164, 152, 138), (206, 176, 168),
], float)  # fmt: skip
ROOFS = np.array([
    (152, 82, 60), (168, 96, 66), (136, 74, 60), (92, 94, 104), (112, 108, 106), (128, 90, 72),
], float)  # fmt: skip


@compiled
def lot(w: Any, bx: Any, bz: Any, lx: Any, lz: Any) -> Any:
    """Return a lot's sides on the ground: left, right, near, far."""
    wide, deep = (PITCH_X - STREET) / LOTS_X, (PITCH_Z - STREET) / LOTS_Z
    x0 = bx * PITCH_X - PITCH_X - 0.5 * STREET + STREET + lx * wide
    z0 = bz * PITCH_Z - 0.3 * PITCH_Z + STREET + lz * deep
    return x0, x0 + wide, z0, z0 + deep


@compiled
def draw_house(
    w: Any, c: Any, oy: Any, ox: Any, s: Any, bx: Any, bz: Any, lx: Any, lz: Any
) -> None:
    """Draw a house on its lot."""
    x0, x1, z0, z1 = lot(w, bx, bz, lx, lz)
    h = mix(w.seed, bx * LOTS_X + lx, bz * LOTS_Z + lz, 75)
    high = lot_height(w, bx, bz, lx, lz)
    near, far = row_of(w, z0), row_of(w, z1)
    p, q = scale_at(w, near), scale_at(w, far)
    mid = 0.5 * w.size
    a, b_, d, e = mid + x0 * p, mid + x1 * p, mid + x0 * q, mid + x1 * q  # near, then far corners
    up, back = near - high * p, far - high * q
    r, g, b = pick(WALLS, h, 1)
    # The side that is turned to the middle.
    sunny = 0.82 if (w.sun_x > 0) == (x0 > 0) else 0.62
    if x0 > 0:
        quad(
            c, oy, ox, s, (near, far, back, up), (a, d, d, a), r * sunny, g * sunny, b * sunny, 1.0
        )
    elif x1 < 0:
        quad(
            c,
            oy,
            ox,
            s,
            (near, far, back, up),
            (b_, e, e, b_),
            r * sunny,
            g * sunny,
            b * sunny,
            1.0,
        )
    # The front, with its windows and shops.
    floors = max(2, int(high / 3.3))
    storey = (near - up) / floors
    columns = 5 + int(3 * uniform(h, 2, 0, 75))
    bay = (b_ - a) / columns
    box(c, oy, ox, s, up, a, near, b_, r, g, b, 1.0)
    lights = 0.45 if w.weather == 3 else 0.06
    if bay > s:
        for f in range(floors):
            y1 = near - f * storey
            for k in range(columns):
                left = a + (k + 0.24) * bay
                right = a + (k + 0.76) * bay
                if f == 0:
                    left, right = a + (k + 0.1) * bay, a + (k + 0.9) * bay
                wr, wg, wb = 62.0, 72.0, 86.0
                if uniform(h, f * 16 + k, 3, 75) < lights:
                    wr, wg, wb = 250.0, 206.0, 120.0
                if bay > 5 * s and f > 0:
                    box(
                        c,
                        oy,
                        ox,
                        s,
                        y1 - 0.84 * storey,
                        left - 0.06 * bay,
                        y1 - 0.18 * storey,
                        right + 0.06 * bay,
                        min(255.0, r * 1.13),
                        min(255.0, g * 1.13),
                        min(255.0, b * 1.13),
                        1.0,
                    )
                box(
                    c,
                    oy,
                    ox,
                    s,
                    y1 - 0.8 * storey,
                    left,
                    y1 - (0.24 if f else 0.04) * storey,
                    right,
                    wr,
                    wg,
                    wb,
                    1.0,
                )
                if bay > 12 * s and f > 0:
                    m = 0.5 * (left + right)
                    box(
                        c,
                        oy,
                        ox,
                        s,
                        y1 - 0.8 * storey,
                        m - 0.02 * bay,
                        y1 - 0.24 * storey,
                        m + 0.02 * bay,
                        224.0,
                        220.0,
                        212.0,
                        1.0,
                    )
                    box(
                        c,
                        oy,
                        ox,
                        s,
                        y1 - 0.55 * storey,
                        left,
                        y1 - 0.52 * storey,
                        right,
                        224.0,
                        220.0,
                        212.0,
                        1.0,
                    )
            if f == 0:
                ar, ag, ab = pick(CANVAS, h, 4)
                for k in range(columns):
                    if uniform(h, k, 5, 75) < 0.6:
                        left, right = a + (k + 0.06) * bay, a + (k + 0.94) * bay
                        quad(
                            c,
                            oy,
                            ox,
                            s,
                            (
                                y1 - 0.9 * storey,
                                y1 - 0.9 * storey,
                                y1 - 0.6 * storey,
                                y1 - 0.6 * storey,
                            ),
                            (left, right, right + 0.04 * bay, left - 0.04 * bay),
                            ar,
                            ag,
                            ab,
                            1.0,
                        )
    else:
        box(c, oy, ox, s, up, a, near, b_, 62.0, 72.0, 86.0, 0.33)
    # The roof: two slopes, or flat behind a parapet.
    r, g, b = pick(ROOFS, h, 6)
    if w.weather == 4:
        r, g, b = 0.25 * r + 168, 0.25 * g + 171, 0.25 * b + 177
    if uniform(h, 7, 0, 75) < 0.65:
        zr = 0.5 * (z0 + z1)
        row = row_of(w, zr)
        o = scale_at(w, row)
        ridge = row - (high + 3.2) * o
        f, k = mid + x0 * o, mid + x1 * o
        lean = 0.12 if w.sun_z > 0 else -0.08
        if x0 > 0:
            quad(c, oy, ox, s, (up, ridge, back, up), (a, f, d, a), r * 0.6, g * 0.6, b * 0.6, 1.0)
        elif x1 < 0:
            quad(
                c, oy, ox, s, (up, ridge, back, up), (b_, k, e, b_), r * 0.6, g * 0.6, b * 0.6, 1.0
            )
        v = 0.88 - lean
        quad(c, oy, ox, s, (ridge, ridge, back, back), (f, k, e, d), r * v, g * v, b * v, 1.0)
        v = 1.02 + lean
        quad(c, oy, ox, s, (up, up, ridge, ridge), (a, b_, k, f), r * v, g * v, b * v, 1.0)
        if p > 3 * s:  # rows of tiles
            n = 26
            for m in range(1, n):
                t = m / n
                y = up + (ridge - up) * t
                box(
                    c,
                    oy,
                    ox,
                    s,
                    y - 0.05 * p,
                    a + (f - a) * t,
                    y + 0.05 * p,
                    b_ + (k - b_) * t,
                    r * 0.7,
                    g * 0.7,
                    b * 0.7,
                    0.6,
                )
        stroke(c, oy, ox, s, ridge, f, ridge, k, 0.18 * o, r * 1.25, g * 1.25, b * 1.2, 1.0)
        for m in range(2):
            u = f + (k - f) * (0.2 + 0.6 * uniform(h, 8 + m, 0, 75))
            y = ridge + 1.2 * o
            box(c, oy, ox, s, y - 2.6 * o, u - 0.5 * o, y, u + 0.5 * o, 132.0, 92.0, 76.0, 1.0)
            box(
                c,
                oy,
                ox,
                s,
                y - 2.9 * o,
                u - 0.62 * o,
                y - 2.45 * o,
                u + 0.62 * o,
                86.0,
                74.0,
                70.0,
                1.0,
            )
        for m in range(columns // 2):  # dormers
            t = (m + 0.5) / (columns // 2)
            y, u = up + 0.55 * (ridge - up), a + (b_ - a) * (0.08 + 0.84 * t)
            u += (f - a + (k - f - b_ + a) * t) * 0.5
            box(
                c,
                oy,
                ox,
                s,
                y - 1.3 * p,
                u - 0.8 * p,
                y + 0.3 * p,
                u + 0.8 * p,
                222.0,
                212.0,
                196.0,
                1.0,
            )
            box(
                c,
                oy,
                ox,
                s,
                y - 1.0 * p,
                u - 0.5 * p,
                y + 0.1 * p,
                u + 0.5 * p,
                60.0,
                70.0,
                84.0,
                1.0,
            )
            box(
                c,
                oy,
                ox,
                s,
                y - 1.7 * p,
                u - 1.0 * p,
                y - 1.2 * p,
                u + 1.0 * p,
                r * 0.75,
                g * 0.75,
                b * 0.75,
                1.0,
            )
    else:
        quad(c, oy, ox, s, (up, up, back, back), (a, b_, e, d), 178.0, 174.0, 168.0, 1.0)
        t = 0.06
        y, n = up + (back - up) * t, back + (up - back) * t
        l0, l1 = a + (d - a) * t + 0.8 * p, b_ + (e - b_) * t - 0.8 * p
        m0, m1 = d + (a - d) * t + 0.8 * q, e + (b_ - e) * t - 0.8 * q
        quad(
            c,
            oy,
            ox,
            s,
            (y, y, n, n),
            (l0, l1, m1, m0),
            0.4 * r + 70,
            0.4 * g + 74,
            0.4 * b + 76,
            1.0,
        )
        for k in range(5):
            t, v = 0.15 + 0.65 * uniform(h, k, 9, 75), 0.12 + 0.7 * uniform(h, k, 10, 75)
            y = up + (back - up) * t
            u = a + (d - a) * t + (b_ - a + (e - d - b_ + a) * t) * v
            box(c, oy, ox, s, y - 1.0 * p, u, y, u + 2.4 * p, 140.0, 142.0, 146.0, 1.0)
            box(c, oy, ox, s, y - 2.2 * p, u, y - 1.0 * p, u + 2.4 * p, 196.0, 198.0, 200.0, 1.0)
            if p > 3 * s:
                ellipse(
                    c,
                    oy,
                    ox,
                    s,
                    y - 1.6 * p,
                    u + 1.2 * p,
                    0.4 * p,
                    0.6 * p,
                    110.0,
                    114.0,
                    120.0,
                    1.0,
                )
