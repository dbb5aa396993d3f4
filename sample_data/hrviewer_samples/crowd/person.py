"""A person, as drawn."""

from __future__ import annotations

from typing import Any

import numpy as np

from hrviewer_samples.crowd.city import (
    person_pixels,
)
from hrviewer_samples.crowd.strokes import pick
from hrviewer_samples.drawing import box, ellipse, quad, stroke
from hrviewer_samples.noise import compiled, uniform

__all__ = ["draw_person"]

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


@compiled
def draw_person(
    w: Any, c: Any, oy: Any, ox: Any, s: Any, y: Any, x: Any, h: Any, umbrella: Any
) -> None:
    """Draw a person, walking or standing."""
    t = person_pixels(w, y) * (0.94 + 0.1 * uniform(h, 0, 0, 71))
    top = y - t
    r, g, b = pick(CLOTHES, h, 1)
    lr, lg, lb = pick(TROUSERS, h, 2)
    hr, hg, hb = pick(HAIR, h, 3)
    sr, sg, sb = pick(SKIN, h, 4)
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
            br, bg, bb = pick(CLOTHES, h, 10)
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
            br, bg, bb = pick(CLOTHES, h, 11)
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
            br, bg, bb = pick(CLOTHES, h, 13)
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
        br, bg, bb = pick(CLOTHES, h, 14)
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
