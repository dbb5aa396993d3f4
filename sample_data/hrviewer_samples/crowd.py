"""A city square and its streets, seen obliquely from above; its people are counted.

Painted from back to front. Everything stands on the ground's plan (`city`), people on places of
their own (`people`); all of it is found anew for each rectangle, so no list of a whole scene is
ever made unless its whole truth is asked for.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
from hrviewer.geometry import Rect
from hrviewer.pyramid.recipe import Recipe
from hrviewer.pyramid.resample import block_mean
from hrviewer.truth import Truth
from numpy.typing import NDArray

from .city import (
    BENCH,
    BIN,
    BOLLARD,
    BUILDING,
    CAR,
    FURNITURE,
    LAMP,
    LOTS_X,
    LOTS_Z,
    NOTHING,
    PARASOL,
    PITCH_X,
    PITCH_Z,
    STALL,
    STATUE,
    STREET,
    TREE,
    fountain,
    furniture,
    is_plaza,
    kind_at,
    lot_height,
    make_world,
    row_of,
    scale_at,
    tall,
    z_of,
)
from .drawing import box, ellipse, quad, stroke
from .ground import paint_ground
from .noise import between, compiled, mix, uniform
from .people import FIELDS, HEAD, people_in

__all__ = ["Crowd"]

PERSON, HOUSE, FOUNTAIN = 20, 21, 22
"""Kinds of things beside the furniture's."""

CLOTHES = np.array([
    (38, 44, 62), (28, 28, 32), (172, 42, 44), (224, 220, 210), (52, 86, 140), (96, 100, 106),
    (206, 160, 52), (66, 104, 78), (120, 78, 52), (190, 96, 120), (70, 50, 90), (236, 236, 238),
    (90, 150, 170), (214, 110, 50),
], float)  # fmt: skip
TROUSERS = np.array([
    (34, 38, 54), (26, 26, 30), (62, 74, 104), (104, 94, 78), (70, 70, 74), (150, 138, 114),
], float)  # fmt: skip
SKIN = np.array([(232, 190, 160), (214, 168, 132), (176, 124, 88), (112, 76, 54)], float)
HAIR = np.array([(34, 26, 22), (70, 46, 30), (20, 18, 18), (176, 138, 84), (168, 166, 164)], float)
WALLS = np.array([
    (214, 196, 164), (196, 156, 124), (226, 214, 194), (178, 112, 88), (188, 186, 178),
    (222, 186, 142), (164, 152, 138), (206, 176, 168),
], float)  # fmt: skip
ROOFS = np.array([
    (152, 82, 60), (168, 96, 66), (136, 74, 60), (92, 94, 104), (112, 108, 106), (128, 90, 72),
], float)  # fmt: skip
LEAVES = np.array([(72, 98, 46), (88, 116, 56), (60, 88, 52), (110, 122, 54)], float)
CANVAS = np.array([(196, 60, 52), (60, 108, 168), (226, 188, 88), (70, 136, 98)], float)
CARS = np.array([
    (196, 198, 202), (40, 42, 48), (150, 34, 38), (46, 76, 128), (110, 114, 120), (228, 228, 226),
], float)  # fmt: skip

BLANK = -1e6
"""What a canvas holds where nothing was drawn, when masks are made."""


@compiled
def _pick(table: Any, h: Any, k: Any) -> Any:
    """Return a colour of a table, a little lighter or darker."""
    c = table[int(uniform(h, k, 0, 70) * len(table))]
    v = 0.88 + 0.24 * uniform(h, k, 1, 70)
    return min(250.0, c[0] * v), min(250.0, c[1] * v), min(250.0, c[2] * v)


@compiled
def _shadow(
    w: Any, c: Any, oy: Any, ox: Any, s: Any, y: Any, x: Any, p: Any, high: Any, half: Any
) -> None:
    """Darken the ground behind something `high` metres tall and `half` a metre wide."""
    dx, dy = w.sun_x * high * p, -w.sun_z * high * p
    if abs(dx) + abs(dy) > half * p:
        stroke(c, oy, ox, s, y, x, y + dy, x + dx, half * p, 20.0, 22.0, 34.0, w.shade)
    else:
        ellipse(
            c, oy, ox, s, y, x, 0.6 * half * p, 1.3 * half * p, 20.0, 22.0, 30.0, w.shade + 0.12
        )


