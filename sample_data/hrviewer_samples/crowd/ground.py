"""The ground of the crowd image: asphalt, paving, lawns and markings, a row at a time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hrviewer_samples.crowd.city import (
    CROSSING,
    GRASS,
    LINE,
    PATH,
    PITCH_X,
    PLAZA,
    ROAD,
    STREET,
    kind_at,
    scale_at,
    z_of,
)
from hrviewer_samples.noise import compiled, damped, uniform

__all__ = ["paint_ground"]

EDGES = (0.0, 4.0, 7.9, 8.1, 12.0, 16.0, 53.5, 58.5, PITCH_X)
"""Metres into a block's pitch where the ground may change."""

STONES = np.array([(172, 165, 155), (190, 172, 142), (164, 118, 98), (128, 128, 134)], float)


@compiled
def _colour(w: Any, kind: Any) -> Any:
    """Return a ground's colour, how big its slabs are, how they differ and how dark joints are."""
    white = w.weather == 4
    if kind == ROAD:
        return (
            (150.0, 152.0, 158.0, 0.2, 0.05, 0.0) if white else (84.0, 86.0, 91.0, 0.16, 0.09, 0.0)
        )
    if kind in (LINE, CROSSING):
        return 214.0, 212.0, 204.0, 0.5, 0.05, 0.0
    if kind == GRASS:
        return (
            (226.0, 229.0, 234.0, 0.2, 0.03, 0.0) if white else (96.0, 122.0, 62.0, 0.14, 0.2, 0.0)
        )
    if kind == PATH:
        return 196.0, 178.0, 146.0, 0.12, 0.10, 0.0
    if kind == PLAZA:
        r, g, b = STONES[w.paving]
        size = 1.5 if w.paving == 0 else (1.0 if w.paving == 1 else 0.75)
        if white:
            return 0.4 * r + 130, 0.4 * g + 132, 0.4 * b + 137, size, 0.04, 0.08
        return r, g, b, size, 0.085, 0.22
    return (190.0, 192.0, 196.0, 0.9, 0.05, 0.1) if white else (158.0, 154.0, 149.0, 0.9, 0.06, 0.2)


@compiled
def paint_ground(w: Any, canvas: Any, oy: Any, ox: Any, s: Any) -> None:
    """Fill a canvas with ground."""
    height, width = canvas.shape[0], canvas.shape[1]
    rows = 1 if s == 1 or s >= 16 else (2 if s == 2 else 4)
    mid = 0.5 * w.size
    shift = PITCH_X + 0.5 * STREET
    canvas[:] = 0.0
    for i in range(height):
        for part in range(rows):
            y = (i + oy + (part + 0.5) / rows) * s
            p, z = scale_at(w, y), z_of(w, y)
            m = s / p  # metres per output pixel
            x = (ox * s - mid) / p
            block = math.floor((x + shift) / PITCH_X)
            edge = 0
            while EDGES[edge + 1] <= x + shift - block * PITCH_X:
                edge += 1
            # Runs of one kind of ground; a pixel on an edge belongs to both by its parts.
            while True:
                x0 = block * PITCH_X + EDGES[edge] - shift
                x1 = block * PITCH_X + EDGES[edge + 1] - shift
                start, end = (x0 * p + mid) / s, (x1 * p + mid) / s
                if start >= ox + width:
                    break
                edge += 1
                if edge == len(EDGES) - 1:
                    edge, block = 0, block + 1
                j, last = max(0, math.floor(start) - ox), min(width, math.ceil(end) - ox)
                kind = kind_at(w, 0.5 * (x0 + x1), z)
                r, g, b, size, tone, joint = _colour(w, kind)
                tone *= damped(size, m) / rows
                zs = z / size
                zi = math.floor(zs)
                if joint > 0:
                    # A joint is 4 cm wide, or a pixel and paler.
                    wide = max(0.04, m) / size
                    joint *= 0.04 / size / wide
                    if wide > 0.5:
                        wide, joint = 0.5, joint * wide / 0.5
                    fz = zs - zi
                    across = joint / rows * max(0.0, 1 - min(fz, 1 - fz) / wide)
                else:
                    wide, across = 0.0, 0.0
                joint /= rows
                big = 11.0
                zb = z / big
                bi = math.floor(zb)
                fb = zb - bi
                fb = fb * fb * (3 - 2 * fb)
                slab, cloud = np.int64(-(1 << 40)), np.int64(-(1 << 40))
                one, left, right = 0.0, 0.0, 0.0
                odd = 0.5 * (zi % 2) if joint > 0 else 0.0
                for c in range(j, last):
                    x = ((c + ox + 0.5) * s - mid) / p
                    xs = x / size + odd
                    xi = math.floor(xs)
                    if tone > 0 and xi != slab:
                        slab = xi
                        one = tone * (2 * uniform(w.seed, zi, xi, 60) - 1)
                    v = 1.0 / rows + one
                    if joint > 0:
                        fx = xs - xi
                        near = min(fx, 1 - fx)
                        v -= max(across, joint * max(0.0, 1 - near / wide))
                    xb = x / big
                    xj = math.floor(xb)
                    if xj != cloud:
                        cloud = xj
                        a, d = uniform(w.seed, bi, xj, 61), uniform(w.seed, bi + 1, xj, 61)
                        left = a + (d - a) * fb
                        a, d = uniform(w.seed, bi, xj + 1, 61), uniform(w.seed, bi + 1, xj + 1, 61)
                        right = a + (d - a) * fb
                    fx = xb - xj
                    v += 0.11 / rows * (2 * (left + (right - left) * fx * fx * (3 - 2 * fx)) - 1)
                    if kind == CROSSING:
                        soft = m / 1.1
                        fx = abs((x / 1.1) % 1.0 - 0.5)
                        bar = 0.5 if soft > 1 else min(1.0, max(0.0, (0.25 - fx) / soft + 0.5))
                        v *= 0.42 + 0.58 * bar
                    v *= min(end, c + ox + 1.0) - max(start, float(c + ox))
                    canvas[i, c, 0] += r * v
                    canvas[i, c, 1] += g * v
                    canvas[i, c, 2] += b * v
