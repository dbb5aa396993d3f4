"""Procedural scenes to learn from and to be judged by: random pieces, whole pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtr
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from hrviewer.geometry import Rect, context_rings
from hrviewer.ground_truth import GroundTruth
from hrviewer.pyramid.synthetic import SyntheticImage, make_synthetic_image
from hrviewer.training.density_task import CountedImage
from hrviewer.training.task import Batch

__all__ = [
    "TEST",
    "TRAIN",
    "VALIDATION",
    "CropStream",
    "FullImages",
    "context_patches",
    "counted_image",
    "density_map",
    "full_image",
]

TRAIN, VALIDATION, TEST = range(10_000), range(10_000, 11_000), range(11_000, 12_000)
"""Seeds of scenes to learn from, to choose between trainings by, and to test with. No others."""

DOWNSCALES = {2: 0.5, 4: 0.3, 8: 0.2}
"""By how much pieces that are seen from farther are shrunk, and how often by each."""


@dataclass(frozen=True)
class CropStream(Dataset[Batch]):
    """Batches of pieces of scenes at full resolution, each of the seed and its number alone.

    Parameters
    ----------
    name : str
        Of the scene.
    steps, seed : int
        How many batches, and what chance is drawn from. The pieces of a batch are of different
        scenes; `batches_per_image` batches in a row are of the same ones, since a scene may take
        longer to make than a piece of it to draw.
    size, side : int
        Of the scenes, and of the pieces, in pixels.
    batch : int
        Pieces in each.
    stride : int
        Of the density that comes with the images, in pixels; 0 for images without it.
    object_fraction : float
        Which share of the pieces is laid about an object, somewhere in the piece; the others lie
        anywhere. Most places are empty: without it, most of what is seen would say the same.
    batches_per_image : int
        See `steps`.
    rings : int
        How many rings of coarse squares around each piece come with it, see `surround`.
    size_gradient : float
        How many times as large things are at the scene's lower border as at its upper one: pieces
        that may lie anywhere lie among things of every size as often.
    downscaled : int
        How many of a batch's pieces are seen from farther, shrunk by 2, 4 or 8 a side (`FARTHER`
        says how often each), so that what is learned holds for shrunk pictures, too.
    density_exponent : float
        A place about an object is as likely as this power of how many it holds: with 0 who stands
        alone is seen as often as a crowd, with 1 each object as often as any other.
    """

    name: str
    steps: int
    seed: int
    size: int = 8192
    side: int = 256
    batch: int = 8
    stride: int = 0
    object_fraction: float = 0.5
    batches_per_image: int = 16
    rings: int = 0
    size_gradient: float = 1.0
    density_exponent: float = 0.0
    downscaled: int = 0

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Batch:
        """Return images ``(n, 3, h, w)`` from 0 to 1.

        With a stride their densities follow, with rings what is around them.
        """
        rng = np.random.default_rng((self.seed, step))
        images, densities, around = [], [], []
        scenes = np.random.default_rng((self.seed, step // self.batches_per_image)).choice(
            TRAIN, self.batch
        )
        for i, number in enumerate(scenes):
            scene = _synthetic_image(self.name, self.size, int(number))
            scale = (
                int(rng.choice([*DOWNSCALES], p=[*DOWNSCALES.values()]))
                if i < self.downscaled
                else 1
            )
            rect = self._sample_rect(_object_points(self.name, self.size, int(number)), rng, scale)
            images.append(_render(scene, rect, scale))
            if self.stride:
                # What stands outside reaches in, and the other way round.
                near = rect.pad(rect.w // 4) & Rect(0, 0, self.size, self.size)
                densities.append(density_map(scene.ground_truth(near), rect, self.stride * scale))
            if self.rings:
                around.append(context_patches(scene, self.size, rect, self.rings))
        parts = [torch.stack(images).float() / 255]
        parts += [torch.stack(some) for some in (densities, around) if some]
        return tuple(parts)

    def _sample_rect(
        self, objects: NDArray[np.float64], rng: np.random.Generator, scale: int
    ) -> Rect:
        """Choose a place, about one of the objects ``(n, 2)`` or anywhere."""
        side = self.side * scale
        last = self.size - side
        corner = rng.integers(last + 1, size=2)
        if len(objects) and rng.random() < self.object_fraction:
            _, place, held = np.unique(
                objects // side, axis=0, return_inverse=True, return_counts=True
            )
            likely = held**self.density_exponent
            chosen = rng.choice(len(held), p=likely / likely.sum())
            there = np.flatnonzero(place.ravel() == chosen)
            corner = objects[rng.choice(there)].astype(int) - corner % side
        elif self.size_gradient > 1:
            corner[0] = last * (self.size_gradient ** rng.random() - 1) / (self.size_gradient - 1)
        y, x = np.clip(corner, 0, last) // scale * scale
        return Rect(int(y), int(x), side, side)


@lru_cache(maxsize=64)
def _synthetic_image(name: str, size: int, seed: int) -> SyntheticImage:
    return make_synthetic_image(name, size, seed)


@lru_cache(maxsize=64)
def _object_points(name: str, size: int, seed: int) -> NDArray[np.float64]:
    """Return where the objects of a scene are, ``(n, 2)``."""
    return _synthetic_image(name, size, seed).ground_truth(Rect(0, 0, size, size)).points


def density_map(
    truth: GroundTruth, rect: Rect, stride: int, relative_spread: float = 0.15
) -> Tensor:
    """Return the density of objects as a network of this stride is to say it.

    Each object is a Gaussian of mass 1 about its point, of which `rect` gets what lies in it.

    Parameters
    ----------
    truth
        The objects in `rect` and about it.
    rect
        Its sides are multiples of `stride`.
    stride
        Side of a cell, in pixels.
    soft
        Standard deviation, over the shorter side of an object's box; at least half a cell.

    Returns
    -------
    Tensor
        ``(k, h/stride, w/stride)``, float32.
    """
    spread = np.full(len(truth), stride / 2)
    if truth.boxes is not None:
        spread = np.maximum(spread, relative_spread * truth.boxes[:, 2:].min(axis=1))

    def share(at: NDArray[np.float64], start: int, length: int) -> NDArray[np.float64]:
        edges = np.arange(start, start + length + 1, stride)
        return np.diff(ndtr((edges - at[:, None]) / spread[:, None]), axis=1)

    rows = share(truth.points[:, 0], rect.y, rect.h)
    columns = share(truth.points[:, 1], rect.x, rect.w)
    maps = [
        rows[truth.class_ids == kind].T @ columns[truth.class_ids == kind]
        for kind in range(len(truth.classes))
    ]
    return torch.from_numpy(np.stack(maps)).float()


def context_patches(
    image: SyntheticImage, size: int, rect: Rect, rings: int, patch: int = 16
) -> Tensor:
    """Return the squares around a square piece, each shrunk to a patch.

    Returns
    -------
    Tensor
        ``(8 · rings, 3, patch, patch)``, from 0 to 1, in the order of `surroundings`; NaN where a
        square's middle lies outside the scene. What is beyond its border is reflected.
    """
    whole, squares = Rect(0, 0, size, size), context_rings(rect, rings)
    found = torch.full((len(squares), 3, patch, patch), torch.nan)
    for i, square in enumerate(squares):
        y, x = (int(at) for at in square.center)
        if Rect(y, x, 1, 1) not in whole:
            continue
        scale = 1 << max(0, int(math.log2(square.h / patch)))
        inside = square & whole
        # On the lattice of the scene's own overviews.
        near = Rect(inside.y // scale * scale, inside.x // scale * scale, inside.h, inside.w)
        pixels = image.render(near & whole, scale).astype(np.float32) / 255
        n = -(-square.h // scale)
        before = [max(0, -at) // scale for at in (square.y, square.x)]
        after = [max(0, n - pad - k) for pad, k in zip(before, pixels.shape, strict=False)]
        pad = [*zip(before, after, strict=True), (0, 0)]
        pixels = np.pad(pixels, pad, mode="reflect")[:n, :n]
        tile = torch.from_numpy(pixels).permute(2, 0, 1)[None]
        found[i] = F.interpolate(tile, (patch, patch), mode="area")[0]
    return found


def full_image(name: str, size: int, seed: int) -> Tensor:
    """Return a whole scene in bytes, ``(3, size, size)``."""
    return _render(make_synthetic_image(name, size, seed), Rect(0, 0, size, size))


@dataclass(frozen=True)
class FullImages(Sequence[CountedImage]):
    """Whole scenes and how many objects are in each, made whenever they are asked for.

    Parameters
    ----------
    name, size
        Of the scenes.
    seeds
        One each.
    """

    name: str
    size: int
    seeds: Sequence[int]

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, number: Any) -> Any:
        """Return one scene."""
        return counted_image(self.name, self.size, self.seeds[number])


def counted_image(name: str, size: int, seed: int) -> CountedImage:
    """Return a whole scene and how many objects are in it."""
    truth = make_synthetic_image(name, size, seed).ground_truth(Rect(0, 0, size, size))
    return CountedImage(full_image(name, size, seed), len(truth))


def _render(image: SyntheticImage, rect: Rect, scale: int = 1) -> Tensor:
    return torch.from_numpy(image.render(rect, scale)).permute(2, 0, 1)
