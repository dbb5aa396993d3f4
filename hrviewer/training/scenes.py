"""Procedural scenes to learn from and to be judged by: random pieces, whole pictures."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtr
from torch import Tensor
from torch.utils.data import Dataset

from hrviewer.geometry import Rect
from hrviewer.pyramid.recipe import Recipe, make_recipe
from hrviewer.training.density import Counted
from hrviewer.training.lesson import Batch
from hrviewer.truth import Truth

__all__ = ["CHOOSE", "TEST", "TRAIN", "Pieces", "counted", "density", "picture"]

TRAIN, CHOOSE, TEST = range(10_000), range(10_000, 11_000), range(11_000, 12_000)
"""Seeds of scenes to learn from, to choose between trainings by, and to test with. No others."""


@dataclass(frozen=True)
class Pieces(Dataset[Batch]):
    """Batches of pieces of scenes at full resolution, each of the seed and its number alone.

    Parameters
    ----------
    name : str
        Of the scene.
    steps, seed : int
        How many batches, and what chance is drawn from. The pieces of a batch are of different
        scenes; `again` batches in a row are of the same ones, since a scene may take longer to
        make than a piece of it to draw.
    size, side : int
        Of the scenes, and of the pieces, in pixels.
    batch : int
        Pieces in each.
    stride : int
        Of the density that comes with the images, in pixels; 0 for images without it.
    around : float
        Which share of the pieces is laid about an object, each as likely as any other, somewhere
        in the piece; the others lie anywhere. Most places are empty: without it, most of what is
        seen would say the same.
    again : int
        See `steps`.
    """

    name: str
    steps: int
    seed: int
    size: int = 8192
    side: int = 256
    batch: int = 8
    stride: int = 0
    around: float = 0.5
    again: int = 16

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Batch:
        """Return images ``(n, 3, h, w)`` from 0 to 1 and, with a stride, their densities."""
        rng = np.random.default_rng((self.seed, step))
        images, densities = [], []
        scenes = np.random.default_rng((self.seed, step // self.again)).choice(TRAIN, self.batch)
        for number in scenes:
            scene = _scene(self.name, self.size, int(number))
            rect = self._place(_objects(self.name, self.size, int(number)), rng)
            images.append(_pixels(scene, rect))
            if self.stride:
                # What stands outside reaches in, and the other way round.
                around = rect.pad(rect.w // 4) & Rect(0, 0, self.size, self.size)
                densities.append(density(scene.truth(around), rect, self.stride))
        pixels = torch.stack(images).float() / 255
        return (pixels, torch.stack(densities)) if self.stride else (pixels,)

    def _place(self, objects: NDArray[np.float64], rng: np.random.Generator) -> Rect:
        """Choose a place, about one of the objects ``(n, 2)`` or anywhere."""
        last = self.size - self.side
        corner = rng.integers(last + 1, size=2)
        if len(objects) and rng.random() < self.around:
            corner = objects[rng.integers(len(objects))].astype(int) - corner % self.side
        y, x = np.clip(corner, 0, last)
        return Rect(int(y), int(x), self.side, self.side)


@lru_cache(maxsize=64)
def _scene(name: str, size: int, seed: int) -> Recipe:
    return make_recipe(name, size, seed)


@lru_cache(maxsize=64)
def _objects(name: str, size: int, seed: int) -> NDArray[np.float64]:
    """Return where the objects of a scene are, ``(n, 2)``."""
    return _scene(name, size, seed).truth(Rect(0, 0, size, size)).points


def density(truth: Truth, rect: Rect, stride: int, soft: float = 0.15) -> Tensor:
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
        spread = np.maximum(spread, soft * truth.boxes[:, 2:].min(axis=1))

    def share(at: NDArray[np.float64], start: int, length: int) -> NDArray[np.float64]:
        edges = np.arange(start, start + length + 1, stride)
        return np.diff(ndtr((edges - at[:, None]) / spread[:, None]), axis=1)

    rows = share(truth.points[:, 0], rect.y, rect.h)
    columns = share(truth.points[:, 1], rect.x, rect.w)
    maps = [
        rows[truth.kinds == kind].T @ columns[truth.kinds == kind]
        for kind in range(len(truth.classes))
    ]
    return torch.from_numpy(np.stack(maps)).float()


def picture(name: str, size: int, seed: int) -> Tensor:
    """Return a whole scene in bytes, ``(3, size, size)``."""
    return _pixels(make_recipe(name, size, seed), Rect(0, 0, size, size))


def counted(name: str, size: int, seed: int) -> Counted:
    """Return a whole scene and how many objects are in it."""
    truth = make_recipe(name, size, seed).truth(Rect(0, 0, size, size))
    return Counted(picture(name, size, seed), len(truth))


def _pixels(scene: Recipe, rect: Rect) -> Tensor:
    return torch.from_numpy(scene.render(rect, 1)).permute(2, 0, 1)