@compiled
def _person(
    w: Any, c: Any, oy: Any, ox: Any, s: Any, y: Any, x: Any, h: Any, umbrella: Any
) -> None:
    t = tall(w, y) * (0.94 + 0.1 * uniform(h, 0, 0, 71))
    top = y - t
    r, g, b = _pick(CLOTHES, h, 1)
    lr, lg, lb = _pick(TROUSERS, h, 2)
    hr, hg, hb = _pick(HAIR, h, 3)
    sr, sg, sb = _pick(SKIN, h, 4)
    coat = uniform(h, 5, 0, 71) < 0.3
    if t < 4.0 * s:  # boxes of the same areas
        box(c, oy, ox, s, y - 0.45 * t, x - 0.095 * t, y, x + 0.095 * t, lr, lg, lb, 0.9)
        box(
            c,
            oy,
            ox,
            s,
            y - 0.8 * t,
            x - 0.17 * t,
            y - (0.28 if coat else 0.42) * t,
            x + 0.17 * t,
            r,
            g,
            b,
            1.0,
        )
        box(
            c,
            oy,
            ox,
            s,
            top + 0.11 * t,
            x - 0.07 * t,
            top + 0.22 * t,
            x + 0.07 * t,
            sr,
            sg,
            sb,
            1.0,
        )
        box(
            c,
            oy,
            ox,
            s,
            top + 0.02 * t,
            x - 0.085 * t,
            top + 0.14 * t,
            x + 0.085 * t,
            hr,
            hg,
            hb,
            1.0,
        )
    else:
        side = 1.0 if uniform(h, 6, 0, 71) < 0.5 else -1.0
        step = 0.07 * t * uniform(h, 7, 0, 71)
        hip = y - 0.46 * t
        for k in (-1.0, 1.0):
            foot = x + k * (0.045 * t + step)
            up = 0.03 * t if k * side > 0 else 0.0
            stroke(
                c,
                oy,
                ox,
                s,
                hip,
                x + k * 0.055 * t,
                y - up - 0.03 * t,
                foot,
                0.052 * t,
                lr,
                lg,
                lb,
                1.0,
            )
            ellipse(
                c,
                oy,
                ox,
                s,
                y - up - 0.015 * t,
                foot + 0.02 * side * t,
                0.024 * t,
                0.055 * t,
                30.0,
                27.0,
                26.0,
                1.0,
            )
        swing = 0.06 * t * (uniform(h, 8, 0, 71) - 0.3)
        dark = 0.78
        for k in (-1.0, 1.0):
            hand = y - 0.44 * t + (0.0 if k > 0 else 0.03 * t)
            stroke(
                c,
                oy,
                ox,
                s,
                top + 0.25 * t,
                x + k * 0.135 * t,
                hand,
                x + k * (0.165 * t + swing),
                0.042 * t,
                r * dark,
                g * dark,
                b * dark,
                1.0,
            )
            ellipse(
                c,
                oy,
                ox,
                s,
                hand + 0.02 * t,
                x + k * (0.165 * t + swing),
                0.03 * t,
                0.03 * t,
                sr,
                sg,
                sb,
                1.0,
            )
        low = y - (0.3 if coat else 0.43) * t
        mid, half = 0.5 * (top + 0.2 * t + low), 0.5 * (low - top - 0.2 * t)
        ellipse(c, oy, ox, s, top + 0.27 * t, x, 0.085 * t, 0.155 * t, r, g, b, 1.0)
        quad(
            c,
            oy,
            ox,
            s,
            (top + 0.25 * t, top + 0.25 * t, low, low),
            (x - 0.155 * t, x + 0.155 * t, x + 0.12 * t, x - 0.12 * t),
            r,
            g,
            b,
            1.0,
        )
        if t > 14 * s:  # light from above on the shoulders, shade below
            ellipse(
                c,
                oy,
                ox,
                s,
                top + 0.245 * t,
                x,
                0.05 * t,
                0.13 * t,
                min(255.0, r * 1.25 + 12),
                min(255.0, g * 1.25 + 12),
                min(255.0, b * 1.25 + 12),
                0.55,
            )
            ellipse(
                c,
                oy,
                ox,
                s,
                mid + 0.3 * half,
                x - side * 0.06 * t,
                half * 0.55,
                0.05 * t,
                r * 0.6,
                g * 0.6,
                b * 0.6,
                0.35,
            )
        carries = uniform(h, 9, 0, 71)
        if carries < 0.22:  # a backpack or a bag at the side
            br, bg, bb = _pick(CLOTHES, h, 10)
            ellipse(
                c,
                oy,
                ox,
                s,
                y - 0.62 * t,
                x + side * 0.05 * t,
                0.13 * t,
                0.085 * t,
                br,
                bg,
                bb,
                1.0,
            )
        elif carries < 0.4:
            br, bg, bb = _pick(CLOTHES, h, 11)
            ellipse(
                c,
                oy,
                ox,
                s,
                y - 0.36 * t,
                x + side * 0.19 * t,
                0.085 * t,
                0.07 * t,
                br,
                bg,
                bb,
                1.0,
            )
        ellipse(c, oy, ox, s, top + 0.135 * t, x, 0.095 * t, 0.082 * t, sr, sg, sb, 1.0)
        back = uniform(h, 12, 0, 71)
        if back < 0.45:
            ellipse(c, oy, ox, s, top + 0.115 * t, x, 0.1 * t, 0.092 * t, hr, hg, hb, 1.0)
        else:
            ellipse(
                c,
                oy,
                ox,
                s,
                top + 0.085 * t,
                x - side * 0.015 * t,
                0.072 * t,
                0.09 * t,
                hr,
                hg,
                hb,
                1.0,
            )
            if back < 0.62:
                ellipse(
                    c,
                    oy,
                    ox,
                    s,
                    top + 0.16 * t,
                    x - side * 0.06 * t,
                    0.1 * t,
                    0.045 * t,
                    hr,
                    hg,
                    hb,
                    1.0,
                )
        if t > 14 * s:
            ellipse(
                c,
                oy,
                ox,
                s,
                top + 0.06 * t,
                x + 0.02 * t,
                0.025 * t,
                0.04 * t,
                min(255.0, hr + 50),
                min(255.0, hg + 48),
                min(255.0, hb + 46),
                0.6,
            )
        if back > 0.86:  # a hat
            br, bg, bb = _pick(CLOTHES, h, 13)
            ellipse(c, oy, ox, s, top + 0.09 * t, x, 0.05 * t, 0.12 * t, br, bg, bb, 1.0)
            ellipse(
                c,
                oy,
                ox,
                s,
                top + 0.06 * t,
                x,
                0.05 * t,
                0.07 * t,
                br * 0.9,
                bg * 0.9,
                bb * 0.9,
                1.0,
            )
    if umbrella > 0:
        br, bg, bb = _pick(CLOTHES, h, 14)
        at = x + (0.16 if uniform(h, 15, 0, 71) < 0.5 else -0.16) * t
        if t > 8 * s:
            stroke(
                c, oy, ox, s, top - 0.02 * t, at, y - 0.5 * t, at, 0.012 * t, 60.0, 60.0, 64.0, 1.0
            )
        ellipse(c, oy, ox, s, top - 0.04 * t, at, 0.13 * t, 0.26 * t, br, bg, bb, 1.0)
        ellipse(
            c,
            oy,
            ox,
            s,
            top - 0.075 * t,
            at - 0.05 * t,
            0.075 * t,
            0.16 * t,
            min(255.0, br * 1.2 + 10),
            min(255.0, bg * 1.2 + 10),
            min(255.0, bb * 1.2 + 10),
            0.7,
        )


