"""Positions of the people in the crowd image.

Groups belong to cells of the image, so that their number goes with its area; the people of a
group stand on a lattice of the ground, half a metre and more apart, so that no head is
behind another. No one stands where a house, a tree or a stall would hide them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hrviewer_samples.crowd.city import (
    BUILDING,
    LINE,
    PLAZA,
    ROAD,
    covered,
    in_fountain,
    kind_at,
    person_pixels,
    row_of,
    scale_at,
    z_of,
)
from hrviewer_samples.noise import compiled, mix, uniform, value_noise

__all__ = ["FIELDS", "HEAD", "people_in"]

CELL = 512
"""Pixels; the side of a cell of groups."""

REACH = 300
"""Pixels; the largest distance from the group's centre."""

SLOTS = 2
ACROSS, DEEP = 0.75, 0.95
"""Metres between neighbours in a group."""

HEAD = 0.87
"""A head's centre above the feet, in heights."""

FIELDS = 5
"""Of a person: row and column of the feet, lattice place, whether an umbrella is up."""


@compiled
def _is_walkable(w: Any, y: Any, x: Any) -> Any:
    """Whether one can stand at a pixel."""
    p = scale_at(w, y)
    if not (person_pixels(w, y) < y < w.size - 1 and 0.3 * p < x < w.size - 0.3 * p):
        return False
    right, z = (x - 0.5 * w.size) / p, z_of(w, y)
    kind = kind_at(w, right, z)
    if kind == PLAZA and in_fountain(w, right, z, 0.6):
        return False
    return kind != BUILDING and kind != ROAD and kind != LINE


@compiled
def _lattice_position(w: Any, i: Any, j: Any) -> Any:
    """Return the pixel of a lattice place."""
    h = mix(w.seed, i, j, 30)
    y = row_of(w, (i + 0.26 * (uniform(h, 0, 0, 0) - 0.5)) * DEEP)
    x = (j + 0.36 * (uniform(h, 1, 0, 0) - 0.5)) * ACROSS * scale_at(w, y)
    return y, x + 0.5 * w.size


@compiled
def _add_person(w: Any, out: Any, n: Any, i: Any, j: Any, umbrella: Any, area: Any) -> Any:
    """Add the person at a lattice place, if the place is in `area` and can be stood on."""
    y, x = _lattice_position(w, i, j)
    if not (area[0] <= y < area[2] and area[1] <= x < area[3]):
        return out, n
    if not _is_walkable(w, y, x) or covered(w, y, x):
        return out, n
    if n == len(out):
        more = np.empty((2 * n, FIELDS))
        more[:n] = out
        out = more
    out[n, 0], out[n, 1], out[n, 2], out[n, 3], out[n, 4] = y, x, i, j, umbrella
    return out, n + 1


@compiled
def people_in(w: Any, y0: Any, x0: Any, y1: Any, x1: Any) -> Any:
    """Return the people whose feet are in a rectangle, from back to front: ``(n, FIELDS)``."""
    out = np.empty((64, FIELDS))
    n = 0
    area = (float(y0), float(x0), float(y1), float(x1))
    last = int(w.size) // CELL
    for gy in range(max(0, (int(y0) - REACH) // CELL), min(last, (int(y1) + REACH) // CELL) + 1):
        for gx in range(
            max(0, (int(x0) - REACH) // CELL), min(last, (int(x1) + REACH) // CELL) + 1
        ):
            here = math.exp(0.7 * value_noise(w.seed, gy / 4.0, gx / 4.0, 31))
            for slot in range(SLOTS):
                h = mix(w.seed, gy * SLOTS + slot, gx, 32)
                if uniform(h, 0, 0, 0) > w.busy * here:
                    continue
                y, x = 0.0, 0.0
                for k in range(6):  # a visible place
                    y = (gy + uniform(h, 10 + k, 0, 0)) * CELL
                    x = (gx + uniform(h, 20 + k, 0, 0)) * CELL
                    if _is_walkable(w, y, x) and not covered(w, y, x):
                        break
                p = scale_at(w, y)
                ci = round(z_of(w, y) / DEEP)
                cj = round((x - 0.5 * w.size) / p / ACROSS)
                what, much = uniform(h, 1, 0, 0), uniform(h, 2, 0, 0)
                umbrella = 1.0 if w.weather == 2 and uniform(h, 3, 0, 0) < 0.6 else 0.0
                if what < 0.36:
                    out, n = _add_person(w, out, n, ci, cj, umbrella, area)
                elif what < 0.5:  # a queue
                    turn = math.pi * uniform(h, 4, 0, 0)
                    for k in range(int(5 + 14 * much * w.crowd)):
                        step = 1.25 * k
                        bend = 0.5 * math.sin(0.3 * k)
                        i = ci + round((step * math.sin(turn) + bend) / DEEP)
                        j = cj + round((step * math.cos(turn) - bend) / ACROSS)
                        if step * p < REACH:
                            out, n = _add_person(w, out, n, i, j, 0.0, area)
                else:
                    if what < 0.72:  # a few who walk together
                        count, full = 2.0 + 4.0 * much, 0.5
                    elif what < 0.89:
                        count, full = (6.0 + 20.0 * much) * w.crowd, 0.32
                        umbrella = 0.0
                    else:
                        count, full = (30.0 + 130.0 * much * much) * w.crowd, 0.62
                        umbrella = 0.0
                    radius = min(math.sqrt(count * ACROSS * DEEP / full / math.pi), 0.8 * REACH / p)
                    wide = 0.8 + 0.5 * uniform(h, 5, 0, 0)
                    ri, rj = int(radius / DEEP / wide) + 1, int(radius * wide / ACROSS) + 1
                    for i in range(ci - ri, ci + ri + 1):
                        for j in range(cj - rj, cj + rj + 1):
                            v = (i - ci) * DEEP / radius * wide
                            u = (j - cj) * ACROSS / radius / wide
                            d = v * v + u * u
                            rough = 0.5 * value_noise(h, 0.45 * i, 0.45 * j, 33)
                            if d + rough > 1.0:
                                continue
                            if uniform(w.seed, i, j, 34) < full * (1.25 - 0.5 * d):
                                out, n = _add_person(w, out, n, i, j, umbrella, area)
    out = out[:n]
    order = np.argsort(out[:, 0], kind="mergesort")
    out = out[order]
    # Where groups meet, both claim the same place.
    kept = 0
    for k in range(n):
        if k and out[k, 2] == out[kept - 1, 2] and out[k, 3] == out[kept - 1, 3]:
            continue
        out[kept] = out[k]
        kept += 1
    return out[:kept]
