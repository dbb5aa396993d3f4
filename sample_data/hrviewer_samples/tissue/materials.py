"""Materials of tissue under the microscope: tiles of texture that repeat, and stains.

A tile's texture is the same in every image; its colours are the image's stains. Each tile is
box-filtered to every scale that is rendered.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft, spatial

__all__ = [
    "BLOOD", "DENSE", "EPIDERMIS", "FATTY", "GLAND", "HORN", "LOOSE_STROMA",
    "SECRETION", "SIDE", "Palette", "grain", "make_palette",
]  # fmt: skip

SIDE = 512
DENSE, LOOSE_STROMA, EPIDERMIS, GLAND, HORN, FATTY, BLOOD, SECRETION = range(8)

Floats = NDArray[np.float32]


class Palette(NamedTuple):
    """An image's colours."""

    tiles: Floats
    """``(8, side, side, 3)``, from 0 to 255, at one scale."""
    grain: Floats
    """``(side, side)`` from 0 to 1 at full resolution: chromatin, torn edges."""
    nuclear: Floats
    """``(256, 3)``: light that passes nuclear stain, by its amount in 1/64."""
    glass: Floats
    ink: Floats
    pen: Floats
    cytoplasm: Floats


def _noise(key: int, length: float, width: float, wavy: float = 0.0) -> NDArray[np.float64]:
    """Return repeating noise, evenly spread from 0 to 1, of streaks ``length × width`` along x."""
    rng = np.random.default_rng([9, key])
    v, u = np.meshgrid(fft.fftfreq(SIDE), fft.fftfreq(SIDE), indexing="ij")
    radius = np.hypot(u * length, v * width)
    band = np.exp(-((radius * 2.2) ** 2)) - 0.8 * np.exp(-((radius * 5.0) ** 2))
    noise = fft.ifft2(fft.fft2(rng.normal(size=(SIDE, SIDE))) * band).real
    if wavy:
        slow = np.exp(-((np.hypot(u, v) * 55) ** 2))
        flow = fft.ifft2(fft.fft2(rng.normal(size=(2, SIDE, SIDE))) * slow).real
        ys, xs = np.indices((SIDE, SIDE)) + wavy * flow / flow.std()
        noise = noise[ys.round().astype(int) % SIDE, xs.round().astype(int) % SIDE]
    order = np.empty(SIDE * SIDE)
    order[np.argsort(noise.ravel())] = np.linspace(0, 1, SIDE * SIDE)
    return order.reshape(SIDE, SIDE)


