"""City plan of the crowd image: its camera, its blocks and its street furniture.

The ground is measured in metres: ``X`` to the right of the middle, ``Z`` away from the image's
lower edge. A person is 1.7 m tall and appears ``tall(y)`` pixels tall, which grows linearly with
the row. Depth is foreshortened by the same factor everywhere, so ``Z`` goes with the logarithm of
the scale; lines along ``Z`` converge, lines along ``X`` stay horizontal.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from hrviewer_samples.noise import compiled, mix, uniform

__all__ = [
    "BENCH",
    "BIN",
    "BOLLARD",
    "BUILDING",
    "CAR",
    "CROSSING",
    "FURNITURE",
    "GRASS",
    "LAMP",
    "LINE",
    "NOTHING",
    "PARASOL",
    "PATH",
    "PITCH_X",
    "PITCH_Z",
    "PLAZA",
    "ROAD",
    "STALL",
    "STATUE",
    "STREET",
    "TREE",
    "WALK",
    "World",
    "covered",
    "fountain",
    "furniture",
    "height_of",
    "in_fountain",
    "is_plaza",
    "kind_at",
    "lot_height",
    "make_world",
    "person_pixels",
    "row_of",
    "scale_at",
    "z_of",
]  # fmt: skip

FLAT = 0.6
"""How much depth is foreshortened."""

PERSON_HEIGHT = 1.7
FAR, NEAR = 6.0, 60.0
"""Height of a person in pixels, at the image's upper and lower edge."""

PITCH_X, PITCH_Z, STREET = 96.0, 76.0, 16.0
"""Metres from one street to the next, and its width."""

LOTS_X, LOTS_Z = 4, 2
HIGHEST = 19.0

ROAD, WALK, PLAZA, GRASS, PATH, BUILDING, CROSSING, LINE = range(8)
NOTHING, TREE, LAMP, BOLLARD, BIN, STATUE, BENCH, STALL, PARASOL, CAR = range(10)

FURNITURE = 6.0
"""Metres; a cell of this side holds at most one piece."""


class World(NamedTuple):
    """Everything that follows from an image's size and seed."""

    size: float
    seed: int
    slope: float  # pixels per metre, gained per row
    far: float  # pixels per metre at the upper edge
    sun_x: float  # a shadow's length on the ground, per metre of height
    sun_z: float
    shade: float  # how dark shadows are
    weather: int  # 0 sun, 1 overcast, 2 rain, 3 evening, 4 snow
    paving: int
    busy: float  # groups per cell
    crowd: float  # how large groups are
    red: float
    green: float
    blue: float


def make_world(size: int, seed: int) -> World:
    """Draw an image's light, weather, ground and density."""
    draw = np.random.default_rng([seed, 20])
    weather = int(draw.choice(5, p=[0.42, 0.2, 0.16, 0.12, 0.1]))
    angle = draw.uniform(-0.9, 0.9) + (math.pi if draw.random() < 0.5 else 0.0)
    length = (0.8, 0.0, 0.0, 1.7, 0.3)[weather] * draw.uniform(0.7, 1.2)
    tint = (
        (1.06, 1.03, 0.97), (0.96, 0.98, 1.02), (0.78, 0.83, 0.90), (1.02, 0.82, 0.68),
        (1.0, 1.02, 1.06),
    )[weather]  # fmt: skip
    gain = draw.uniform(0.9, 1.06)
    busy = float(np.exp(draw.uniform(np.log(0.18), np.log(0.28))))
    crowd = float(np.exp(draw.uniform(np.log(0.3), np.log(2.7))))
    return World(
        float(size), seed, (NEAR - FAR) / PERSON_HEIGHT / size, FAR / PERSON_HEIGHT,
        length * math.cos(angle), 0.55 * length * math.sin(angle),
        (0.42, 0.16, 0.18, 0.45, 0.2)[weather], weather, int(draw.integers(4)), busy, crowd,
        tint[0] * gain, tint[1] * gain, tint[2] * gain,
    )  # fmt: skip


@compiled
def scale_at(w: Any, y: Any) -> Any:
    """Return pixels per metre at a row; it stays positive above the image."""
    return max(0.2, w.far + w.slope * y)