@compiled
def _tree(w: Any, c: Any, oy: Any, ox: Any, s: Any, y: Any, x: Any, p: Any, h: Any) -> None:
    size = between(h, 1, 0.75, 1.1)
    p = p * size
    r, g, b = _pick(LEAVES, h, 2)
    if w.weather == 4:
        r, g, b = 0.45 * r + 120, 0.45 * g + 122, 0.45 * b + 126
    stroke(c, oy, ox, s, y, x, y - 3.0 * p, x, 0.17 * p, 84.0, 66.0, 50.0, 1.0)
    if 2.0 * p < s:
        ellipse(c, oy, ox, s, y - 4.4 * p, x, 2.1 * p, 2.15 * p, r * 0.93, g * 0.93, b * 0.93, 1.0)
        return
    ellipse(c, oy, ox, s, y - 4.1 * p, x, 1.9 * p, 2.1 * p, r * 0.62, g * 0.62, b * 0.64, 1.0)
    for k in range(26):
        turn, far = 6.283 * uniform(h, k, 1, 72), math.sqrt(uniform(h, k, 2, 72))
        v = 4.4 + 1.5 * far * math.sin(turn)
        u = 1.65 * far * math.cos(turn)
        lit = 0.68 + 0.15 * (v - 2.9) + 0.2 * (uniform(h, k, 3, 72) - 0.5) - 0.05 * u * w.sun_x
        size = 0.42 + 0.4 * uniform(h, k, 4, 72)
        ellipse(
            c,
            oy,
            ox,
            s,
            y - v * p,
            x + u * p,
            0.85 * size * p,
            size * p,
            r * lit,
            g * lit,
            b * lit,
            0.9,
        )
    for k in range(60):
        if p < 2 * s:
            break
        turn, far = 6.283 * uniform(h, k, 5, 72), math.sqrt(uniform(h, k, 6, 72))
        v, u = 4.5 + 1.75 * far * math.sin(turn), 1.9 * far * math.cos(turn)
        lit = 0.8 + 0.16 * (v - 3.0) + 0.3 * (uniform(h, k, 7, 72) - 0.5)
        ellipse(
            c, oy, ox, s, y - v * p, x + u * p, 0.13 * p, 0.17 * p, r * lit, g * lit, b * lit, 0.8
        )


