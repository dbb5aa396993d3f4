"""Tissue map of the slide, as smooth fields on a grid.

Fields are distances in level-0 pixels, positive inside, so that everything else (edges, nuclei
along a membrane, textures that follow a surface) can be read off them. A node's values depend on
its place alone.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from hrviewer_samples.noise import compiled_as, uniform, value_noise

__all__ = [
    "BASE",
    "BLUR",
    "CELLS",
    "EPI",
    "FAT",
    "FIELDS",
    "GRADE",
    "IMMUNE",
    "INK",
    "INSIDE",
    "KERATIN",
    "LOOSE",
    "LUMEN",
    "PEN",
    "THICK",
    "VESSEL",
    "Slide",
    "U",
    "V",
    "make_slide",
    "sample_fields",
]  # fmt: skip

FIELDS = 16
(
    INSIDE,  # the tissue's edge
    EPI,  # epithelium
    BASE,  # depth above the membrane that epithelium stands on
    LUMEN,  # a gland's lumen
    KERATIN,  # the layer of keratin
    FAT,
    VESSEL,  # a vessel's lumen
    IMMUNE,  # share of places that a lymphocyte takes
    LOOSE,  # 0 dense collagen, 1 loose stroma
    U,  # texture coordinates: along the fibres
    V,  # and across
    THICK,  # how much stain the section holds: its thickness, folds
    INK,  # strength of the margin's ink
    PEN,  # marker on the glass
    GRADE,  # 0 benign, 1 high grade; below 0 it is epidermis
    CELLS,  # cellularity
) = range(FIELDS)
BLUR = FIELDS  # one more plane: 0 in focus, 1 not

SKIN, GLANDS, TUMOUR, NODE = range(4)


class Slide(NamedTuple):
    """Everything that follows from an image's size and seed."""

    size: int
    seed: int
    islands: NDArray[np.float64]  # y, x, a, b, cos, sin, kind, number, angle of the surface
    strokes: NDArray[np.float64]  # y, x, radius, from, extent, half-width
    cells: float
    immune: float
    fat: float
    loose: float
    grade: float
    ink: float
    blur: float
    folds: float


def make_slide(size: int, seed: int) -> Slide:
    """Draw the positions and kinds of a slide's pieces of tissue."""
    draw = np.random.default_rng([seed, 31])
    organ = int(draw.choice(4, p=[0.4, 0.26, 0.26, 0.08]))
    area = float(np.clip(draw.lognormal(-2.75, 0.55), 0.022, 0.145)) * size**2
    n = 1 + int(draw.integers(0, 5))
    share = draw.dirichlet([3.0] * n) * area
    rows: list[list[float]] = []
    for i, part in enumerate(np.sort(share)[::-1]):
        ratio = draw.uniform(1.2, 3.0)
        b = math.sqrt(part / math.pi / ratio)
        a = b * ratio
        angle = draw.uniform(0, math.pi)
        reach_y = math.hypot(a * math.sin(angle), b * math.cos(angle)) * 1.15
        reach_x = math.hypot(a * math.cos(angle), b * math.sin(angle)) * 1.15
        best, place = -math.inf, (0.5 * size, 0.5 * size)
        for _ in range(40):
            y = draw.uniform(min(reach_y, 0.5 * size), max(size - reach_y, 0.5 * size))
            x = draw.uniform(min(reach_x, 0.5 * size), max(size - reach_x, 0.5 * size))
            room = min(
                (math.hypot(y - r[0], x - r[1]) - 0.8 * (a + r[2]) for r in rows), default=math.inf
            )
            if room > best:
                best, place = room, (y, x)
            if best > 0:
                break
        kind = organ if draw.random() < 0.75 else int(draw.choice(4, p=[0.35, 0.3, 0.3, 0.05]))
        rows.append(
            [
                *place,
                a,
                b,
                math.cos(angle),
                math.sin(angle),
                kind,
                i,
                draw.uniform(-math.pi, math.pi),
            ]
        )
    strokes = []
    for _ in range(int(draw.choice(4, p=[0.5, 0.28, 0.15, 0.07]))):
        y, x, a = rows[int(draw.integers(n))][:3]
        ring = draw.random() < 0.5
        radius = a * draw.uniform(1.15, 1.4) if ring else size * draw.uniform(0.3, 2.0)
        toward = draw.uniform(-math.pi, math.pi)
        off = 0.0 if ring else radius + a * draw.uniform(0.9, 1.8)
        extent = draw.uniform(0.5, 2.4) if ring else size * draw.uniform(0.06, 0.22) / radius
        strokes.append(
            [
                y + off * math.sin(toward), x + off * math.cos(toward), radius,
                toward + math.pi - 0.5 * extent, extent, size * draw.uniform(0.004, 0.010),
            ]
        )  # fmt: skip
    return Slide(
        size, seed, np.array(rows), np.array(strokes).reshape(-1, 6),
        float(np.clip(draw.lognormal(0.0, 0.4), 0.45, 1.9)),
        float(draw.uniform(0, 1) ** 2), float(draw.uniform(0, 1)), float(draw.uniform(0.1, 0.9)),
        float(draw.uniform(0, 1)), float(draw.random() < 0.5) * float(draw.uniform(0.4, 1)),
        float(draw.random() < 0.35), float(draw.random() < 0.5),
    )  # fmt: skip


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _smoothstep(low: Any, high: Any, v: Any) -> Any:
    t = min(1.0, max(0.0, (v - low) / (high - low)))
    return t * t * (3.0 - 2.0 * t)