@compiled
def person_pixels(w: Any, y: Any) -> Any:
    """Return the height in pixels of a person whose feet are at a row."""
    return PERSON_HEIGHT * scale_at(w, y)


@compiled
def z_of(w: Any, y: Any) -> Any:
    """Return the depth of the ground at a row."""
    return -math.log(scale_at(w, y) * PERSON_HEIGHT / NEAR) / (FLAT * w.slope)


@compiled
def row_of(w: Any, z: Any) -> Any:
    """Return the row of the ground at a depth."""
    return (NEAR / PERSON_HEIGHT * math.exp(-FLAT * w.slope * z) - w.far) / w.slope


@compiled
def is_plaza(w: Any, mx: Any, mz: Any) -> Any:
    """Whether two by two blocks are one square: always at the middle of the lower edge."""
    return (mx == 0 and mz == 0) or uniform(w.seed, mx, mz, 1) < 0.3


@compiled
def _cell(v: Any, pitch: Any) -> Any:
    n = math.floor(v / pitch)
    return n, v - n * pitch


@compiled
def kind_at(w: Any, x: Any, z: Any) -> Any:
    """Return the kind of ground at a place."""
    # The middle of the lower edge is the middle of a square.
    x, z = x + PITCH_X + 0.5 * STREET, z + 0.3 * PITCH_Z
    bx, fx = _cell(x, PITCH_X)
    bz, fz = _cell(z, PITCH_Z)
    if is_plaza(w, bx // 2, bz // 2) and (fx >= STREET or bx % 2) and (fz >= STREET or bz % 2):
        return PLAZA
    if fx < STREET and fz < STREET:
        return ROAD if (4 < fx < 12 or 4 < fz < 12) else WALK
    if fx < STREET:
        if not 4 < fx < 12:
            return WALK
        if fz < 20 or fz > PITCH_Z - 4:
            return CROSSING
        return LINE if 7.9 < fx < 8.1 and z % 6 < 3 else ROAD
    if fz < STREET:
        if not 4 < fz < 12:
            return WALK
        return LINE if 7.9 < fz < 8.1 else ROAD
    if uniform(w.seed, bx, bz, 2) < 0.3:
        if abs(fx - 56) < 2.5 or abs(fz - 46) < 2.5:
            return PATH
        return GRASS
    return BUILDING


@compiled
def fountain(w: Any, mx: Any, mz: Any) -> Any:
    """Return where the fountain of a square is, its ``X`` and ``Z``."""
    x = (2 * mx + 1) * PITCH_X - PITCH_X
    return x, (2 * mz + 1) * PITCH_Z - 0.3 * PITCH_Z + 0.5 * STREET + 6.0


@compiled
def in_fountain(w: Any, x: Any, z: Any, margin: Any) -> Any:
    """Whether a place is in a fountain, or nearer to it than a margin."""
    mx = math.floor((x + PITCH_X + 0.5 * STREET) / PITCH_X / 2)
    mz = math.floor((z + 0.3 * PITCH_Z) / PITCH_Z / 2)
    if not is_plaza(w, mx, mz):
        return False
    cx, cz = fountain(w, mx, mz)
    return (x - cx) ** 2 + (z - cz) ** 2 < (6.6 + margin) ** 2


@compiled
def lot_height(w: Any, bx: Any, bz: Any, lx: Any, lz: Any) -> Any:
    """Return how high the house on a lot is, in metres."""
    base = 8.0 + 5.0 * uniform(w.seed, bx, bz, 3)
    return base + 6.0 * uniform(w.seed, bx * LOTS_X + lx, bz * LOTS_Z + lz, 4)


@compiled
def height_of(w: Any, x: Any, z: Any) -> Any:
    """Return the height of the house that stands at a place, 0 where none does."""
    if kind_at(w, x, z) != BUILDING:
        return 0.0
    bx, fx = _cell(x + PITCH_X + 0.5 * STREET, PITCH_X)
    bz, fz = _cell(z + 0.3 * PITCH_Z, PITCH_Z)
    lx = int((fx - STREET) * LOTS_X / (PITCH_X - STREET))
    lz = int((fz - STREET) * LOTS_Z / (PITCH_Z - STREET))
    return lot_height(w, bx, bz, lx, lz)


@compiled
def furniture(w: Any, i: Any, j: Any) -> Any:
    """Return the object in a cell of the furniture lattice: its kind, ``Z`` and ``X``."""
    h = mix(w.seed, i, j, 5)
    u = uniform(h, 0, 0, 0)
    if u > 0.62:
        return NOTHING, 0.0, 0.0
    z = (i + 0.25 + 0.5 * uniform(h, 1, 0, 0)) * FURNITURE
    x = (j + 0.25 + 0.5 * uniform(h, 2, 0, 0)) * FURNITURE
    at = kind_at(w, x, z)
    if in_fountain(w, x, z, 3.0):
        at = BUILDING
    u /= 0.62
    if at == PLAZA:
        market = uniform(w.seed, i // 6, j // 6, 6) < 0.13
        if market:
            kind = STALL if u < 0.75 else NOTHING
        elif uniform(w.seed, i // 5, j // 5, 7) < 0.12:
            kind = PARASOL if u < 0.7 else NOTHING
        elif uniform(w.seed, i // 4, j // 4, 8) < 0.18:
            kind = TREE if u < 0.6 else (BENCH if u < 0.8 else NOTHING)
        elif u < 0.05:
            kind = LAMP
        elif u < 0.16:
            kind = BOLLARD
        elif u < 0.2:
            kind = BIN
        elif u < 0.235:
            kind = STATUE
        elif u < 0.275:
            kind = BENCH
        else:
            kind = NOTHING
    elif at == WALK:
        kind = NOTHING
        if u < 0.16:
            kind = TREE
        elif u < 0.26:
            kind = LAMP
        elif u < 0.5:
            kind = BOLLARD
        elif u < 0.6:
            kind = BIN
    elif at == GRASS:
        kind = TREE if u < 0.72 else (BENCH if u < 0.78 else NOTHING)
    elif at == PATH:
        kind = BENCH if u < 0.1 else (LAMP if u < 0.2 else (BIN if u < 0.24 else NOTHING))
    elif at == ROAD and u < 0.4:
        kind = CAR
    else:
        kind = NOTHING
    return kind, z, x


@compiled
def _silhouette(kind: Any) -> Any:
    """Return how high a piece reaches and half its width, in metres; 0 if it hides no one."""
    if kind == TREE:
        return 7.4, 2.6
    if kind == STALL:
        return 3.2, 2.3
    if kind == PARASOL:
        return 2.9, 1.8
    if kind == CAR:
        return 2.0, 2.6
    if kind == STATUE:
        return 3.6, 0.9
    if kind == LAMP:
        return 5.2, 0.3
    if kind in (BIN, BENCH):
        return 0.9, 1.1
    return 0.0, 0.0


@compiled
def covered(w: Any, y: Any, x: Any) -> Any:
    """Whether a house or a piece of furniture hides a person whose feet are at a pixel."""
    p = scale_at(w, y)
    mid = 0.5 * w.size
    for t in range(1, 20):  # a house of t metres whose wall rises to this pixel
        below = (y + w.far / w.slope) / (1 - min(0.9, t * w.slope)) - w.far / w.slope
        q = scale_at(w, below)
        place = z_of(w, below)
        for side in (-0.5, 0.5):
            if height_of(w, (x + side * p - mid) / q, place) > t - 0.9:
                return True
    z = z_of(w, y)
    ground = (x - mid) / p
    deep = 8.5 / FLAT
    for i in range(math.floor((z - deep) / FURNITURE), math.floor((z + 2.0) / FURNITURE) + 1):
        q = scale_at(w, row_of(w, (i + 0.5) * FURNITURE))
        j = math.floor((x - mid) / q / FURNITURE)
        for c in range(j - 1, j + 2):
            kind, fz, fx = furniture(w, i, c)
            high, half = _silhouette(kind)
            if high == 0.0:
                continue
            if abs(fz - z) < 1.2 and abs(fx - ground) < half:
                return True
            foot = row_of(w, fz)
            r = scale_at(w, foot)
            if foot > y and foot - high * r < y and abs(mid + fx * r - x) < (half + 0.35) * r:
                return True
    return False
