"""Synthetic images for training, validation and testing: random crops, and whole images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from hrviewer.geometry import Rect, context_rings
from hrviewer.ground_truth import GroundTruth
from hrviewer.pyramid.synthetic import SyntheticImage, make_synthetic_image
from hrviewer.training.density_task import CountedImage
from hrviewer.training.task import Batch
from hrviewer.training.warps import SCALES, mass_between, random_warp, warp_pixels

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

TRAIN, VALIDATION, TEST = range(10_000), range(10_000, 11_000), range(11_100, 11_900)
"""Seeds of synthetic images for training, every choice, and published figures. No others."""


@dataclass(frozen=True)
class CropStream(Dataset[Batch]):
    """Batches of crops of synthetic images, each a function of the seed and its number alone.

    Parameters
    ----------
    name : str
        Name of the synthetic image.
    steps, seed : int
        Number of batches, and random seed. The crops of a batch are from different images;
        `batches_per_image` consecutive batches are from the same ones, since an image may take
        longer to make than to render in part.
    size, side : int
        Sides of the images and of the crops, in pixels.
    batch : int
        Crops per batch.
    stride : int
        Stride of the density that comes with the images, in pixels; 0 for images without it.
    object_fraction : float
        Fraction of the crops that contain a given object, at a random position; the others are
        uniformly distributed. Most places are empty, so without it most crops would be.
    batches_per_image : int
        As in `steps`.
    rings : int
        Rings of context around each crop, see `context_patches`.
    size_gradient : float
        Size of objects at the image's lower border over that at its upper border: uniform crops
        then get objects of every size equally often.
    downscaled : int
        Crops per batch at a random scale, anisotropic, some of them warped (see `random_warp`), so
        that the network also works on downsampled and warped images.
    scales : tuple of float
        Range of their reductions, by default from 1 to 8. Where objects shrink to a pixel or two,
        what is smooth at full resolution appears as a crowd, so that these should stay visible.
    density_exponent : float
        Objects are selected with a probability of this power of the number of objects around
        them: with 0 isolated objects are as frequent as crowds, with 1 every object is equally
        frequent.
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
    scales: tuple[float, float] = SCALES

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Batch:
        """Return images ``(n, 3, h, w)`` from 0 to 1.

        With a stride, their densities follow; with rings, their context.
        """
        rng = np.random.default_rng((self.seed, step))
        images: list[Tensor] = []
        densities: list[Tensor] = []
        contexts: list[Tensor] = []
        seeds = np.random.default_rng((self.seed, step // self.batches_per_image)).choice(
            TRAIN, self.batch
        )
        for i, image_seed in enumerate(seeds):
            image = _synthetic_image(self.name, self.size, int(image_seed))
            objects = _object_points(self.name, self.size, int(image_seed))
            if i < self.downscaled:
                pixels, density = self._warped_crop(image, objects, rng)
            else:
                rect = self._sample_rect(objects, rng, (self.side, self.side))
                pixels = _render(image, rect).float() / 255
                # Objects outside reach in, and the other way round.
                density = (
                    density_map(self._objects_near(image, rect), rect, self.stride)
                    if self.stride
                    else None
                )
            images.append(pixels)
            if density is not None:
                densities.append(density)
            if self.rings:
                contexts.append(context_patches(image, self.size, rect, self.rings))
        parts = [torch.stack(images)]
        parts += [torch.stack(densities)] if self.stride else []
        parts += [torch.stack(contexts)] if contexts else []
        return tuple(parts)

    def _objects_near(self, image: SyntheticImage, rect: Rect) -> GroundTruth:
        """Return the objects in a rectangle and around it."""
        surroundings = rect.pad(rect.w // 4) & Rect(0, 0, self.size, self.size)
        return image.ground_truth(surroundings)

    def _warped_crop(
        self, image: SyntheticImage, objects: NDArray[np.float64], rng: np.random.Generator
    ) -> tuple[Tensor, Tensor | None]:
        """Return a crop at a random scale and warp, from 0 to 1, and its density."""
        warp = random_warp(rng, self.side, self.scales).limited(self.size, self.size)
        # The coarsest overview that is fine enough everywhere, as the pyramid reads it.
        level = 1 << max(0, int(math.log2(warp.finest)))
        h, w = (-(-side // level) * level for side in warp.sides)
        rect = self._sample_rect(objects, rng, (min(h, self.size), min(w, self.size)), level)
        pixels = warp_pixels(image.render(rect, level), warp, level) / 255
        if not self.stride:
            return pixels, None
        near = self._objects_near(image, rect)
        step = self.stride
        density = mass_between(near, rect.y + warp.rows[::step], rect.x + warp.columns[::step])
        return pixels, density

    def _sample_rect(
        self,
        objects: NDArray[np.float64],
        rng: np.random.Generator,
        sides: tuple[int, int],
        lattice: int = 1,
    ) -> Rect:
        """Return a random rectangle, around one of the objects ``(n, 2)`` or anywhere."""
        side = min(sides)
        last = self.size - np.array(sides)
        corner = rng.integers(last + 1)
        if len(objects) and rng.random() < self.object_fraction:
            _, cell, counts = np.unique(
                objects // side, axis=0, return_inverse=True, return_counts=True
            )
            weights = counts**self.density_exponent
            selected = rng.choice(len(counts), p=weights / weights.sum())
            candidates = np.flatnonzero(cell.ravel() == selected)
            corner = objects[rng.choice(candidates)].astype(int) - corner % side
        elif self.size_gradient > 1:
            corner[0] = (
                last[0] * (self.size_gradient ** rng.random() - 1) / (self.size_gradient - 1)
            )
        y, x = np.clip(corner, 0, last) // lattice * lattice
        return Rect(int(y), int(x), *sides)


@lru_cache(maxsize=64)
def _synthetic_image(name: str, size: int, seed: int) -> SyntheticImage:
    return make_synthetic_image(name, size, seed)


@lru_cache(maxsize=64)
def _object_points(name: str, size: int, seed: int) -> NDArray[np.float64]:
    """Return the points of an image's objects, ``(n, 2)``."""
    return _synthetic_image(name, size, seed).ground_truth(Rect(0, 0, size, size)).points


def density_map(
    truth: GroundTruth, rect: Rect, stride: int, relative_spread: float = 0.15
) -> Tensor:
    """Return the density of objects, the target of a network of this stride.

    Each object is a Gaussian of mass 1 around its point; the map has the part of it inside `rect`.

    Parameters
    ----------
    truth
        Objects in `rect` and around it.
    rect
        Its sides are multiples of `stride`.
    stride
        Side of a cell, in pixels.
    relative_spread
        Standard deviation over the shorter side of an object's box; at least half a cell.

    Returns
    -------
    Tensor
        ``(k, h/stride, w/stride)``, float32.
    """
    rows, columns = (
        np.arange(start, start + length + 1, stride, dtype=np.float64)
        for start, length in ((rect.y, rect.h), (rect.x, rect.w))
    )
    return mass_between(truth, rows, columns, relative_spread)


def context_patches(
    image: SyntheticImage, size: int, rect: Rect, rings: int, patch: int = 16
) -> Tensor:
    """Return the context squares around a square crop, each downsampled to a patch.

    Returns
    -------
    Tensor
        ``(8 · rings, 3, patch, patch)``, from 0 to 1, in the order of `context_rings`; NaN where a
        square's centre is outside the image. Pixels beyond the border are reflected.
    """
    bounds, squares = Rect(0, 0, size, size), context_rings(rect, rings)
    patches = torch.full((len(squares), 3, patch, patch), torch.nan)
    for i, square in enumerate(squares):
        y, x = (int(coordinate) for coordinate in square.center)
        if Rect(y, x, 1, 1) not in bounds:
            continue
        scale = 1 << max(0, int(math.log2(square.h / patch)))
        inside = square & bounds
        # On the lattice of the image's overviews.
        aligned = Rect(inside.y // scale * scale, inside.x // scale * scale, inside.h, inside.w)
        pixels = image.render(aligned & bounds, scale).astype(np.float32) / 255
        n = -(-square.h // scale)
        before = [max(0, -coordinate) // scale for coordinate in (square.y, square.x)]
        after = [max(0, n - pad - k) for pad, k in zip(before, pixels.shape, strict=False)]
        pad = [*zip(before, after, strict=True), (0, 0)]
        pixels = np.pad(pixels, pad, mode="reflect")[:n, :n]
        tile = torch.from_numpy(pixels).permute(2, 0, 1)[None]
        patches[i] = F.interpolate(tile, (patch, patch), mode="area")[0]
    return patches


def full_image(name: str, size: int, seed: int) -> Tensor:
    """Return a whole synthetic image in bytes, ``(3, size, size)``."""
    return _render(make_synthetic_image(name, size, seed), Rect(0, 0, size, size))


@dataclass(frozen=True)
class FullImages(Sequence[CountedImage]):
    """Synthetic images and their counts, made on access.

    Parameters
    ----------
    name, size
        Name and side of the images.
    seeds
        Seed of each.
    """

    name: str
    size: int
    seeds: Sequence[int]

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, number: Any) -> Any:
        """Return one image and its count."""
        return counted_image(self.name, self.size, self.seeds[number])


def counted_image(name: str, size: int, seed: int) -> CountedImage:
    """Return a synthetic image and its number of objects."""
    truth = make_synthetic_image(name, size, seed).ground_truth(Rect(0, 0, size, size))
    return CountedImage(full_image(name, size, seed), len(truth))


def _render(image: SyntheticImage, rect: Rect, scale: int = 1) -> Tensor:
    return torch.from_numpy(image.render(rect, scale)).permute(2, 0, 1)
