"""Shapes with soft edges, drawn at any scale so that their area is kept.

A canvas is a float32 array ``(h, w, 3)`` whose first pixel is pixel ``(oy, ox)`` of the image at
scale `s`, a power of two. Shapes are given in level-0 pixels. What a pixel gets depends on its own
place alone, so canvases that overlap agree bit for bit. A shape thinner than a pixel is widened
to one and paled by as much.
"""

from __future__ import annotations

import math
from typing import Any

from hrviewer_samples.noise import compiled

__all__ = ["blend", "bounds", "box", "ellipse", "quad", "stroke"]


@compiled
def blend(canvas: Any, i: Any, j: Any, r: Any, g: Any, b: Any, a: Any) -> None:
    """Mix a colour into a pixel."""
    canvas[i, j, 0] += (r - canvas[i, j, 0]) * a
    canvas[i, j, 1] += (g - canvas[i, j, 1]) * a
    canvas[i, j, 2] += (b - canvas[i, j, 2]) * a


@compiled
def bounds(low: Any, high: Any, origin: Any, length: Any) -> Any:
    """Return the canvas's pixels that an interval of output coordinates touches."""
    a = max(0, math.floor(low) - origin)
    b = min(length, math.ceil(high) - origin)
    return a, b


@compiled
def box(
    canvas: Any, oy: Any, ox: Any, s: Any,
    y0: Any, x0: Any, y1: Any, x1: Any, r: Any, g: Any, b: Any, a: Any,
) -> None:  # fmt: skip
    """Fill ``[y0, y1) × [x0, x1)``, each pixel by the part that is covered."""
    y0, y1, x0, x1 = y0 / s, y1 / s, x0 / s, x1 / s
    i0, i1 = bounds(y0, y1, oy, canvas.shape[0])
    j0, j1 = bounds(x0, x1, ox, canvas.shape[1])
    for i in range(i0, i1):
        top = float(i + oy)
        cy = a * (min(y1, top + 1.0) - max(y0, top))
        for j in range(j0, j1):
            left = float(j + ox)
            cx = min(x1, left + 1.0) - max(x0, left)
            blend(canvas, i, j, r, g, b, cy * cx)


@compiled
def ellipse(
    canvas: Any, oy: Any, ox: Any, s: Any,
    y: Any, x: Any, ry: Any, rx: Any, r: Any, g: Any, b: Any, a: Any,
) -> None:  # fmt: skip
    """Fill an ellipse with the centre ``(y, x)``."""
    if rx < s and ry < s:  # about a pixel: a box of the same area
        hy, hx = ry * 0.8862269, rx * 0.8862269
        box(canvas, oy, ox, s, y - hy, x - hx, y + hy, x + hx, r, g, b, a)
        return
    y, x, ry, rx = y / s, x / s, ry / s, rx / s
    if ry < 0.6:
        a, ry = a * ry / 0.6, 0.6
    if rx < 0.6:
        a, rx = a * rx / 0.6, 0.6
    i0, i1 = bounds(y - ry - 1, y + ry + 1, oy, canvas.shape[0])
    j0, j1 = bounds(x - rx - 1, x + rx + 1, ox, canvas.shape[1])
    for i in range(i0, i1):
        v = (i + oy + 0.5 - y) / ry
        for j in range(j0, j1):
            u = (j + ox + 0.5 - x) / rx
            q = u * u + v * v
            if q > 9.0:
                continue
            slope = math.sqrt((u / rx) ** 2 + (v / ry) ** 2) * 2.0
            cover = 1.0 if slope < 1e-9 else min(1.0, max(0.0, 0.5 + (1.0 - q) / slope))
            if cover > 0.0:
                blend(canvas, i, j, r, g, b, cover * a)


@compiled
def stroke(
    canvas: Any, oy: Any, ox: Any, s: Any,
    y0: Any, x0: Any, y1: Any, x1: Any, radius: Any, r: Any, g: Any, b: Any, a: Any,
) -> None:  # fmt: skip
    """Draw a line with round ends."""
    y0, x0, y1, x1, radius = y0 / s, x0 / s, y1 / s, x1 / s, radius / s
    dy, dx = y1 - y0, x1 - x0
    length = dy * dy + dx * dx
    if length < 0.25 and radius < 1.0:
        hy, hx = 0.5 * abs(dy) + radius, 0.5 * abs(dx) + radius
        area = 2 * radius * math.sqrt(length) + math.pi * radius * radius
        y, x = 0.5 * (y0 + y1) * s, 0.5 * (x0 + x1) * s
        a *= min(1.0, area / (4 * hy * hx))
        box(canvas, oy, ox, s, y - hy * s, x - hx * s, y + hy * s, x + hx * s, r, g, b, a)
        return
    if radius < 0.5:
        a, radius = a * radius / 0.5, 0.5
    i0, i1 = bounds(min(y0, y1) - radius - 1, max(y0, y1) + radius + 1, oy, canvas.shape[0])
    j0, j1 = bounds(min(x0, x1) - radius - 1, max(x0, x1) + radius + 1, ox, canvas.shape[1])
    for i in range(i0, i1):
        v = i + oy + 0.5 - y0
        for j in range(j0, j1):
            u = j + ox + 0.5 - x0
            t = min(1.0, max(0.0, (v * dy + u * dx) / length)) if length > 0 else 0.0
            q = (v - t * dy) ** 2 + (u - t * dx) ** 2
            if q < (radius + 0.5) ** 2:
                blend(canvas, i, j, r, g, b, a * min(1.0, radius + 0.5 - math.sqrt(q)))


@compiled
def quad(
    canvas: Any, oy: Any, ox: Any, s: Any, ys: Any, xs: Any, r: Any, g: Any, b: Any, a: Any
) -> None:
    """Fill a convex quadrilateral; `ys` and `xs` are tuples of four corners in order."""
    low, high = min(ys) / s, max(ys) / s
    left, right = min(xs) / s, max(xs) / s
    twice = 0.0
    for k in range(4):
        n = (k + 1) % 4
        twice += (xs[k] * ys[n] - xs[n] * ys[k]) / (s * s)
    if high - low < 2.0 and right - left < 2.0:
        spread = (high - low) * (right - left)
        if spread > 0:
            part = a * abs(twice) * 0.5 / spread
            box(canvas, oy, ox, s, low * s, left * s, high * s, right * s, r, g, b, part)
        return
    turn = 1.0 if twice > 0 else -1.0
    i0, i1 = bounds(low - 1, high + 1, oy, canvas.shape[0])
    j0, j1 = bounds(left - 1, right + 1, ox, canvas.shape[1])
    for i in range(i0, i1):
        v = i + oy + 0.5
        for j in range(j0, j1):
            u = j + ox + 0.5
            cover = 1.0
            for k in range(4):
                n = (k + 1) % 4
                dy, dx = (ys[n] - ys[k]) / s, (xs[n] - xs[k]) / s
                side = math.sqrt(dy * dy + dx * dx)
                if side > 1e-9:
                    far = turn * (dx * (v - ys[k] / s) - dy * (u - xs[k] / s)) / side
                    cover *= min(1.0, max(0.0, far + 0.5))
            if cover > 0.0:
                blend(canvas, i, j, r, g, b, cover * a)
