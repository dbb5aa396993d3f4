"""Renderer of the crowd image, from back to front: ground, shadows, then objects.

All of it is computed again for each rectangle, so no list of a whole image is ever made.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hrviewer_samples.crowd.city import (
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
    person_pixels,
    row_of,
    scale_at,
    z_of,
)
from hrviewer_samples.crowd.furniture import draw_car, draw_fountain, draw_small, draw_tree
from hrviewer_samples.crowd.ground import paint_ground
from hrviewer_samples.crowd.houses import draw_house, lot
from hrviewer_samples.crowd.people import FIELDS, people_in
from hrviewer_samples.crowd.person import draw_person
from hrviewer_samples.crowd.strokes import shadow
from hrviewer_samples.drawing import ellipse, quad
from hrviewer_samples.noise import compiled, mix

__all__ = ["instances", "render"]

PERSON, HOUSE, FOUNTAIN = 20, 21, 22
"""Kinds of things beside the furniture's."""

BLANK = -1e6
"""What a canvas holds where nothing was drawn, when masks are made."""


@compiled
def _collect_objects(w: Any, y0: Any, x0: Any, y1: Any, x1: Any, s: Any, people: Any) -> Any:
    """Return the objects that may be visible in a rectangle, from back to front.

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
            left, right, near, _far = lot(w, bx, bz, 0, 0)
            if kind_at(w, left + 1.0, near + 1.0) != BUILDING:
                continue
            for lz in range(LOTS_Z):
                for lx in range(LOTS_X):
                    left, right, near, _ = lot(w, bx, bz, lx, lz)
                    if n == len(out):
                        out = np.concatenate((out, np.empty_like(out)))
                    # In a row, houses farther from the middle are behind.
                    row = row_of(w, near)
                    out[n, 0], out[n, 1], out[n, 2] = row - 1e-4 * abs(left + right), 0.0, HOUSE
                    out[n, 3], out[n, 4], out[n, 5], out[n, 6] = bz, bx, lx, lz
                    n += 1
    if people:
        pad = 3.5 * person_pixels(w, y1) + 2
        low = y1 + 1.4 * person_pixels(w, y1) / (1 - 1.4 * 1.7 * w.slope) + 2
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
def _draw_shadow(w: Any, c: Any, oy: Any, ox: Any, s: Any, thing: Any) -> None:
    """Draw a thing's shadow on the ground."""
    y, x, kind = thing[0], thing[1], int(thing[2])
    p = scale_at(w, y)
    if kind == HOUSE:
        if w.sun_x == 0.0 or thing[5] > 0 or thing[6] > 0:
            return
        left, _, near, _ = lot(w, int(thing[4]), int(thing[3]), 0, 0)
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
        shadow(w, c, oy, ox, s, y, x, p, 1.55, 0.2)
    elif kind == TREE:
        shadow(w, c, oy, ox, s, y, x, p, 2.6, 0.15)
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
        shadow(w, c, oy, ox, s, y, x, p, 3.0, 0.45)
    elif kind == LAMP:
        shadow(w, c, oy, ox, s, y, x, p, 4.6, 0.09)
    elif kind in (BIN, BOLLARD, BENCH):
        shadow(w, c, oy, ox, s, y, x, p, 0.8, 0.25)


@compiled
def _draw_object(w: Any, c: Any, oy: Any, ox: Any, s: Any, thing: Any) -> None:
    """Draw a thing."""
    y, x, kind = thing[0], thing[1], int(thing[2])
    p = scale_at(w, y)
    i, j = int(thing[3]), int(thing[4])
    if kind == PERSON:
        draw_person(w, c, oy, ox, s, y, x, mix(w.seed, i, j, 40), thing[5])
    elif kind == HOUSE:
        draw_house(w, c, oy, ox, s, j, i, int(thing[5]), int(thing[6]))
    elif kind == FOUNTAIN:
        draw_fountain(c, oy, ox, s, y, x, p)
    else:
        h = mix(w.seed, i, j, 41)
        if kind == TREE:
            draw_tree(w, c, oy, ox, s, y, x, p, h)
        elif kind == CAR:
            fx = ((x - 0.5 * w.size) / p + PITCH_X + 0.5 * STREET) % PITCH_X
            draw_car(w, c, oy, ox, s, y, x, p, h, fx < STREET)
        else:
            draw_small(w, c, oy, ox, s, y, x, p, h, kind)


@compiled
def _is_visible(w: Any, thing: Any, y0: Any, x0: Any, y1: Any, x1: Any, s: Any) -> Any:
    """Whether a thing, with its shadow, may reach into a rectangle."""
    kind = int(thing[2])
    if kind == HOUSE:
        left, right, near, far = lot(w, int(thing[4]), int(thing[3]), int(thing[5]), int(thing[6]))
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
def render(w: Any, y0: Any, x0: Any, height: Any, width: Any, s: Any, people: Any) -> Any:
    """Return the pixels of a rectangle at a scale, ``(height, width, 3)`` of uint8."""
    canvas = np.empty((height, width, 3), np.float32)
    oy, ox = y0 // s, x0 // s
    y1, x1 = y0 + height * s, x0 + width * s
    paint_ground(w, canvas, oy, ox, s)
    things = _collect_objects(w, y0, x0, y1, x1, s, people)
    for k in range(len(things)):
        if int(things[k, 2]) == HOUSE or _is_visible(w, things[k], y0, x0, y1, x1, s):
            _draw_shadow(w, canvas, oy, ox, s, things[k])
    for k in range(len(things)):
        if _is_visible(w, things[k], y0, x0, y1, x1, s):
            _draw_object(w, canvas, oy, ox, s, things[k])
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
def instances(w: Any, y0: Any, x0: Any, height: Any, width: Any) -> Any:
    """Return an instance map: 0, or 1 + the number of a person in the list also returned."""
    out = np.zeros((height, width), np.int32)
    y1, x1 = y0 + height, x0 + width
    # Typed as the arguments of `render`: what both call is compiled once.
    s, people = np.int64(1), np.bool_(True)
    things = _collect_objects(w, y0, x0, y1, x1, s, people)
    who = np.empty((len(things), FIELDS))
    n = 0
    canvas = np.empty(height * width * 3, np.float32)
    for k in range(len(things)):
        if not _is_visible(w, things[k], y0, x0, y1, x1, s):
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
        high, wide = b - a, right - left
        window = canvas[: high * wide * 3].reshape(high, wide, 3)
        window[:] = BLANK
        _draw_object(w, window, y0 + a, x0 + left, s, things[k])
        for i in range(high):
            for j in range(wide):
                if window[i, j, 0] > 0.5 * BLANK:
                    out[a + i, left + j] = label
    return out, who[:n]