@compiled
def _small(
    w: Any, c: Any, oy: Any, ox: Any, s: Any, y: Any, x: Any, p: Any, h: Any, kind: Any
) -> None:
    """Draw what stands about, much of it as tall and narrow as a person."""
    if kind == LAMP:
        stroke(c, oy, ox, s, y, x, y - 4.6 * p, x, 0.07 * p, 52.0, 56.0, 58.0, 1.0)
        ellipse(c, oy, ox, s, y - 0.1 * p, x, 0.12 * p, 0.2 * p, 46.0, 48.0, 52.0, 1.0)
        ellipse(c, oy, ox, s, y - 4.8 * p, x, 0.3 * p, 0.26 * p, 245.0, 232.0, 190.0, 1.0)
        ellipse(c, oy, ox, s, y - 5.05 * p, x, 0.1 * p, 0.3 * p, 48.0, 52.0, 54.0, 1.0)
    elif kind == BOLLARD:
        n = 1 + int(3 * uniform(h, 1, 0, 73))
        for k in range(n):
            u = x + 1.4 * p * k
            stroke(c, oy, ox, s, y - 0.1 * p, u, y - 0.75 * p, u, 0.13 * p, 70.0, 72.0, 78.0, 1.0)
            ellipse(c, oy, ox, s, y - 0.85 * p, u, 0.14 * p, 0.16 * p, 150.0, 150.0, 150.0, 1.0)
    elif kind == BIN:
        box(c, oy, ox, s, y - 0.95 * p, x - 0.3 * p, y, x + 0.3 * p, 50.0, 78.0, 64.0, 1.0)
        ellipse(c, oy, ox, s, y - 0.97 * p, x, 0.17 * p, 0.32 * p, 34.0, 46.0, 42.0, 1.0)
        ellipse(c, oy, ox, s, y - 1.02 * p, x, 0.12 * p, 0.24 * p, 110.0, 130.0, 118.0, 1.0)
    elif kind == STATUE:
        # A figure of bronze on its plinth.
        box(c, oy, ox, s, y - 1.1 * p, x - 0.6 * p, y, x + 0.6 * p, 176.0, 172.0, 162.0, 1.0)
        box(
            c,
            oy,
            ox,
            s,
            y - 1.55 * p,
            x - 0.66 * p,
            y - 1.05 * p,
            x + 0.66 * p,
            206.0,
            202.0,
            192.0,
            1.0,
        )
        r, g, b = 84.0, 112.0, 98.0
        stroke(
            c,
            oy,
            ox,
            s,
            y - 1.3 * p,
            x - 0.1 * p,
            y - 2.2 * p,
            x - 0.08 * p,
            0.12 * p,
            r * 0.8,
            g * 0.8,
            b * 0.8,
            1.0,
        )
        stroke(
            c,
            oy,
            ox,
            s,
            y - 1.3 * p,
            x + 0.12 * p,
            y - 2.2 * p,
            x + 0.08 * p,
            0.12 * p,
            r * 0.8,
            g * 0.8,
            b * 0.8,
            1.0,
        )
        ellipse(c, oy, ox, s, y - 2.5 * p, x, 0.5 * p, 0.28 * p, r, g, b, 1.0)
        stroke(
            c,
            oy,
            ox,
            s,
            y - 2.75 * p,
            x + 0.2 * p,
            y - 3.3 * p,
            x + 0.55 * p,
            0.08 * p,
            r,
            g,
            b,
            1.0,
        )
        ellipse(c, oy, ox, s, y - 3.15 * p, x, 0.19 * p, 0.16 * p, r * 1.1, g * 1.1, b * 1.1, 1.0)
    elif kind == BENCH:
        box(
            c, oy, ox, s, y - 0.4 * p, x - 0.9 * p, y - 0.05 * p, x + 0.9 * p, 74.0, 60.0, 48.0, 0.8
        )
        box(
            c,
            oy,
            ox,
            s,
            y - 0.65 * p,
            x - 0.95 * p,
            y - 0.35 * p,
            x + 0.95 * p,
            150.0,
            112.0,
            74.0,
            1.0,
        )
        box(
            c,
            oy,
            ox,
            s,
            y - 1.0 * p,
            x - 0.95 * p,
            y - 0.72 * p,
            x + 0.95 * p,
            136.0,
            98.0,
            64.0,
            1.0,
        )
    elif kind == PARASOL:
        for k in range(3):
            u = x + (k - 1) * 1.0 * p
            box(
                c,
                oy,
                ox,
                s,
                y - 0.7 * p,
                u - 0.22 * p,
                y - 0.25 * p,
                u + 0.22 * p,
                96.0,
                80.0,
                66.0,
                1.0,
            )
        stroke(c, oy, ox, s, y - 0.2 * p, x, y - 2.5 * p, x, 0.05 * p, 220.0, 214.0, 200.0, 1.0)
        r, g, b = _pick(CANVAS, mix(w.seed, int(h) & 3, 0, 74), 1)
        ellipse(c, oy, ox, s, y - 2.3 * p, x, 0.62 * p, 1.55 * p, r * 0.7, g * 0.7, b * 0.7, 1.0)
        ellipse(c, oy, ox, s, y - 2.42 * p, x, 0.6 * p, 1.5 * p, r, g, b, 1.0)
        if p > 1.5 * s:
            for k in range(6):
                turn = 0.524 + 1.047 * k
                v, u = 0.58 * math.sin(turn), 1.46 * math.cos(turn)
                stroke(
                    c,
                    oy,
                    ox,
                    s,
                    y - 2.62 * p,
                    x,
                    y - (2.42 + v) * p,
                    x + u * p,
                    0.05 * p,
                    0.5 * r + 120,
                    0.5 * g + 120,
                    0.5 * b + 118,
                    0.7,
                )
        ellipse(c, oy, ox, s, y - 2.66 * p, x, 0.07 * p, 0.1 * p, 240.0, 236.0, 226.0, 1.0)
    elif kind == STALL:
        r, g, b = _pick(CANVAS, h, 1)
        box(c, oy, ox, s, y - 1.9 * p, x - 1.7 * p, y - 0.9 * p, x + 1.7 * p, 70.0, 60.0, 54.0, 1.0)
        box(c, oy, ox, s, y - 0.9 * p, x - 1.75 * p, y, x + 1.75 * p, 146.0, 118.0, 86.0, 1.0)
        box(
            c,
            oy,
            ox,
            s,
            y - 1.05 * p,
            x - 1.75 * p,
            y - 0.82 * p,
            x + 1.75 * p,
            176.0,
            146.0,
            108.0,
            1.0,
        )
        if p > 1.5 * s:
            for k in range(14):
                fr, fg, fb = _pick(CANVAS, h, 20 + k)
                ellipse(
                    c,
                    oy,
                    ox,
                    s,
                    y - 1.0 * p,
                    x + (k - 6.5) * 0.24 * p,
                    0.1 * p,
                    0.12 * p,
                    fr,
                    fg,
                    fb,
                    1.0,
                )
        for k in range(8):
            left, right = -2.0 + 0.5 * k, -1.5 + 0.5 * k
            lit = k % 2
            cr, cg, cb = (236.0, 230.0, 218.0) if lit else (r, g, b)
            quad(
                c,
                oy,
                ox,
                s,
                (y - 3.1 * p, y - 3.1 * p, y - 1.95 * p, y - 1.95 * p),
                (x + left * 0.9 * p, x + right * 0.9 * p, x + right * p, x + left * p),
                cr,
                cg,
                cb,
                1.0,
            )
            box(
                c,
                oy,
                ox,
                s,
                y - 1.97 * p,
                x + left * p,
                y - 1.75 * p,
                x + right * p,
                cr * 0.8,
                cg * 0.8,
                cb * 0.8,
                1.0,
            )