def _cells(key: int, count: int, relax: int = 2) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return the distance to the nearest and next of points on a torus, and which is nearest."""
    rng = np.random.default_rng([10, key])
    points = rng.uniform(0, SIDE, (count, 2))
    pixels = np.indices((SIDE, SIDE)).reshape(2, -1).T + 0.5
    for turn in range(relax + 1):
        tree = spatial.cKDTree(points % SIDE % SIDE, boxsize=SIDE)
        step = 1 if turn == relax else 7
        distance, nearest = tree.query(pixels[::step], k=2)
        if turn < relax:
            own = nearest[:, 0]
            off = (pixels[::step] - points[own] + SIDE / 2) % SIDE - SIDE / 2
            n = np.maximum(1, np.bincount(own, minlength=count))
            points = points + np.stack([np.bincount(own, o, count) / n for o in off.T], 1)
    shape = (SIDE, SIDE)
    return (
        distance[:, 0].reshape(shape),
        distance[:, 1].reshape(shape),
        nearest[:, 0].reshape(shape),
    )


def _ramp(low: float, high: float, v: NDArray[Any]) -> NDArray[Any]:
    t = np.clip((v - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


@lru_cache(1)
def _stained() -> NDArray[np.float32]:
    """Return how much haematoxylin, eosin and orange each tile takes up, ``(8, side, side, 3)``."""
    out = np.zeros((8, SIDE, SIDE, 3), np.float32)
    # Collagen in bundles, with thin clefts between them.
    bundle, fine, cleft = _noise(1, 70, 14, 7), _noise(2, 40, 3.2, 5), _noise(3, 52, 8, 9)
    solid = _ramp(0.13, 0.27, cleft)
    out[DENSE, ..., 1] = solid * (0.36 + 0.48 * bundle + 0.42 * fine) + 0.04
    out[DENSE, ..., 0] = solid * (0.02 + 0.12 * (1 - bundle) + 0.06 * (1 - fine))
    thin, gap, haze = _noise(4, 30, 2.8, 7), _noise(5, 26, 8, 9), _noise(6, 40, 30, 0)
    solid = _ramp(0.22, 0.55, gap) * (0.30 + 0.70 * _ramp(0.10, 0.7, thin))
    out[LOOSE_STROMA, ..., 1] = solid * (0.34 + 0.50 * thin) + 0.12 * haze
    out[LOOSE_STROMA, ..., 0] = solid * (0.06 + 0.12 * haze) + 0.06 * haze
    # Sheets of cells with pale seams.
    f1, f2, which = _cells(1, 620)
    seam = np.exp(-(((f2 - f1) / 2.2) ** 2))
    own = np.random.default_rng(11).uniform(size=620)[which]
    grit, cloud = 0.5 * _noise(7, 2.6, 2.2) + 0.5 * _noise(15, 7, 5), _noise(8, 40, 26, 5)
    body = 0.70 + 0.14 * own + 0.40 * grit + 0.22 * cloud
    out[EPIDERMIS, ..., 0] = body * 0.45 - 0.07 * seam
    out[EPIDERMIS, ..., 1] = body * 0.52 - 0.06 * seam
    vacuole = _ramp(0.66, 0.9, _noise(9, 15, 13))
    out[GLAND, ..., 0] = (0.20 + 0.14 * own + 0.10 * grit) * (1 - 0.8 * vacuole)
    out[GLAND, ..., 1] = (0.46 + 0.20 * cloud + 0.10 * grit) * (1 - 0.75 * vacuole) + 0.05
    # Keratin: lamellae with dark rims and air between; streaks along x.
    lamella, thinner, air = _noise(10, 260, 8, 5), _noise(12, 160, 3, 4), _noise(13, 150, 12, 7)
    there = _ramp(0.34, 0.42, air)
    rim = np.exp(-(((air - 0.40) / 0.035) ** 2)) + 0.7 * np.exp(-(((lamella - 0.5) / 0.05) ** 2))
    out[HORN, ..., 0] = there * (0.16 + 0.22 * lamella) + rim * 0.85
    out[HORN, ..., 1] = there * (0.55 + 0.45 * thinner) + rim * 0.65
    # Fat: cells emptied of it, their walls left.
    f1, f2, _ = _cells(2, 42, 3)
    wall = np.exp(-(((f2 - f1) / 3.4) ** 2))
    out[FATTY, ..., 1] = wall * (0.35 + 0.3 * fine) + 0.015
    out[FATTY, ..., 0] = wall * 0.10
    # Red cells, side by side, paler in their middle.
    f1, f2, which = _cells(3, 2300, 2)
    disc = _ramp(6.2, 4.8, f1) * (np.random.default_rng(12).uniform(size=2300)[which] < 0.8)
    out[BLOOD, ..., 2] = disc * (0.75 + 0.25 * _ramp(0, 4, f1)) + 0.06
    wisp = _ramp(0.45, 0.95, _noise(14, 70, 45, 8))
    out[SECRETION, ..., 1] = 0.03 + 0.34 * wisp * (0.7 + 0.3 * grit)
    out[SECRETION, ..., 0] = 0.10 * wisp * cloud
    return out


@lru_cache(1)
def grain() -> Floats:
    """Return noise ``(side, side)`` from 0 to 1 with features of some three pixels."""
    return (0.65 * _noise(20, 3.4, 3.4) + 0.35 * _noise(21, 8, 8)).astype(np.float32)


def make_palette(seed: int, scale: int) -> Palette:
    """Stain the tiles for an image and downsample them by `scale`."""
    draw = np.random.default_rng([seed, 32])
    mix = draw.uniform(0, 1)
    blue = (1 - mix) * np.array([0.70, 0.84, 0.46]) + mix * np.array([0.86, 0.80, 0.34])
    pink = (1 - draw.uniform(0, 1)) * np.array([0.02, 0.26, 0.12]) + np.array([0.12, 0.86, 0.52])
    stains = np.stack([blue, pink, (0.10, 0.92, 0.82)]) + draw.normal(0, 0.025, (3, 3))
    stains *= np.array([[draw.uniform(0.8, 1.15)], [draw.uniform(0.72, 1.15)], [1.0]])
    stains = np.clip(stains, 0.02, None)
    glass = np.array([244.0, 243.0, 244.0]) + draw.uniform(-4, 3) + draw.uniform(-2, 2, 3)
    tiles = glass * np.exp(-(np.clip(_stained(), 0, None) @ stains))
    k = min(scale, SIDE)
    tiles = tiles.reshape(8, SIDE // k, k, SIDE // k, k, 3).mean((2, 4))
    nuclear = blue * np.array([1.0, 1.0, 0.92]) + 0.06 * pink
    amount = np.arange(256) / 64
    ink = np.array([(0, 130, 120), (20, 40, 70), (30, 30, 34), (10, 105, 105)])[draw.integers(4)]
    pen = np.array([(35, 60, 150), (25, 110, 70), (30, 32, 38), (60, 40, 120)])[draw.integers(4)]
    cytoplasm = glass * np.exp(-(0.28 * stains[0] + 0.5 * stains[1]))
    return Palette(
        tiles.astype(np.float32), grain(),
        np.exp(-amount[:, None] * nuclear).astype(np.float32), glass.astype(np.float32),
        (ink / 255).astype(np.float32), (pen / 255).astype(np.float32),
        cytoplasm.astype(np.float32),
    )  # fmt: skip