@compiled_as("float64(uint64, float64, float64, int64)")
def _two_octaves(seed: Any, y: Any, x: Any, k: Any) -> Any:
    """Noise in two octaves."""
    return (value_noise(seed, y, x, k) + 0.5 * value_noise(seed, 2.1 * y, 2.1 * x, k + 1)) / 1.2


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _rings(seed: Any, y: Any, x: Any, pitch: Any, low: Any, high: Any, wild: Any, gap: Any) -> Any:
    """Return the depth inside the nearest of round structures that stand on a lattice.

    Where two come close, a gap runs between them.
    """
    i0, j0 = math.floor(y / pitch), math.floor(x / pitch)
    first, second = 1e9, 1e9
    radius = 0.0
    for i in range(i0 - 1, i0 + 2):
        for j in range(j0 - 1, j0 + 2):
            cy = (i + 0.2 + 0.6 * uniform(seed, i, j, 50)) * pitch
            cx = (j + 0.2 + 0.6 * uniform(seed, i, j, 51)) * pitch
            r = pitch * (low + (high - low) * uniform(seed, i, j, 52))
            turn = 3.1416 * uniform(seed, i, j, 53)
            c, s = math.cos(turn), math.sin(turn)
            long = 1.0 + 0.5 * uniform(seed, i, j, 54)
            p, q = (c * (x - cx) + s * (y - cy)) / long, (c * (y - cy) - s * (x - cx)) * long**0.5
            d = math.sqrt(p * p + q * q) - r
            if d < first:
                first, second, radius = d, first, r
            elif d < second:
                second = d
    bumpy = wild * (
        value_noise(seed, y / (0.32 * pitch), x / (0.32 * pitch), 55)
        + 0.5 * value_noise(seed, y / (0.12 * pitch), x / (0.12 * pitch), 56)
    )
    return min(-first + bumpy, 0.5 * (second - first) - gap + 0.3 * bumpy), radius


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _sample_node(w: Any, y: Any, x: Any, out: Any) -> Any:
    """Fill a node's fields; return whether it may lie near anything but glass."""
    seed = w.seed
    pen = -1e3
    for i in range(len(w.strokes)):
        s = w.strokes[i]
        half = s[5] * (1.0 + 0.25 * value_noise(seed, y / (3 * s[5]), x / (3 * s[5]), 40))
        dy, dx = y - s[0], x - s[1]
        r = math.sqrt(dy * dy + dx * dx)
        if abs(r - s[2]) < 3 * half:
            turn = (math.atan2(dy, dx) - s[3]) % (2 * math.pi)
            beyond = max(0.0, turn - s[4]) * r
            if turn > s[4]:
                beyond = min(beyond, (2 * math.pi - turn) * r)
            pen = max(pen, half - math.sqrt((r - s[2]) ** 2 + beyond * beyond))
    out[PEN] = max(pen, -100.0)

    inside, at = -1e3, -1
    sector = 0.0
    for i in range(len(w.islands)):
        s = w.islands[i]
        dy, dx = y - s[0], x - s[1]
        a, b = s[2], s[3]
        if dy * dy + dx * dx > (1.45 * a) ** 2:
            continue
        f = 2.2 / (a + b)
        k = 60 + 10 * i
        dy += b * (
            0.62 * value_noise(seed, y * f, x * f, k)
            + 0.2 * value_noise(seed, y * f * 3, x * f * 3, k + 1)
        )
        dx += b * (
            0.62 * value_noise(seed, y * f, x * f, k + 2)
            + 0.2 * value_noise(seed, y * f * 3, x * f * 3, k + 3)
        )
        p, q = (s[4] * dx + s[5] * dy) / a, (s[4] * dy - s[5] * dx) / b
        rho = math.sqrt(p * p + q * q) + 1e-6
        slope = max(math.sqrt((p / a) ** 2 + (q / b) ** 2) / rho, 0.5 / b)
        d = (1.0 - rho) / slope
        if d > inside:
            inside, at = d, i
            turn = math.atan2(q, p)
            sector = math.cos(turn - s[8])
    if at < 0 or inside < -90.0:
        out[:BLUR] = 0.0
        out[INSIDE] = -100.0
        out[EPI] = out[BASE] = out[LUMEN] = out[KERATIN] = out[FAT] = out[VESSEL] = -100.0
        out[PEN] = max(pen, -100.0)
        return pen > -60.0

    kind = int(w.islands[at, 6])
    inside += 26.0 * _two_octaves(seed, y / 150, x / 150, 200) + 7.0 * value_noise(
        seed, y / 28, x / 28, 203
    )
    border = inside
    # Tears: thin gaps where slow noise passes zero, in some places.
    tear = abs(_two_octaves(seed, y / 900, x / 900, 205)) * 900
    open_ = 26.0 * _smoothstep(0.25, 0.8, value_noise(seed, y / 1100, x / 1100, 208))
    inside = min(inside, tear - open_ + 12.0 if open_ > 0 else inside)

    # Textures: coordinates that a slow flow has bent.
    s = w.islands[at]
    wy = 190 * value_noise(seed, y / 900, x / 900, 210) + 26 * value_noise(
        seed, y / 170, x / 170, 211
    )
    wx = 190 * value_noise(seed, y / 900, x / 900, 212) + 26 * value_noise(
        seed, y / 170, x / 170, 213
    )
    out[U] = s[4] * x + s[5] * y + wx
    out[V] = s[4] * y - s[5] * x + wy
    grade = w.grade + 0.35 * _two_octaves(seed, y / 2500, x / 2500, 216)

    base, epi, lumen, keratin = -100.0, -100.0, -100.0, -100.0
    deep = inside
    if kind == SKIN:
        cover = _smoothstep(-0.25, 0.1, sector)
        horn = cover * (
            16.0 + 46.0 * _smoothstep(-0.5, 0.8, _two_octaves(seed, y / 420, x / 420, 220))
        )
        slow = value_noise(seed, y / 620, x / 620, 222)
        ridge = value_noise(seed, y / 105, x / 105, 223)
        thick = cover * (
            95.0
            + 75.0 * slow
            + 70.0 * max(-0.6, ridge)
            + 22 * value_noise(seed, y / 46, x / 46, 224)
        )
        thick += cover * 260.0 * _smoothstep(0.55, 0.95, _two_octaves(seed, y / 260, x / 260, 225))
        if cover > 0.02:
            depth = inside - horn
            base = min(thick - depth, 0.5 * thick + 60.0)
            epi = min(depth, thick - depth)
            keratin = min(horn - inside + 4.0, inside + 30.0)
        deep = inside - horn - thick
        grade = -1.0
    if kind != SKIN or deep > 150.0:
        if kind == TUMOUR:
            pitch, low, high, wild, gap, cut = 330.0, 0.22, 0.62, 46.0, 9.0, 0.45
        elif kind == GLANDS:
            pitch, low, high, wild, gap, cut = (
                172.0,
                0.27,
                0.47,
                9.0 + 16.0 * max(0.0, w.grade),
                7.0,
                0.6,
            )
        else:  # sweat glands of skin; a few vessels' like ducts of a node
            pitch, low, high, wild, gap, cut = 92.0, 0.30, 0.44, 3.0, 5.0, -0.45
        zone = _two_octaves(seed, y / (5.2 * pitch), x / (5.2 * pitch), 230) * (
            0.9 if kind != SKIN else 1.0
        )
        room = (cut - zone) * 3.0 * pitch
        if room > -60.0:
            g, radius = _rings(seed, y, x, pitch, low, high, wild, gap)
            g = min(g, room, inside - 14.0)
            if kind == SKIN:
                g = min(g, deep - 160.0)
            if g > base:
                base = g
                epi = g
                keratin = -100.0
                wall = 25.0 + 6.0 * value_noise(seed, y / 60, x / 60, 234) if pitch < 300 else 95.0
                if kind in (SKIN, NODE):
                    wall = 16.0
                if kind == TUMOUR and w.grade > 0.45:
                    wall = 300.0
                lumen = g - wall
                if kind in (SKIN, NODE):
                    grade = 0.0
                elif kind == GLANDS:
                    grade = 0.8 * grade
                else:
                    grade = max(0.15, grade)

    fat = -100.0
    if w.fat > 0.35:
        fat = (_two_octaves(seed, y / 1300, x / 1300, 240) - 0.75 + 0.6 * w.fat) * 900.0
        fat = min(fat, deep - 200.0, -base - 40.0)
    v, radius = _rings(seed, y, x, 390.0, -0.12, 0.10, 3.0, 10.0)
    vessel = min(v, -base - 14.0, -fat - 10.0, inside - 30.0, radius * 1.2)
    out[INSIDE] = max(inside, -100.0)
    out[EPI], out[BASE] = max(epi, -100.0), max(base, -100.0)
    out[LUMEN], out[KERATIN], out[FAT] = lumen, keratin, max(fat, -100.0)
    out[VESSEL] = max(vessel, -100.0)
    around = value_noise(seed, y / 480, x / 480, 250) + 0.5 * value_noise(
        seed, y / 160, x / 160, 251
    )
    immune = w.immune * _smoothstep(0.15, 1.1, around) + 0.10 * _smoothstep(
        40.0, 0.0, abs(vessel + 18.0)
    )
    if kind == NODE:
        immune = 0.35 + 0.6 * _smoothstep(-0.6, 0.6, around)
    out[IMMUNE] = min(0.97, immune) * _smoothstep(-14.0, -30.0, fat)
    out[LOOSE] = _smoothstep(-0.7, 0.7, _two_octaves(seed, y / 700, x / 700, 254) + w.loose - 0.5)
    if kind == SKIN:  # the papillary dermis is loose
        out[LOOSE] = max(out[LOOSE], 0.8 * _smoothstep(90.0, 10.0, abs(deep)))
    fold = 0.0
    if w.folds > 0.0:
        fold = _smoothstep(20.0, 7.0, abs(_two_octaves(seed, y / 1500, x / 2300, 258)) * 1500.0)
        fold *= _smoothstep(0.35, 0.6, value_noise(seed, y / 1900, x / 1900, 260))
    out[THICK] = (1.0 + 0.16 * _two_octaves(seed, y / 500, x / 500, 262)) * (1.0 + 0.75 * fold)
    out[INK] = (
        w.ink
        * _smoothstep(-0.1, 0.5, value_noise(seed, y / 700, x / 700, 266))
        * _smoothstep(60.0, 12.0, abs(border))
    )
    out[GRADE] = min(1.0, grade)
    out[CELLS] = w.cells * (1.0 + 0.35 * _two_octaves(seed, y / 400, x / 400, 268))
    return True


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def sample_fields(w: Any, y: Any, x: Any, h: Any, n: Any, step: Any) -> Any:
    """Return the fields ``(h, n, 17)`` of nodes `step` apart from ``(y, x)`` on, and the cells.

    Cells ``(h - 1, n - 1)`` lie between nodes; one is true where there is more than clear glass.
    """
    out = np.empty((h, n, FIELDS + 1), np.float32)
    near = np.zeros((h, n), np.bool_)
    row = np.empty(FIELDS + 1, np.float64)
    for i in range(h):
        for j in range(n):
            yy, xx = y + i * step, x + j * step
            near[i, j] = _sample_node(w, yy, xx, row)
            row[BLUR] = 0.0
            if near[i, j] and w.blur > 0.0:
                far = max(2500.0, 0.2 * w.size)
                row[BLUR] = _smoothstep(0.3, 0.6, value_noise(w.seed, yy / far, xx / far, 270))
            for k in range(FIELDS + 1):
                out[i, j, k] = row[k]
    cells = near[1:, 1:] | near[:-1, 1:] | near[1:, :-1] | near[:-1, :-1]
    return out, cells