@compiled
def _car(
    w: Any, c: Any, oy: Any, ox: Any, s: Any, y: Any, x: Any, p: Any, h: Any, along: Any
) -> None:
    r, g, b = _pick(CARS, h, 1)
    if along:  # driving away or towards: narrow and deep
        hw, deep = 0.9 * p, 4.2 * p * 0.6
    else:
        hw, deep = 2.1 * p, 1.8 * p * 0.6
    for k in (-1.0, 1.0):
        ellipse(
            c,
            oy,
            ox,
            s,
            y - 0.3 * p,
            x + k * (0.72 if along else 0.62) * hw,
            0.33 * p,
            (0.14 if along else 0.34) * p,
            22.0,
            22.0,
            24.0,
            1.0,
        )
    box(c, oy, ox, s, y - 0.85 * p, x - hw, y - 0.28 * p, x + hw, r * 0.72, g * 0.72, b * 0.72, 1.0)
    box(c, oy, ox, s, y - 0.85 * p - deep, x - hw, y - 0.85 * p, x + hw, r, g, b, 1.0)
    if along:
        box(
            c,
            oy,
            ox,
            s,
            y - 1.2 * p - 0.75 * deep,
            x - 0.82 * hw,
            y - 0.85 * p - 0.2 * deep,
            x + 0.82 * hw,
            44.0,
            52.0,
            62.0,
            1.0,
        )
        box(
            c,
            oy,
            ox,
            s,
            y - 1.45 * p - 0.65 * deep,
            x - 0.74 * hw,
            y - 1.4 * p - 0.25 * deep,
            x + 0.74 * hw,
            min(255.0, r * 1.12),
            min(255.0, g * 1.12),
            min(255.0, b * 1.12),
            1.0,
        )
        for k in (-1.0, 1.0):
            ellipse(
                c,
                oy,
                ox,
                s,
                y - 0.62 * p,
                x + k * 0.7 * hw,
                0.09 * p,
                0.14 * p,
                230.0,
                60.0,
                50.0,
                1.0,
            )
    else:
        box(
            c,
            oy,
            ox,
            s,
            y - 1.4 * p - 0.3 * deep,
            x - 0.6 * hw,
            y - 0.8 * p,
            x + 0.5 * hw,
            46.0,
            54.0,
            64.0,
            1.0,
        )
        box(
            c,
            oy,
            ox,
            s,
            y - 1.4 * p - 0.85 * deep,
            x - 0.5 * hw,
            y - 1.36 * p,
            x + 0.4 * hw,
            min(255.0, r * 1.12),
            min(255.0, g * 1.12),
            min(255.0, b * 1.12),
            1.0,
        )


@compiled
def _fountain(c: Any, oy: Any, ox: Any, s: Any, y: Any, x: Any, p: Any) -> None:
    ellipse(c, oy, ox, s, y, x, 3.9 * p, 6.4 * p, 150.0, 144.0, 134.0, 1.0)
    ellipse(c, oy, ox, s, y - 0.5 * p, x, 3.9 * p, 6.4 * p, 206.0, 200.0, 188.0, 1.0)
    ellipse(c, oy, ox, s, y - 0.4 * p, x, 3.45 * p, 5.8 * p, 74.0, 120.0, 136.0, 1.0)
    ellipse(c, oy, ox, s, y - 0.1 * p, x, 2.6 * p, 4.6 * p, 96.0, 146.0, 160.0, 0.8)
    ellipse(c, oy, ox, s, y - 0.2 * p, x, 1.2 * p, 2.0 * p, 190.0, 214.0, 220.0, 0.5)
    stroke(c, oy, ox, s, y, x, y - 2.0 * p, x, 0.4 * p, 176.0, 170.0, 158.0, 1.0)
    ellipse(c, oy, ox, s, y - 2.0 * p, x, 0.8 * p, 1.5 * p, 210.0, 204.0, 194.0, 1.0)
    ellipse(c, oy, ox, s, y - 2.1 * p, x, 0.62 * p, 1.25 * p, 110.0, 160.0, 174.0, 1.0)
    stroke(c, oy, ox, s, y - 2.1 * p, x, y - 4.3 * p, x, 0.16 * p, 226.0, 236.0, 240.0, 0.8)
    for k in (-1.0, 1.0):
        stroke(
            c,
            oy,
            ox,
            s,
            y - 4.2 * p,
            x,
            y - 3.1 * p,
            x + k * 0.7 * p,
            0.09 * p,
            226.0,
            236.0,
            240.0,
            0.6,
        )
        stroke(
            c,
            oy,
            ox,
            s,
            y - 3.1 * p,
            x + k * 0.7 * p,
            y - 2.1 * p,
            x + k * 0.95 * p,
            0.07 * p,
            226.0,
            236.0,
            240.0,
            0.5,
        )


