"""Hard negatives: what fills slides and holds no nuclei.

Red blood cells, fat, mucus, ink, folds and glass, drawn in optical density from points and
`make_textures`. A field of them stands alone, or covers a soft-edged part of a labelled field.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom
from scipy.spatial import cKDTree
from torch import Tensor

from hrviewer_histology.stains import LONG

__all__ = ["cover", "negative_field"]

ERYTHROCYTE = 14.0
"""Pixels; the diameter of a red blood cell, 7 µm, at 0.5 µm per pixel."""
BLOOD = ((0.03, 0.75, 0.66), (0.12, 0.93, 0.34), (0.20, 0.70, 0.60), (0.10, 0.55, 0.75))
EOSIN = ((0.12, 0.93, 0.34), (0.25, 0.88, 0.40), (0.42, 0.82, 0.38))
MUCUS = ((0.55, 0.62, 0.35), (0.62, 0.50, 0.22), (0.45, 0.70, 0.42))
INK = ((0.60, 0.60, 0.60), (0.90, 0.50, 0.20), (0.88, 0.30, 0.36), (0.25, 0.55, 0.80))
"""Optical density, red, green and blue, of what is drawn."""

Floats = NDArray[np.float64]


def negative_field(
    rng: np.random.Generator, side: int, textures: Tensor, scale: float = 1.0
) -> Tensor:
    """Return a field without nuclei ``(3, side, side)``, from 0 to 1.

    Parameters
    ----------
    rng
        Random generator.
    side
        Its side, in pixels.
    textures
        Of `make_textures`, at least as large.
    scale
        Reduction of what is drawn, as that of the fields beside it.
    """
    kind = rng.choice(5, p=(0.4, 0.1, 0.2, 0.15, 0.15))
    background = rng.uniform(0, 0.25) * _texture(rng, side, textures)[None] * _stain(rng, EOSIN)
    drawn = (_blood, _fat, _mucus, _ink, _glass)[kind](rng, side, textures, scale)
    density = (background if kind != 1 else 0) + drawn
    light = rng.uniform(0.86, 1.0) * rng.normal(1, 0.015, (3, 1, 1))
    return torch.from_numpy(np.clip(light * np.exp(-density), 0, 1)).float()


def cover(
    rng: np.random.Generator, field: Tensor, density: Tensor, negative: Tensor
) -> tuple[Tensor, Tensor]:
    """Return a field, with `negative` over a part of it, and its density there set to unknown.

    The density ``(k, side/4, side/4)`` becomes 0 below the cover and NaN along its edge, where
    nuclei are cut.
    """
    side = field.shape[-1]
    cloud = zoom(rng.normal(size=(4, 4)), side / 4, order=3)[:side, :side]
    edge = np.quantile(cloud, rng.uniform(0.3, 0.8))
    part = torch.from_numpy(1 / (1 + np.exp(-(cloud - edge) * rng.uniform(15, 60)))).float()
    share = torch.nn.functional.avg_pool2d(part[None], 4)
    known = torch.where(share > 0.98, 0.0, torch.where(share < 0.02, density, torch.nan))
    return field * (1 - part) + negative * part, known


def _stain(rng: np.random.Generator, stains: Sequence[Sequence[float]]) -> Floats:
    mix = rng.dirichlet([0.5] * len(stains)) @ np.array(stains) + rng.normal(0, 0.05, 3)
    mix = np.clip(mix, 0.02, None)
    return np.asarray(mix / np.linalg.norm(mix) * np.sqrt(3))[:, None, None]


def _texture(
    rng: np.random.Generator, side: int, textures: Tensor, *, long: bool = False
) -> Floats:
    """Return a texture; a long one cannot be taken for nuclei (see `make_textures`)."""
    kinds = len(textures) // LONG if long else len(textures)
    tile = textures[rng.integers(kinds)].numpy()
    y, x = rng.integers(tile.shape[0] - side + 1, size=2)
    return np.asarray(tile[y : y + side, x : x + side], np.float64)


def _nearest(
    rng: np.random.Generator, side: int, spacing: float, jitter: float, neighbours: int
) -> tuple[Floats, NDArray[np.intp], int]:
    """Return distances to, and numbers of, the nearest points of a jittered hexagonal lattice."""
    n = int(side / spacing) + 6
    rows, columns = np.mgrid[:n, :n] - 3.0
    points = np.stack([rows * 0.87, columns + 0.5 * (rows % 2)], -1).reshape(-1, 2) * spacing
    points += rng.normal(0, jitter * spacing, points.shape)
    pixels = np.indices((side, side)).reshape(2, -1).T + 0.5
    # Seen a little from the side, and turned.
    angle, stretch = rng.uniform(0, np.pi), np.exp(rng.normal(0, 0.12))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    around = (pixels - side / 2) @ turn * (stretch, 1 / stretch)
    around = around @ turn.T + side / 2
    distance, number = cKDTree(points).query(around, k=neighbours)
    shape = (side, side, neighbours)
    return distance.reshape(shape), number.reshape(shape), len(points)


def _blood(rng: np.random.Generator, side: int, textures: Tensor, scale: float) -> Floats:
    """Red blood cells, packed or loose, with or without a pale middle, some pale or missing."""
    radius = max(1.2, ERYTHROCYTE / 2 / scale * np.exp(rng.normal(0, 0.25)))
    spacing = 2 * radius * rng.choice([rng.uniform(0.75, 1.05), rng.uniform(1.05, 2.2)])
    distance, number, n = _nearest(rng, side, spacing, rng.uniform(0.05, 0.3), 3)
    size = radius * np.exp(rng.normal(0, 0.1, n))[number]
    sharp = rng.uniform(1.0, 4.0) * 7 / max(radius, 2)
    disc = 1 / (1 + np.exp(-(size - distance) * sharp))
    pale = rng.uniform(0, 0.8) * (rng.random() < 0.5)
    disc *= 1 - pale * np.exp(-((distance / (rng.uniform(0.35, 0.6) * size)) ** 2))
    level = np.clip(rng.normal(1, rng.uniform(0.05, 0.3), n), 0, None)
    level *= rng.random(n) < rng.choice([1.0, rng.uniform(0.2, 1)])
    cells = (disc * level[number]).max(-1) + rng.uniform(0, 0.4) * (disc * level[number])[..., 1]
    return np.asarray(rng.uniform(0.25, 1.3) * cells[None] * _stain(rng, BLOOD))


def _fat(rng: np.random.Generator, side: int, textures: Tensor, scale: float) -> Floats:
    """Empty round cells with thin walls."""
    spacing = rng.uniform(30, 130) / scale
    distance, _, _ = _nearest(rng, side, max(spacing, 5), rng.uniform(0.05, 0.2), 2)
    wall = rng.uniform(1.0, 4.0) / min(scale, 2)
    line = np.exp(-(((distance[..., 1] - distance[..., 0]) / wall) ** 2))
    line *= 0.3 + _texture(rng, side, textures)
    return np.asarray(rng.uniform(0.2, 1.1) * line[None] * _stain(rng, EOSIN))


def _mucus(rng: np.random.Generator, side: int, textures: Tensor, scale: float) -> Floats:
    """Wisps and sheets in a pale nuclear stain, or folded, dense ones in the tissue's."""
    sheet = _texture(rng, side, textures, long=True) ** rng.uniform(1, 5)
    veil = gaussian_filter(_texture(rng, side, textures, long=True), rng.uniform(0, 6))
    folded = rng.random() < 0.4
    level = rng.uniform(0.6, 1.6) if folded else rng.uniform(0.1, 1.3)
    return np.asarray(level * (sheet + 0.5 * veil)[None] * _stain(rng, EOSIN if folded else MUCUS))


def _ink(rng: np.random.Generator, side: int, textures: Tensor, scale: float) -> Floats:
    """Blots, strokes and grains of pigment and ink, up to black."""
    height = gaussian_filter(_texture(rng, side, textures, long=True), rng.uniform(0, 3))
    blot = 1 / (1 + np.exp(-(height - rng.uniform(0.4, 0.95)) * rng.uniform(8, 60)))
    return np.asarray(rng.uniform(0.5, 2.5) * blot[None] * _stain(rng, INK))


def _glass(rng: np.random.Generator, side: int, textures: Tensor, scale: float) -> Floats:
    """Bare or dusty glass, out of focus, brighter at one side."""
    slope = np.linspace(-1, 1, side) * rng.uniform(0, 0.06)
    shade = slope[:, None] + slope[None] * rng.normal() + 0.1
    # Specks smaller than nuclei: larger ones are as round and dark.
    dust = gaussian_filter((rng.random((side, side)) > 0.9995).astype(float), rng.uniform(0.4, 1))
    return np.asarray((shade.clip(0) + rng.uniform(0, 5) * dust)[None] * _stain(rng, INK) * 0.5)
