"""What stands in streets and squares, as drawn."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hrviewer_samples.crowd.city import (
    BENCH,
    BIN,
    BOLLARD,
    LAMP,
    PARASOL,
    STALL,
    STATUE,
)
from hrviewer_samples.crowd.strokes import CANVAS, pick
from hrviewer_samples.drawing import box, ellipse, quad, stroke
from hrviewer_samples.noise import between, compiled, mix, uniform

__all__ = ["draw_car", "draw_fountain", "draw_small", "draw_tree"]

LEAVES = np.array([(72, 98, 46), (88, 116, 56), (60, 88, 52), (110, 122, 54)], float)
CARS = np.array([
    (196, 198, 202), (40, 42, 48), (150, 34, 38), (46, 76, 128), (110, 114, 120), (228, 228, 226),
], float)  # fmt: skip


@compiled
def draw_tree(w: Any, c: Any, oy: Any, ox: Any, s: Any, y: Any, x: Any, p: Any, h: Any) -> None:
    """Draw a tree."""
    size = between(h, 1, 0.75, 1.1)
    p = p * size
    r, g, b = pick(LEAVES, h, 2)
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
def draw_small(
    w: Any, c: Any, oy: Any, ox: Any, s: Any, y: Any, x: Any, p: Any, h: Any, kind: Any
) -> None:
    """Draw a bench, bin, bollard, lamp, parasol, stall or statue."""
    """Draw street furniture, much of it as tall and narrow as a person."""
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
        r, g, b = pick(CANVAS, mix(w.seed, int(h) & 3, 0, 74), 1)
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
        r, g, b = pick(CANVAS, h, 1)
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
                fr, fg, fb = pick(CANVAS, h, 20 + k)
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
def draw_car(
    w: Any, c: Any, oy: Any, ox: Any, s: Any, y: Any, x: Any, p: Any, h: Any, along: Any
) -> None:
    """Draw a car, along its street."""
    r, g, b = pick(CARS, h, 1)
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
def draw_fountain(c: Any, oy: Any, ox: Any, s: Any, y: Any, x: Any, p: Any) -> None:
    """Draw a fountain."""
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