@compiled
def _place(w: Any, bx: Any, bz: Any, lx: Any, lz: Any) -> Any:
    """Return a lot's sides on the ground: left, right, near, far."""
    wide, deep = (PITCH_X - STREET) / LOTS_X, (PITCH_Z - STREET) / LOTS_Z
    x0 = bx * PITCH_X - PITCH_X - 0.5 * STREET + STREET + lx * wide
    z0 = bz * PITCH_Z - 0.3 * PITCH_Z + STREET + lz * deep
    return x0, x0 + wide, z0, z0 + deep


@compiled
def _house(w: Any, c: Any, oy: Any, ox: Any, s: Any, bx: Any, bz: Any, lx: Any, lz: Any) -> None:
    x0, x1, z0, z1 = _place(w, bx, bz, lx, lz)
    h = mix(w.seed, bx * LOTS_X + lx, bz * LOTS_Z + lz, 75)
    high = lot_height(w, bx, bz, lx, lz)
    near, far = row_of(w, z0), row_of(w, z1)
    p, q = scale_at(w, near), scale_at(w, far)
    mid = 0.5 * w.size
    a, b_, d, e = mid + x0 * p, mid + x1 * p, mid + x0 * q, mid + x1 * q  # near, then far corners
    up, back = near - high * p, far - high * q
    r, g, b = _pick(WALLS, h, 1)
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
                ar, ag, ab = _pick(CANVAS, h, 4)
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
    r, g, b = _pick(ROOFS, h, 6)
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


@compiled
def _gather(w: Any, y0: Any, x0: Any, y1: Any, x1: Any, s: Any, people: Any) -> Any:
    """Return what may be seen in a rectangle, from back to front.

    Columns: its row and column, its kind, and its lattice place (a house's with its lot) or, for
    people, also whether an umbrella is up; shadows fall within the same margin.
    """
    mid = 0.5 * w.size
    y0, x0, y1, x1 = y0 - 2 * s, x0 - 2 * s, y1 + 2 * s, x1 + 2 * s
    out = np.empty((256, 7))
    n = 0
    down = 26.0 * scale_at(w, y1) / (1 - min(0.9, 26.0 * w.slope))
    up = 16.0 * scale_at(w, y0)
    za, zb = z_of(w, y1 + down), z_of(w, y0 - up)
    for i in range(math.floor(za / FURNITURE) - 1, math.floor(zb / FURNITURE) + 2):
        p = scale_at(w, row_of(w, (i + 0.5) * FURNITURE))
        if 3.0 * p < 0.25 * s:
            continue
        reach = 14.0
        ja = math.floor(((x0 - mid) / p - reach) / FURNITURE)
        jb = math.floor(((x1 - mid) / p + reach) / FURNITURE)
        for j in range(ja, jb + 1):
            kind, z, x = furniture(w, i, j)
            if kind == NOTHING:
                continue
            if n == len(out):
                out = np.concatenate((out, np.empty_like(out)))
            y = row_of(w, z)
            out[n, 0], out[n, 1], out[n, 2] = y, mid + x * scale_at(w, y), kind
            out[n, 3], out[n, 4], out[n, 5], out[n, 6] = i, j, 0.0, 0.0
            n += 1
    ba, bb = math.floor(za / PITCH_Z) - 1, math.floor(zb / PITCH_Z) + 2
    for bz in range(ba, bb + 1):
        row = row_of(w, (bz + 0.5) * PITCH_Z)
        p, q = (
            scale_at(w, row_of(w, (bz - 0.4) * PITCH_Z)),
            scale_at(w, row_of(w, (bz + 1.4) * PITCH_Z)),
        )
        lo = min((x0 - mid) / p, (x0 - mid) / q) - 20
        hi = max((x1 - mid) / p, (x1 - mid) / q) + 20
        for bx in range(math.floor(lo / PITCH_X), math.floor(hi / PITCH_X) + 3):
            if is_plaza(w, bx // 2, bz // 2) and bx % 2 and bz % 2:
                if n == len(out):
                    out = np.concatenate((out, np.empty_like(out)))
                # The middle of a square of two by two blocks.
                x, z = fountain(w, bx // 2, bz // 2)
                row = row_of(w, z)
                out[n, 0], out[n, 1], out[n, 2] = row, mid + x * scale_at(w, row), FOUNTAIN
                out[n, 3], out[n, 4], out[n, 5], out[n, 6] = bz, bx, 0.0, 0.0
                n += 1
            left, right, near, _far = _place(w, bx, bz, 0, 0)
            if kind_at(w, left + 1.0, near + 1.0) != BUILDING:
                continue
            for lz in range(LOTS_Z):
                for lx in range(LOTS_X):
                    left, right, near, _ = _place(w, bx, bz, lx, lz)
                    if n == len(out):
                        out = np.concatenate((out, np.empty_like(out)))
                    # In a row, houses farther from the middle are behind.
                    row = row_of(w, near)
                    out[n, 0], out[n, 1], out[n, 2] = row - 1e-4 * abs(left + right), 0.0, HOUSE
                    out[n, 3], out[n, 4], out[n, 5], out[n, 6] = bz, bx, lx, lz
                    n += 1
    if people:
        pad = 3.5 * tall(w, y1) + 2
        low = y1 + 1.4 * tall(w, y1) / (1 - 1.4 * 1.7 * w.slope) + 2
        who = people_in(w, y0 - pad, x0 - pad, low + pad, x1 + pad)
        while n + len(who) > len(out):
            out = np.concatenate((out, np.empty_like(out)))
        for k in range(len(who)):
            out[n, 0], out[n, 1], out[n, 2] = who[k, 0], who[k, 1], PERSON
            out[n, 3], out[n, 4], out[n, 5], out[n, 6] = who[k, 2], who[k, 3], who[k, 4], 0.0
            n += 1
    out = out[:n]
    return out[np.argsort(out[:, 0], kind="mergesort")]


@compiled
def _cast(w: Any, c: Any, oy: Any, ox: Any, s: Any, thing: Any) -> None:
    """Draw a thing's shadow on the ground."""
    y, x, kind = thing[0], thing[1], int(thing[2])
    p = scale_at(w, y)
    if kind == HOUSE:
        if w.sun_x == 0.0 or thing[5] > 0 or thing[6] > 0:
            return
        left, _, near, _ = _place(w, int(thing[4]), int(thing[3]), 0, 0)
        right, far = left + PITCH_X - STREET, near + PITCH_Z - STREET
        dx, dz = 10.0 * w.sun_x, 10.0 * w.sun_z
        mid = 0.5 * w.size
        a, b = row_of(w, near + dz), row_of(w, far + dz)
        p, q = scale_at(w, a), scale_at(w, b)
        xs = (
            mid + (left + dx) * p,
            mid + (right + dx) * p,
            mid + (right + dx) * q,
            mid + (left + dx) * q,
        )
        quad(c, oy, ox, s, (a, a, b, b), xs, 20.0, 22.0, 34.0, w.shade)
    elif kind == PERSON:
        _shadow(w, c, oy, ox, s, y, x, p, 1.55, 0.2)
    elif kind == TREE:
        _shadow(w, c, oy, ox, s, y, x, p, 2.6, 0.15)
        dx, dy = w.sun_x * 4.4 * p, -w.sun_z * 4.4 * p
        ellipse(c, oy, ox, s, y + dy, x + dx, 1.2 * p, 2.1 * p, 20.0, 22.0, 34.0, w.shade)
    elif kind == CAR:
        ellipse(
            c,
            oy,
            ox,
            s,
            y - 0.2 * p,
            x + 0.3 * w.sun_x * p,
            0.9 * p,
            2.0 * p,
            20.0,
            22.0,
            30.0,
            0.3,
        )
    elif kind in (STALL, PARASOL):
        dx, dy = w.sun_x * 2.3 * p, -w.sun_z * 2.3 * p
        ellipse(c, oy, ox, s, y + dy - 0.3 * p, x + dx, 0.9 * p, 1.9 * p, 20.0, 22.0, 34.0, w.shade)
    elif kind == STATUE:
        _shadow(w, c, oy, ox, s, y, x, p, 3.0, 0.45)
    elif kind == LAMP:
        _shadow(w, c, oy, ox, s, y, x, p, 4.6, 0.09)
    elif kind in (BIN, BOLLARD, BENCH):
        _shadow(w, c, oy, ox, s, y, x, p, 0.8, 0.25)


@compiled
def _draw(w: Any, c: Any, oy: Any, ox: Any, s: Any, thing: Any) -> None:
    """Draw a thing."""
    y, x, kind = thing[0], thing[1], int(thing[2])
    p = scale_at(w, y)
    i, j = int(thing[3]), int(thing[4])
    if kind == PERSON:
        _person(w, c, oy, ox, s, y, x, mix(w.seed, i, j, 40), thing[5])
    elif kind == HOUSE:
        _house(w, c, oy, ox, s, j, i, int(thing[5]), int(thing[6]))
    elif kind == FOUNTAIN:
        _fountain(c, oy, ox, s, y, x, p)
    else:
        h = mix(w.seed, i, j, 41)
        if kind == TREE:
            _tree(w, c, oy, ox, s, y, x, p, h)
        elif kind == CAR:
            fx = ((x - 0.5 * w.size) / p + PITCH_X + 0.5 * STREET) % PITCH_X
            _car(w, c, oy, ox, s, y, x, p, h, fx < STREET)
        else:
            _small(w, c, oy, ox, s, y, x, p, h, kind)


@compiled
def _seen(w: Any, thing: Any, y0: Any, x0: Any, y1: Any, x1: Any, s: Any) -> Any:
    """Whether a thing, with its shadow, may reach into a rectangle."""
    kind = int(thing[2])
    if kind == HOUSE:
        left, right, near, far = _place(
            w, int(thing[4]), int(thing[3]), int(thing[5]), int(thing[6])
        )
        below = row_of(w, near)
        p, q = scale_at(w, below), scale_at(w, row_of(w, far))
        mid = 0.5 * w.size
        if below + 2 * s < y0 or row_of(w, far) - 24 * q - 2 * s > y1:
            return False
        return (
            min(left * p, left * q) + mid - 2 * s < x1
            and max(right * p, right * q) + mid + 2 * s > x0
        )
    p = scale_at(w, thing[0])
    reach = (4.2 if kind == PERSON else 12.0) * p + 2 * s
    return y0 - reach < thing[0] < y1 + reach and x0 - reach < thing[1] < x1 + reach


@compiled
def _render(w: Any, y0: Any, x0: Any, height: Any, width: Any, s: Any, people: Any) -> Any:
    canvas = np.empty((height, width, 3), np.float32)
    oy, ox = y0 // s, x0 // s
    y1, x1 = y0 + height * s, x0 + width * s
    paint_ground(w, canvas, oy, ox, s)
    things = _gather(w, y0, x0, y1, x1, s, people)
    for k in range(len(things)):
        if int(things[k, 2]) == HOUSE or _seen(w, things[k], y0, x0, y1, x1, s):
            _cast(w, canvas, oy, ox, s, things[k])
    for k in range(len(things)):
        if _seen(w, things[k], y0, x0, y1, x1, s):
            _draw(w, canvas, oy, ox, s, things[k])
    out = np.empty((height, width, 3), np.uint8)
    tint = (w.red, w.green, w.blue)
    for i in range(height):
        # What is far away is paler.
        haze = 0.16 * max(0.0, 1 - (i + oy + 0.5) * s / w.size)
        for j in range(width):
            for k in range(3):
                v = canvas[i, j, k] * tint[k]
                v += haze * ((188.0 + 10 * k) * tint[k] - v)
                out[i, j, k] = np.uint8(min(255.0, max(0.0, v + 0.5)))
    return out


@compiled
def _instances(w: Any, y0: Any, x0: Any, height: Any, width: Any) -> Any:
    """Return whose pixel each is: 0, or 1 + the number of a person in the list also returned."""
    out = np.zeros((height, width), np.int32)
    y1, x1 = y0 + height, x0 + width
    things = _gather(w, y0, x0, y1, x1, 1, True)
    who = np.empty((len(things), FIELDS))
    n = 0
    canvas = np.full((height, width, 3), BLANK, np.float32)
    for k in range(len(things)):
        if not _seen(w, things[k], y0, x0, y1, x1, 1):
            continue
        label = 0
        if int(things[k, 2]) == PERSON:
            who[n, 0], who[n, 1] = things[k, 0], things[k, 1]
            who[n, 2], who[n, 3], who[n, 4] = things[k, 3], things[k, 4], things[k, 5]
            n += 1
            label = n
        p = scale_at(w, things[k, 0])
        a, b, left, right = 0, height, 0, width
        if int(things[k, 2]) != HOUSE:
            a = min(height, max(0, int(things[k, 0] - 9 * p) - y0))
            b = min(height, max(0, int(things[k, 0] + 5 * p) - y0))
            left = min(width, max(0, int(things[k, 1] - 8 * p) - x0))
            right = min(width, max(0, int(things[k, 1] + 8 * p) - x0))
        window = canvas[a:b, left:right]
        window[:] = BLANK
        _draw(w, window, y0 + a, x0 + left, 1, things[k])
        for i in range(a, b):
            for j in range(left, right):
                if canvas[i, j, 0] > 0.5 * BLANK:
                    out[i, j] = label
    return out, who[:n]


class Crowd(Recipe):
    """A city square and its streets, with its people."""

    title: ClassVar[str] = "City square"
    classes: ClassVar[tuple[str, ...]] = ("person",)
    version: ClassVar[int] = 1
    populated: ClassVar[bool] = True

    def __init__(self, size: int, seed: int) -> None:
        super().__init__(size, seed)
        self._world = make_world(size, seed)

    def render(self, rect: Rect, scale: int) -> NDArray[np.uint8]:
        """Return what is seen in a rectangle."""
        # Coarse pixels are means of finer ones: shapes far below a pixel are hard to weigh.
        fine = 1 if scale == 1 else (2 if scale < 16 else 4)
        height, width = -(-rect.h // scale) * fine, -(-rect.w // scale) * fine
        pixels: NDArray[np.uint8] = _render(
            self._world, rect.y, rect.x, height, width, scale // fine, self.populated
        )
        return block_mean(pixels, fine)

    def truth(self, rect: Rect) -> Truth:
        """Return the people whose head's centre lies in `rect`, from back to front."""
        pad = 2 + 1.8 * tall(self._world, rect.y1)
        found = people_in(
            self._world, rect.y - pad, rect.x - pad, rect.y1 + 1.3 * pad, rect.x1 + pad
        )
        return self._told(found).clip(rect)

    def labels(self, rect: Rect) -> NDArray[np.int32]:
        """Return whose pixel each is; shadows are nobody's."""
        owner, found = _instances(self._world, rect.y, rect.x, rect.h, rect.w)
        points = self._told(found).points
        low, high = (rect.y, rect.x), (rect.y1, rect.x1)
        inside = ((points >= low) & (points < high)).all(axis=1)
        first = np.where(inside, np.cumsum(inside), inside.sum() + np.cumsum(~inside))
        numbers = np.concatenate([[0], first]).astype(np.int32)
        return numbers[owner]

    def _told(self, found: NDArray[np.float64]) -> Truth:
        """Return people as truth."""
        y, x = found[:, 0], found[:, 1]
        height = 1.7 * (self._world.far + self._world.slope * y)
        points = np.stack([y - HEAD * height, x], axis=1)
        boxes = np.stack([y - height, x - 0.2 * height, height, 0.4 * height], axis=1)
        return Truth(points, self.classes, boxes=boxes)
